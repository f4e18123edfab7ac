"""A policy search as a job: with the real controller and store, and trials that are a formula."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_search as fake
import pytest

from losses.ranking.functions import PapFunctions
from search_server.controller import run_job
from search_server.executors import InlineExecutor
from search_server.funnel.stages import TrialKey
from search_server.planning import plan
from search_server.progress import Progress
from search_server.store import Store
from workers import TrialResult, TrialSpec


@pytest.fixture
def url(tmp_path: Path, own_home: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


def formula(value: Callable[[dict[str, Any]], float], noise: float) -> Any:
    """Trials whose AP is a formula of the loss, plus a noise that is a hash of it."""

    def trial(spec: TrialSpec) -> TrialResult:
        cls = json.loads(json.dumps(spec.definition["cls"]))
        bits = hashlib.sha256(json.dumps([cls, spec.seed], sort_keys=True).encode()).digest()
        chance = sum(bits[:12]) / 12 / 255 * 2 - 1  # mean 0, standard deviation 1/6
        fitness = min(max(value(cls) + 6 * noise * chance, 0.0), 1.0)
        return TrialResult("done", "", fitness, spec.seed, spec.steps)

    return trial


def scale_of(cls: dict[str, Any]) -> float:
    """The parameter that the gradient scale came from, in [0, 1]."""
    return (math.log10(cls["box_gradient_scale"]) + 1) / 2


def bend(cls: dict[str, Any]) -> float:
    """How far the functions are from squares, root mean square over their points."""
    points = [point for function in cls["functions"].values() for point in function]
    return math.sqrt(sum((y - x * x) ** 2 for x, y in points) / len(points))


def searched(url: str, trial: Any, branch: dict[str, Any], **searcher: Any) -> list[Any]:
    """The candidates of a whole search."""
    job = fake.new_job(
        url,
        **{
            **fake.POLICY,
            "branches": {"cls": {"space": "pap", **branch}},
            "searcher": {"type": "policy", **searcher},
            "funnel": {"simulate": None, "proxy": {"steps": 5, "seeds": [0]}},
        },
    )
    with Store.open(url) as store, InlineExecutor(2, trial) as executor:
        assert run_job(store, job, executor) == "done"
        return store.candidates(job)


@pytest.mark.slow
def test_one_parameter_converges_to_the_best_value(url: str) -> None:
    trial = formula(lambda cls: 0.5 - (scale_of(cls) - 0.8) ** 2, noise=0.005)
    made = searched(url, trial, {"functions": []}, rounds=20, samples=8, learning_rate=0.05)
    assert [each.origin for each in made] == ["baseline", *["policy"] * 160, "mean"]
    assert scale_of(made[-1].definition["cls"]) == pytest.approx(0.8, abs=0.05)
    identity = PapFunctions.identity().to_json()
    assert all(each.definition["cls"]["functions"] == identity for each in made)
    spread = [abs(scale_of(each.definition["cls"]) - 0.8) for each in made[1:-1]]
    assert sum(spread[-8:]) < sum(spread[:8]) / 4


@pytest.mark.slow
def test_forty_parameters_improve(url: str) -> None:
    trial = formula(lambda cls: 0.6 - bend(cls), noise=0.005)
    made = searched(url, trial, {"gradient_scale": False}, rounds=14, samples=8, clip=0.05)
    start, end = (bend(each.definition["cls"]) for each in (made[0], made[-1]))
    assert end < start - 0.02, (start, end)
    assert all(each.definition["cls"]["box_gradient_scale"] == 1 for each in made)


def test_without_a_difference_the_mean_is_the_start_and_the_job_says_so(url: str) -> None:
    job = fake.new_job(url, **{**fake.POLICY})
    trial = formula(lambda cls: 0.3, noise=0.0)
    with Store.open(url) as store, InlineExecutor(2, trial) as executor:
        assert run_job(store, job, executor) == "done"
        assert len(store.candidates(job)) == 13
        assert "candidate 13 is to be, is in the job already" in store.job(job).reason


class Rounds:
    """An executor that gives results back last first, and notes what was under way together."""

    def __init__(self) -> None:
        self.held: dict[TrialKey, TrialSpec] = {}
        self.together: list[set[int]] = []

    def submit(self, key: TrialKey, spec: TrialSpec) -> None:
        self.held[key] = spec
        self.together.append({key.candidate for key in self.held})

    def wait(self, timeout: float) -> list[tuple[TrialKey, TrialResult]]:
        if timeout == 0 or not self.held:
            return []
        key = max(self.held)
        return [(key, fake.fake_trial(self.held.pop(key)))]

    def slots(self) -> int:
        return 100

    def lacks(self) -> str:
        return ""

    def cancel_all(self) -> None:
        self.held.clear()

    def close(self) -> None:
        self.cancel_all()


def test_a_round_runs_side_by_side_and_waits_for_the_one_before(url: str) -> None:
    job = fake.new_job(url, **fake.POLICY)
    executor, shown = Rounds(), []
    with Store.open(url) as store:
        assert run_job(store, job, executor, lambda progress: shown.append(progress)) == "done"
    groups = {frozenset(group) for group in executor.together}
    for expected in ({0, 1, 2, 3}, {4, 5, 6}, {7, 8, 9}, {10, 11, 12}, {13}):
        assert any(expected <= group for group in groups), expected
    for group in groups - {frozenset()}:
        rounds = {(index - 1) // 3 for index in group if index > 0}
        assert len(rounds) <= 1, group
    check_progress(shown)


def check_progress(shown: list[Progress]) -> None:
    said = list(dict.fromkeys(each.round for each in shown))
    assert said == [
        "",
        "round 1 of 4",
        "round 2 of 4",
        "round 3 of 4",
        "round 4 of 4",
        "final mean",
    ]
    assert {each.of for each in shown} == {13}


def test_slots_change_nothing(tmp_path: Path, own_home: Path) -> None:
    found = []
    for slots in (1, 5):
        url = f"sqlite:///{tmp_path / str(slots)}.db"
        assert fake.run(url, fake.new_job(url, **fake.POLICY), slots=slots) == "done"
        found.append(fake.rows(url))
    assert found[0] == found[1]
    counts = Counter(row["origin"] for row in found[0]["candidates"])
    assert counts == {"baseline": 1, "policy": 12, "mean": 1}
    assert {row["outcome"] for row in found[0]["funnel_counts"]} == {"accepted"}


def test_a_plan_counts_rounds_as_barriers() -> None:
    spec = fake.spec(**fake.POLICY)  # 4 rounds of 3 samples, 2 seeds, 5 steps
    one, five, many = (plan(spec, 3599 / 5, slots) for slots in (1, 5, 1000))
    assert (one.trials, one.rounds, one.samples) == (28, 4, 3)
    assert one.hours == pytest.approx(28)
    assert five.hours == pytest.approx(2 + 3 * 2 + 1)  # of 8, 6, 6, 6 and 2 trials
    assert many.hours == pytest.approx(5)
