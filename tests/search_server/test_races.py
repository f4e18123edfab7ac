"""Jobs side by side: best AP over training steps, in the report and in words."""

import json
from pathlib import Path
from typing import Any

import fake_search as fake
import pytest

from search_server.cli import run as command
from search_server.controller import run_job
from search_server.errors import JobError
from search_server.executors import InlineExecutor
from search_server.report import report
from search_server.report.races import race, races
from search_server.store import Store
from workers import TrialResult, TrialSpec

FUNNEL: dict[str, Any] = {
    "verify": {"method": "none"},
    "simulate": None,
    "proxy": {"steps": 100, "seeds": [0], "rungs": [20], "hopeless": 0.5},
}
QUICK: dict[str, Any] = {"funnel": FUNNEL, "searcher": {"population": 4}, "window": 1}
WORTH = {"default": 0.4, "candidate-1": 0.2, "candidate-2": 0.1, "candidate-3": 0.3}


def trial(spec: TrialSpec) -> TrialResult:
    """AP by the loss's name, half of it at the rung; a fifth candidate has 0.5."""
    ap = WORTH.get(spec.definition["name"], 0.5)
    if spec.pause_after is not None:
        assert spec.checkpoint_file is not None
        spec.checkpoint_file.parent.mkdir(parents=True, exist_ok=True)
        spec.checkpoint_file.write_text("made up")
        return TrialResult("paused", "", None, spec.seed, spec.steps, rungs={20: ap / 2})
    return TrialResult("done", "", ap, spec.seed, spec.steps, rungs={20: ap / 2})


def run(url: str, **changes: Any) -> str:
    job: str = fake.new_job(url, **{**QUICK, **changes})
    with Store.open(url) as store, InlineExecutor(1, trial) as executor:
        assert run_job(store, job, executor) == "done"
    return job


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


def test_a_candidate_is_there_after_the_steps_of_those_before_it(url: str) -> None:
    """Baseline 100, candidate 1 another 100; 2 is hopeless and stopped at the rung, 3 is not."""
    job = run(url, candidates=4)
    with Store.open(url) as store:
        found = race(store, job)
    assert found.points == ((200.0, 0.2), (320.0, 0.3), (420.0, 0.5))
    assert found.steps == 420.0
    assert (found.best, found.steps_to(0.25), found.steps_to(0.6)) == (0.5, 320.0, None)


def test_a_loss_that_was_given_is_no_find(url: str) -> None:
    """What it was given has 0.5; of its own candidates one is stopped, the other has 0.3."""
    searcher = {"population": 4, "named": ["cse-autoloss-b"]}
    job = run(url, candidates=3, searcher=searcher)
    with Store.open(url) as store:
        found = race(store, job)
    assert found.given == 0.5
    assert [ap for _, ap in found.points] == [0.3]


def test_a_report_draws_jobs_of_one_task_and_says_who_was_sooner(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short, long = run(url, candidates=3), run(url, candidates=6)
    plain, both = tmp_path / "plain.png", tmp_path / "both.png"
    with Store.open(url) as store:
        report(store, long, plain)
    given = ["report", long, "--against", short, "-o", str(both), "--store", url]
    assert command(given) == 0
    said = capsys.readouterr().out
    assert f"{short}: best own AP 30.0 after 320 steps; {long} was there after 320, 1.00" in said
    assert _height(both) > _height(plain)
    assert command([*given, "--json"]) == 0
    own, other = json.loads(capsys.readouterr().out)["races"]
    assert (own["job"], own["points"][-1][1]) == (long, 0.5)
    assert (other["job"], other["points"][-1][1]) == (short, 0.3)
    assert command(["report", short, "--against", long, "-o", str(both), "--store", url]) == 0
    assert f"not reached by {short}" in capsys.readouterr().out


def _height(picture: Path) -> int:
    return int.from_bytes(picture.read_bytes()[20:24], "big")


def test_a_cohort_is_simulated_before_one_of_it_is_trained(url: str) -> None:
    """Five steps of half a batch for each of the four candidates, then those that go on."""
    simulate = {"steps": 50, "batch_size": 4, "keep": 2}
    job = run(url, candidates=4, window=4, funnel={**FUNNEL, "simulate": simulate})
    with Store.open(url) as store:
        found = race(store, job)
        budget = [t.candidate for t in store.trials(job) if t.stage == "simulate"]
    assert budget == [1, 2, 3, 4]
    assert found.points[0][0] == 100 + 4 * 25 + 100


def test_jobs_of_other_tasks_are_refused(url: str) -> None:
    job = run(url, candidates=2)
    other = run(url, candidates=2, funnel={**FUNNEL, "proxy": {"steps": 50, "seeds": [0, 7]}})
    with Store.open(url) as store, pytest.raises(JobError) as error:
        races(store, job, [other])
    assert str(error.value) == (
        f"job {other} cannot be drawn beside {job}: their trials differ in steps"
    )
