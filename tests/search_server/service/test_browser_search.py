"""A search as people make it in a browser: a form, a page that lives, the winner, its config.

Nothing is in between: `lossforge serve` is a process of its own over an empty store, its
controller runs on Ray, and what was downloaded is trained by mmengine alone.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from browsing import click, drawn, text_of, wait
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import staleness_of
from selenium.webdriver.support.ui import Select

from search_server.store import Store
from workers.data import digits, one_image_per_class

PATIENCE = 900.0  # seconds; a machine may have other work
STEPS, CANDIDATES = 60, 3
FORM = {
    "name": "by browser",
    "funnel.proxy.steps": str(STEPS),
    "funnel.proxy.batch_size": "4",
    "candidates": str(CANDIDATES),
    "limits.steps": "",
}
WATCH = """
const seen = (name) => {
  const place = document.querySelector(`[data-live="${name}"]`);
  const told = JSON.parse(sessionStorage.getItem(name) ?? "[]");
  if (place && told[told.length - 1] !== place.textContent) {
    told.push(place.textContent);
    sessionStorage.setItem(name, JSON.stringify(told));
  }
};
const all = () => ["ended", "running"].forEach(seen);
all();
new MutationObserver(all).observe(document.getElementById("job"),
  { childList: true, subtree: true, characterData: true });
"""
TRAIN = """
import json, sys
from mmengine.config import Config
from mmengine.runner import Runner
runner = Runner.from_cfg(Config.fromfile(sys.argv[1]))
runner.train()
ap = runner.message_hub.get_scalar("val/coco/bbox_mAP").current()
print("\\n" + json.dumps({"ap": float(ap), "steps": runner.iter}))
"""


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A folder `data` with ten images of the digits, to train on and to be evaluated on, as an
    export expects them; and the settings of a service that has them."""
    split = one_image_per_class(digits().splits["search_train"], tmp_path / "few")
    data = tmp_path / "data"
    data.mkdir()
    for name in ("search_train", "search_val"):
        (data / f"{name}.json").symlink_to(split.annotations)
        (data / name).symlink_to(split.images)
    splits = {
        name: {"annotations": str(data / f"{name}.json"), "images": str(data / name)}
        for name in ("search_train", "search_val")
    }
    settings = {"data": {"few-digits": splits}, "runs": {"slots": 1}}
    (tmp_path / "service.yaml").write_text(json.dumps(settings))
    return data


@pytest.fixture
def served(few: Path, tmp_path: Path) -> Iterator[tuple[str, Store]]:
    """The address of `lossforge serve`, and its store."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    command = [sys.executable, "-P", "-m", "search_server.cli", "serve", "--port", "0"]
    with Store.open(url) as store:
        process = subprocess.Popen(
            [*command, "--store", url, "--config", str(tmp_path / "service.yaml")],
            # Ray's workers would step back behind everything else on this machine.
            env={**os.environ, "RAY_worker_niceness": "0", "CUDA_VISIBLE_DEVICES": ""},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.fullmatch(r"Lossforge at (http://127\.0\.0\.1:\d+)/\n", line)
            assert found is not None, line
            yield found[1], store
        finally:
            process.kill()
            process.communicate()
            for job in store.jobs():
                if job.owner is not None and job.state == "running":  # it leads a session
                    with suppress(ProcessLookupError):
                        os.killpg(int(job.owner.split()[1]), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(3 * PATIENCE)
def test_from_the_form_to_a_config_that_trains(
    driver: webdriver.Chrome, served: tuple[str, Store], few: Path, tmp_path: Path
) -> None:
    address, store = served
    job = _submitted_by_form(driver, address)
    page = driver.current_url
    assert page == f"{address}/jobs/{job}"

    driver.execute_script(WATCH)
    wait(driver, lambda d: text_of("#live-state")(d) == "done", PATIENCE)
    assert driver.current_url == page
    wait(driver, drawn)
    lived = {
        name: json.loads(driver.execute_script(f"return sessionStorage.getItem('{name}')"))
        for name in ("ended", "running")
    }
    trials = store.trials(job, curves=False)
    ended = [int(each) for each in lived["ended"]]
    assert len(ended) > 1  # it went on before one's eyes: nobody has loaded the page again
    assert ended == sorted(ended)
    assert ended[-1] == len(trials)
    assert "1" in lived["running"]
    assert text_of('[data-live="ended"]')(driver) == str(len(trials))

    rows = driver.find_elements(By.CSS_SELECTOR, "#board-rows tbody tr")
    assert len(rows) == 1 + CANDIDATES  # the baseline comes on top
    winner = driver.find_element(By.CSS_SELECTOR, "#board-rows tbody tr:not(.base)")
    index = int(winner.find_element(By.CSS_SELECTOR, "th a").text)
    record = store.candidate(job, index)
    for each in (index, 0):
        click(driver, f'#board-rows input[value="{job}:{each}"]')
    click(driver, "#board-rows button.main")
    wait(driver, lambda d: "/compare" in d.current_url)
    told = wait(driver, text_of("main"))
    assert f"2 losses against {job}:0" in told
    assert "Proxy task" in told

    driver.back()
    wait(driver, lambda d: d.current_url.startswith(page))
    click(driver, f'#board-rows th a[href$="/candidates/{index}"]')
    wait(driver, lambda d: f"Candidate {index}" in text_of("h1")(d))
    wait(driver, drawn)
    assert driver.find_elements(By.CSS_SELECTOR, ".formula math")
    config = _downloaded(driver, tmp_path / "downloads")
    assert record.definition["bbox"]["expression"] in config.read_text()

    assert record.fitness is not None
    trained = _trained(config, few)
    assert trained == {"ap": pytest.approx(record.fitness, abs=1e-6), "steps": STEPS}


def _submitted_by_form(driver: webdriver.Chrome, address: str) -> str:
    """The id of a job. A service that has only just begun shows the form again, as filled in."""
    driver.get(f"{address}/submit")
    for name, value in FORM.items():
        field = driver.find_element(By.ID, "f-" + name.replace(".", "-"))
        field.clear()
        if value:
            field.send_keys(value)
    for name, value in {"detector": "digits/atss", "data": "few-digits", "search": "bbox"}.items():
        Select(driver.find_element(By.ID, f"f-{name}")).select_by_value(value)
    click(driver, "#f-confirm")
    until = time.monotonic() + PATIENCE
    while True:
        before = driver.find_element(By.TAG_NAME, "html")
        click(driver, "form[aria-labelledby='by-form'] button.main")
        wait(driver, staleness_of(before), PATIENCE)
        wait(driver, lambda d: "/jobs/" in d.current_url or text_of(".notice.bad")(d), PATIENCE)
        if "/jobs/" in driver.current_url:
            return driver.current_url.rpartition("/")[2]
        assert "try again" in text_of(".notice.bad")(driver)
        assert time.monotonic() < until
        time.sleep(1.0)


def _downloaded(driver: webdriver.Chrome, folder: Path) -> Path:
    """The file behind the button of the config."""
    folder.mkdir()
    where = {"behavior": "allow", "downloadPath": str(folder)}
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", where)
    click(driver, "a.button.main[download]")
    wait(driver, lambda _: list(folder.glob("*.py")), PATIENCE)
    (config,) = folder.iterdir()
    return config


def _trained(config: Path, data: Path) -> dict[str, Any]:
    """What plain mmengine makes of a config, in a fresh process beside its data."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", TRAIN, str(config)],
        cwd=data.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.rstrip().rpartition("\n")[2])
    return found
