"""The pages as a browser without scripts gets them: facts, links, nobody's text as markup."""

import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from fastapi.testclient import TestClient
from filled_store import BOX, CLS, HOSTILE, add, fill

from search_server.paired_statistics import Paired
from search_server.service.app import STATIC, make_app
from search_server.service.comparing import ComparedRow, ComparedStage
from search_server.service.pages.compare import forest
from search_server.service.settings import ServiceSettings
from search_server.store import Store

PAGE = {"accept": "text/html"}
KINDS = ("empty", "done", "running", "failed", "policy", "tuning")


class Page(HTMLParser):
    """What matters of a page: its tags with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every element of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        """All text, one line."""
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A store with jobs of every kind, and their ids."""
    file = tmp_path_factory.mktemp("pages") / "store.db"
    with Store.open(str(file)) as store:
        return file, fill(store)


@pytest.fixture(scope="module")
def browser(filled: tuple[Path, dict[str, str]]) -> Iterator[TestClient]:
    """A client of a service over it, with the cookie that a browser has after its first page."""
    with Store.open(str(filled[0])) as store:
        app = make_app(store, ServiceSettings(), tokens_wanted=False)
        client = TestClient(app, base_url="http://127.0.0.1", headers=PAGE)
        client.get("/jobs")
        yield client


@pytest.fixture(scope="module")
def jobs(filled: tuple[Path, dict[str, str]]) -> dict[str, str]:
    return filled[1]


def every_page(jobs: dict[str, str]) -> list[str]:
    done = f"/jobs/{jobs['done']}"
    both = f"candidate={jobs['done']}:1&candidate={jobs['done']}:2"
    return [
        "/jobs",
        "/leaderboard",
        "/compare",
        "/verify",
        "/submit",
        *(f"/jobs/{job}" for job in jobs.values()),
        *(f"{done}/candidates/{index}" for index in range(6)),
        f"/compare?{both}",
        f"/compare?candidate={jobs['done']}:4",
        f"/jobs/{jobs['policy']}/candidates/2",
    ]


def read(browser: TestClient, path: str, status: int = 200) -> Page:
    answer = browser.get(path)
    assert answer.status_code == status, (path, answer.text[:500])
    assert answer.headers["content-type"].startswith("text/html")
    return Page(answer.text)


def test_no_page_runs_what_somebody_wrote_or_loads_what_is_not_ours(
    browser: TestClient, jobs: dict[str, str]
) -> None:
    fetched: set[str] = set()
    for path in every_page(jobs):
        text = browser.get(path).text
        page = Page(text)
        assert "<img src=x" not in text
        assert "/home/somebody" not in text
        assert "/srv/hidden" not in text
        for tag, attributes in page.tags:
            assert not [name for name in attributes if name.startswith("on")], (path, tag)
            for name in ("src", "href", "action"):
                target = attributes.get(name) or "/"
                assert target.startswith(("/", "#")), (path, tag, target)
                assert not target.startswith("//"), (path, tag, target)
            if tag == "script":
                assert (attributes.get("src") or "").startswith("/static/"), path
        assert not re.findall(r"<script[^>]*>[^<]", text), path
        for tag, name in (("script", "src"), ("link", "href")):
            fetched |= {attributes[name] or "" for attributes in page.all(tag)}
    scripts = [file for file in STATIC.iterdir() if file.suffix == ".js"]
    for file in scripts:
        imported = re.findall(r'from "\./([\w.]+)"', file.read_text(encoding="utf-8"))
        fetched |= {f"/static/{name}" for name in imported}
    assert len(fetched) >= len(scripts)
    for target in fetched:
        assert browser.get(target).status_code == 200, target


def test_every_page_has_a_name_landmarks_and_headings_in_order(
    browser: TestClient, jobs: dict[str, str]
) -> None:
    for path in every_page(jobs):
        page = read(browser, path)
        assert page.all("html") == [{"lang": "en"}]
        levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
        assert levels.count(1) == 1, path
        assert levels[0] == 1, path
        steps = [after - before for before, after in pairwise(levels)]
        assert max(steps, default=0) <= 1, (path, levels)
        assert {"header", "main", "footer", "nav"} <= {tag for tag, _ in page.tags}
        assert all("aria-label" in nav for nav in page.all("nav")), path
        tables = [tag for tag, _ in page.tags if tag in ("table", "caption")]
        assert tables == ["table", "caption"] * (len(tables) // 2), path
        named = {attributes.get("id") for _, attributes in page.tags}
        for _, attributes in page.tags:
            for reference in ("for", "aria-labelledby", "aria-describedby"):
                for word in (attributes.get(reference) or "").split():
                    assert word in named, (path, reference, word)
        ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
        assert len(ids) == len(set(ids)), path


def test_links_of_pages_lead_somewhere(browser: TestClient, jobs: dict[str, str]) -> None:
    seen = set()
    for path in every_page(jobs):
        for attributes in read(browser, path).all("a"):
            target = (attributes["href"] or "").partition("#")[0]
            if target and "/export" not in target:
                seen.add(target)
    for target in sorted(seen):
        assert browser.get(target).status_code == 200, target


def test_the_list_says_how_far_each_job_is(browser: TestClient, jobs: dict[str, str]) -> None:
    page = read(browser, "/jobs")
    rows = re.findall(r"<tr>\s*<th scope=\"row\">.*?</tr>", browser.get("/jobs").text, re.S)
    assert len(rows) == len(jobs)
    (done,) = [Page(row).text for row in rows if f'/jobs/{jobs["done"]}"' in row]
    # best and baseline of the proxy task, their difference, draws, and candidates with a fitness
    assert "46.5 41.0 +5.5 6 6 3" in done
    assert "interrupted round 1 of 3" in page.text
    (running,) = [Page(row).text for row in rows if f'/jobs/{jobs["running"]}"' in row]
    assert running.startswith("running-1 digits/atss running 45.0 40.0 +5.0 3 3 1 0 1")


def test_the_list_shows_one_state_and_nothing_chosen_is_all(browser: TestClient) -> None:
    assert "failed-1" in read(browser, "/jobs?state=failed").text
    assert "done-1" not in read(browser, "/jobs?state=failed").text
    assert "done-1" in read(browser, "/jobs?state=").text
    assert "No job is cancelled." in read(browser, "/jobs?state=cancelled").text
    read(browser, "/jobs?state=nonsense", 422)


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_of_any_kind_has_a_page(browser: TestClient, jobs: dict[str, str], kind: str) -> None:
    page = read(browser, f"/jobs/{jobs[kind]}")
    for plot in ("progress", "front", "funnel"):
        picture = browser.get(f"/jobs/{jobs[kind]}/plots/{plot}.svg")
        assert picture.headers["content-type"] == "image/svg+xml"
        assert b"<svg" in picture.content
        assert any(
            each["src"] == f"/jobs/{jobs[kind]}/plots/{plot}.svg" for each in page.all("img")
        )


def test_a_job_shows_what_it_found_and_what_was_asked_for(
    browser: TestClient, jobs: dict[str, str]
) -> None:
    page = read(browser, f"/jobs/{jobs['done']}")
    assert "gain on confirm +2.7 +1.2 to +4.1, candidate 1 best proxy AP 46.5" in page.text
    assert CLS in page.text
    assert "+2.7 (" in page.text  # of candidate 1 on confirm: +3, +2, +3, with an interval
    assert "confirmed" in page.text
    assert HOSTILE in page.text
    assert '"detector": "digits/atss"' in page.text
    ticks = [each["value"] for each in page.all("input") if each.get("name") == "candidate"]
    assert ticks[:1] == [f"{jobs['done']}:1"]  # the confirmed one comes first
    assert set(ticks) == {f"{jobs['done']}:{index}" for index in range(6)}
    policy = read(browser, f"/jobs/{jobs['policy']}").text
    assert "Rounds" in policy
    assert "33.0" in policy  # the mean AP of the two of the first round


def test_the_leaderboard_is_filtered_sorted_and_goes_on(
    browser: TestClient,
    store: Store,
    client: Callable[..., TestClient],
    new_job: Callable[..., str],
) -> None:
    job = new_job()
    for index in range(30):
        state = "failed" if index == 7 else "done"
        add(store, job, index, {"proxy": {0: 0.3 + index / 100}}, state=state, size=100 - index)
    own = client()

    def shown(query: str) -> list[int]:
        text = own.get(f"/jobs/{job}?{query}", headers=PAGE).text
        return [int(each) for each in re.findall(rf'value="{job}:(\d+)"', text)]

    assert shown("sort=fitness")[:3] == [29, 28, 27]
    assert shown("sort=size")[:2] == [29, 28]
    assert shown("state=failed&stage=&sort=standing") == [7]
    assert shown("confirmed=true") == []
    assert shown("pareto=true") == [29]
    first = own.get(f"/jobs/{job}?sort=newest", headers=PAGE)
    (more,) = [each["href"] for each in Page(first.text).all("a") if each.get("rel") == "next"]
    assert more is not None
    query = urlsplit(more).query
    assert parse_qs(query)["sort"] == ["newest"]
    assert shown("sort=newest") + shown(query) == list(range(29, -1, -1))
    assert own.get(f"/jobs/{job}?sort=size&cursor={parse_qs(query)['cursor'][0]}",
                   headers=PAGE).status_code == 422  # fmt: skip


def test_a_candidate_is_typeset_drawn_and_traced_back(
    browser: TestClient, jobs: dict[str, str]
) -> None:
    home = f"/jobs/{jobs['done']}/candidates"
    page = read(browser, f"{home}/1")
    assert len(page.all("math")) == 2
    assert CLS in page.text
    assert BOX in page.text
    assert [each for each in page.all("ul") if each.get("class") == "tree"]
    assert "logit" in page.text
    assert re.search(r"gain on confirm \+2\.7 \+1\.2 to \+4\.1 \(95%\)", page.text)
    assert re.search(r"gain on test \+5\.0", page.text)
    assert "better in" in page.text
    assert "3 of 3" in page.text
    child = read(browser, f"{home}/3")
    assert "Parents 1 random AP 46.5" in child.text
    assert "2 mutation AP 44.5 from 1" in child.text
    assert "…/data.json" in child.text
    targets = [each["href"] for each in child.all("a")]
    assert f"{home}/1" in targets
    for kind in ("curves", "surface"):
        assert b"<svg" in browser.get(f"{home}/1/plots/{kind}.svg").content
    exports = {each["href"] for each in page.all("a") if "export" in (each["href"] or "")}
    assert exports == {
        f"/api/v1{home}/1/export?format={kind}" for kind in ("config", "standalone", "json")
    }


def test_a_loss_that_cannot_be_read_hides_nothing_else(
    browser: TestClient, jobs: dict[str, str]
) -> None:
    page = read(browser, f"/jobs/{jobs['done']}/candidates/5")
    assert "was written by another version" in page.text
    assert '"type": "of the future"' in page.text
    assert "proxy AP 10.0" in page.text


def test_compared_are_paired_drawn_and_chosen_anew(
    browser: TestClient, jobs: dict[str, str]
) -> None:
    job = jobs["done"]
    page = read(browser, f"/compare?candidate={job}:1&candidate={job}:2")
    assert f"3 losses against {job}:0" in page.text  # its job's baseline comes by itself
    assert "+5.0 (" in page.text
    boxes = [each["value"] for each in page.all("input") if each.get("type") == "checkbox"]
    assert boxes == [f"{job}:0", f"{job}:1", f"{job}:2"]
    assert page.all("svg")
    other = read(
        browser, f"/compare?candidate={job}:1&candidate={job}:2&baseline={job}:1&candidate="
    )
    assert f"2 losses against {job}:1" in other.text
    for query, status, why in (
        (f"candidate={job}:77", 404, "there is no candidate"),
        (f"candidate={job}:99999999999", 404, "there is no candidate"),
        ("candidate=nonsense", 422, "is no candidate"),
        (f"candidate={job}:0&candidate={jobs['policy']}:0", 409, "cannot be compared"),
    ):
        assert why in read(browser, f"/compare?{query}", status).text


def test_differences_stand_on_one_scale() -> None:
    def row(name: str, difference: Paired | None) -> ComparedRow:
        return ComparedRow(name, difference is None, None, {}, difference)

    rows = (
        row("base", None),
        row("better", Paired(0.02, 0.01, 0.01, 0.03, 3, 0, 3)),
        row("one seed", Paired(-0.01, None, None, None, 0, 0, 1)),
    )
    found = forest(ComparedStage("confirm", rows))
    assert found is not None
    better, one = found.marks
    assert better.low is not None
    assert better.high is not None
    assert 0 < one.mean < found.zero < better.low < better.mean < better.high < 100
    assert better.mean - better.low == pytest.approx(better.high - better.mean, abs=0.02)
    assert {text: place for place, text in found.ticks}["0"] == pytest.approx(found.zero)
    assert forest(ComparedStage("confirm", rows[:1])) is None


def test_verifying_needs_no_script(browser: TestClient) -> None:
    page = read(browser, "/verify?space=box&expression=" + quote("Sub(1,Div(I,U))"))
    (word,) = {each["value"] for each in page.all("input") if each.get("name") == "csrf"}

    def ask(expression: str, space: str = "box", csrf: str | None = word) -> Page:
        fields = {"expression": expression, "space": space, "csrf": csrf or ""}
        answer = browser.post("/verify", data=fields)
        return Page(answer.text)

    good = ask("Sub(1,Div(I,U))")
    assert "It is a loss" in good.text
    assert good.all("math")
    assert "It is no loss" in ask("Div(I,U)").text
    wrong = ask("Sub(1,Nope(I,U))")
    assert "Nope" in wrong.text
    (area,) = wrong.all("textarea")
    assert area["aria-invalid"] == "true"
    assert "expression-error" in (area["aria-describedby"] or "").split()
    evil = ask(HOSTILE)
    assert evil.all("img") == []
    assert HOSTILE in evil.text
    assert "write an expression" in ask(" ").text
    assert "another site" in ask("Sub(1,Div(I,U))", csrf="guessed").text


def test_forms_that_change_something_carry_the_word(
    browser: TestClient, jobs: dict[str, str]
) -> None:
    for path in every_page(jobs):
        text = browser.get(path).text
        for form in re.findall(r"<form[^>]*method=\"post\".*?</form>", text, re.S):
            assert re.search(r'name="csrf" value="[0-9a-f]{64}"', form), (path, form[:200])


def test_who_may_only_read_is_offered_nothing_else(
    filled: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    file, jobs = filled
    own = shutil.copy(file, tmp_path / "store.db")
    with Store.open(str(own)) as store:
        app = make_app(store, ServiceSettings(), tokens_wanted=True)
        headers = {**PAGE, "Authorization": f"Bearer {store.create_token('eve', 'read')}"}
        reader = TestClient(app, base_url="http://127.0.0.1", headers=headers)
        for path in ("/jobs", f"/jobs/{jobs['running']}"):
            page = Page(reader.get(path).text)
            assert "/submit" not in [each["href"] for each in page.all("a")]
            assert not [each for each in page.all("form") if each.get("method") == "post"]
        assert reader.get("/submit").status_code == 403


def test_errors_are_pages_for_people(browser: TestClient) -> None:
    for path in ("/jobs/none", "/jobs/none/candidates/0", "/nothing", "/jobs/done-1/candidates/99"):
        page = read(browser, path, 404)
        assert "Not Found" in page.text
    assert "Unprocessable" in read(browser, "/jobs/done-1?sort=nonsense", 422).text


def test_plotly_comes_from_its_package_packed_and_is_kept(browser: TestClient) -> None:
    answer = browser.get("/static/plotly.min.js", headers={"accept-encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert b"plotly.js" in answer.content[:200]
    plain = browser.get("/static/plotly.min.js", headers={"accept-encoding": "identity"})
    assert plain.content == answer.content
    kept = {"if-none-match": answer.headers["etag"]}
    assert browser.get("/static/plotly.min.js", headers=kept).status_code == 304
