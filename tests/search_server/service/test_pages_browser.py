"""The pages in a real browser: the theme, what is live, nothing against the policy, axe."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import pytest
import uvicorn
from browsing import PATIENCE, drawn, text_of, wait
from filled_store import fill, new_job
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from search_server.service.app import make_app
from search_server.service.settings import Bounds, ServiceSettings
from search_server.service.standing import Standing, decide
from search_server.store import Store
from workers import TrialResult

Served = tuple[str, dict[str, str], Store]
SETTINGS = ServiceSettings(bounds=Bounds(requests=10**6, changes=10**6))
SILENT = Standing("running", "", 1, "unknown")  # a job whose controller nobody can ask


@contextmanager
def serving(store: Store) -> Iterator[str]:
    """A service over a store, on a port of its own; its address."""
    app = make_app(store, SETTINGS, tokens_wanted=False)
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="error", timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Address, jobs by kind, and the store."""
    file: Path = tmp_path_factory.mktemp("pages") / "store.db"
    with Store.open(str(file)) as store:
        jobs = fill(store)
        with serving(store) as address:
            yield address, jobs, store


def paths(jobs: dict[str, str]) -> list[str]:
    done = jobs["done"]
    return [
        "/jobs",
        "/leaderboard",
        f"/jobs/{done}",
        f"/jobs/{jobs['policy']}",
        f"/jobs/{done}/candidates/1",
        f"/compare?candidate={done}:1&candidate={done}:2",
        "/verify",
        "/submit",
        "/jobs/none",
    ]


def test_nothing_goes_against_the_policy_and_axe_finds_no_fault(
    driver: webdriver.Chrome, service: Served
) -> None:
    address, jobs, _ = service
    axe = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
    found = []
    driver.get(f"{address}/jobs")
    driver.get_log("browser")
    for theme in ("light", "dark"):
        driver.execute_script(f"localStorage.setItem('lossforge-theme', '{theme}')")
        for path in paths(jobs):
            driver.get(address + path)
            wait(driver, drawn)
            assert driver.execute_script("return document.documentElement.dataset.theme") == theme
            told = [entry["message"] for entry in driver.get_log("browser")]
            missing = path == "/jobs/none"  # of which the console says as much
            found += [(theme, path, each) for each in told if not (missing and "404" in each)]
            driver.execute_script(axe)
            script = """const done = arguments[arguments.length - 1];
                axe.run({resultTypes: ['violations']}).then((r) => done(r.violations))"""
            driver.set_script_timeout(4 * PATIENCE)
            for fault in driver.execute_async_script(script):
                if fault["impact"] in ("serious", "critical"):
                    places = [node["html"][:200] for node in fault["nodes"][:3]]
                    found.append((theme, path, f"{fault['id']}: {places}"))
    assert not found, "\n".join(map(str, found))


def test_a_theme_is_chosen_and_kept(driver: webdriver.Chrome, service: Served) -> None:
    address, _, _ = service
    driver.get(f"{address}/jobs")
    driver.execute_script("localStorage.clear()")
    driver.get(f"{address}/jobs")

    def paper() -> str:
        script = "return getComputedStyle(document.documentElement).backgroundColor"
        return str(driver.execute_script(script))

    button = driver.find_element(By.ID, "theme")
    assert button.text == "Theme: auto"
    button.click()
    assert button.text == "Theme: light"
    light = paper()
    button.click()
    assert button.text == "Theme: dark"
    assert paper() != light
    dark = paper()
    driver.get(f"{address}/verify")
    assert driver.find_element(By.ID, "theme").text == "Theme: dark"
    assert paper() == dark


def test_a_job_page_follows_its_job(driver: webdriver.Chrome, service: Served) -> None:
    address, jobs, store = service
    job = jobs["running"]
    driver.get(f"{address}/jobs/{job}")
    wait(driver, lambda d: text_of("#live-link")(d) == "live")
    wait(driver, drawn)
    assert text_of('[data-live="best"]')(driver) == "45.0"
    assert text_of('[data-live="running"]')(driver) == "1"
    news = {"best": "61.0", "running": "0", "gain": "+21.0"}
    store.finish_trial(job, 2, "proxy", 0, TrialResult("done", "", 0.61, 0, 200))
    store.update_candidate(job, 2, state="done", fitness=0.61)
    for name, told in news.items():
        wait(driver, lambda d, n=name, t=told: text_of(f'[data-live="{n}"]')(d) == t)
    # tables and plots follow a few seconds later, from the page itself
    wait(driver, lambda d: "61.0" in text_of("#board-rows")(d))
    marks = "return document.querySelectorAll('[data-plot=progress] .points path').length"
    wait(driver, lambda d: d.execute_script(marks) >= 2)


def test_an_expression_is_judged_as_one_types(driver: webdriver.Chrome, service: Served) -> None:
    address, _, _ = service
    driver.get(f"{address}/verify?space=box")
    area = driver.find_element(By.ID, "expression")
    area.send_keys("Sub(1,Div(I,")
    wait(driver, lambda d: text_of("#expression-error")(d))
    area.send_keys("U))")
    wait(driver, lambda d: "It is a loss" in text_of("#verdict")(d))
    assert driver.find_elements(By.CSS_SELECTOR, "#verdict math")
    assert not driver.find_elements(By.ID, "expression-error")
    assert driver.switch_to.active_element == area  # nobody was torn away from typing


def test_a_leaderboard_is_sorted_in_place_and_its_ticked_rows_compared(
    driver: webdriver.Chrome, service: Served
) -> None:
    address, jobs, _ = service
    done = jobs["done"]
    driver.get(f"{address}/jobs/{done}")
    driver.execute_script("window.here = true")
    driver.find_element(By.LINK_TEXT, "size").click()
    wait(driver, lambda d: "sort=size" in d.current_url)
    assert driver.execute_script("return window.here")
    for index in (1, 2):
        tick = driver.find_element(By.CSS_SELECTOR, f'input[value="{done}:{index}"]')
        driver.execute_script("arguments[0].click()", tick)
    button = driver.find_element(By.XPATH, "//button[.='Compare ticked rows']")
    driver.execute_script("arguments[0].click()", button)
    wait(driver, lambda d: "/compare" in d.current_url)
    assert f"3 losses against {done}:0" in text_of("main")(driver)


def asked_and_answered(driver: webdriver.Chrome, button: str, *, yes: bool) -> str:
    """Click a button that asks before it does anything; what it asks."""
    driver.find_element(By.XPATH, f"//button[.='{button}']").click()
    question = driver.switch_to.alert
    text = question.text
    if yes:
        question.accept()
    else:
        question.dismiss()
    return text


def test_a_search_is_cancelled_by_a_button_that_asks_first(
    driver: webdriver.Chrome, service: Served
) -> None:
    address, _, store = service
    job = new_job(store, "to be cancelled")
    store.set_job_state(job, "running")
    driver.get(f"{address}/jobs/{job}")
    assert "Cancel this search?" in asked_and_answered(driver, "Cancel", yes=False)
    assert store.job(job).state == "running"
    assert store.request_of(job) is None
    asked_and_answered(driver, "Cancel", yes=True)
    wait(driver, lambda d: text_of("#live-state")(d) == "cancelling")
    assert driver.current_url == f"{address}/jobs/{job}"
    assert store.job(job).state == "cancelling"
    request = store.request_of(job)  # by which the reconciler sees to it
    assert request is not None
    assert not request.settled
    buttons = [each.text for each in driver.find_elements(By.CSS_SELECTOR, ".headline button")]
    assert buttons == []


def test_a_search_whose_controller_is_silent_is_taken_over_by_a_button(
    driver: webdriver.Chrome, service: Served
) -> None:
    address, _, store = service
    job = new_job(store, "silent")
    store.set_job_state(job, "running")
    store.reopen_request(job, "somebody")
    driver.get(f"{address}/jobs/{job}")
    assert not driver.find_elements(By.XPATH, "//button[.='Resume with force']")
    store.note_request(job, note=decide(SILENT, tries=3).note, tried=1)
    driver.get(f"{address}/jobs/{job}")
    asked = asked_and_answered(driver, "Resume with force", yes=False)
    assert "gone for good" in asked
    request = store.request_of(job)
    assert request is not None
    assert (request.note, request.tries) != ("", 0)
    asked_and_answered(driver, "Resume with force", yes=True)
    wait(driver, lambda d: not d.find_elements(By.XPATH, "//button[.='Resume with force']"))
    assert driver.current_url == f"{address}/jobs/{job}"
    request = store.request_of(job)  # which the reconciler starts a controller for
    assert request is not None
    assert (request.settled, request.note, request.tries) == (False, "", 0)


def test_all_of_it_is_reached_by_keys(driver: webdriver.Chrome, service: Served) -> None:
    address, _, _ = service
    driver.get(f"{address}/jobs")
    driver.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    first = driver.switch_to.active_element
    assert first.text == "Skip to content"
    assert first.is_displayed()
    first.send_keys(Keys.ENTER)
    assert driver.switch_to.active_element.get_attribute("id") == "main"
