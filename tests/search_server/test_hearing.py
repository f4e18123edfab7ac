"""What a running job holds in memory: little, and enough for the decisions that it would have come
to with all of it."""

from collections import Counter
from math import fsum
from pathlib import Path
from statistics import fmean
from typing import Any

import fake_search as fake
import numpy as np
import pytest

from search_server import controller
from search_server.controller import run_job
from search_server.funnel.outcomes import Heard, Outcome, TrialKey
from search_server.funnel.past import PastMeans
from search_server.funnel.rungs import Halving, Standing, stop_reason
from search_server.hearing import Hearing
from search_server.jobs import open_job
from search_server.ledger import Ledger
from search_server.step_budget import StepBudget
from search_server.store import Store


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


def test_a_search_holds_the_trials_of_its_window_alone(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledgers: list[Ledger] = []
    most = 0

    class Watched(Ledger):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            ledgers.append(self)

        def decide(self) -> None:
            nonlocal most
            super().decide()
            most = max(most, len(self.hearing.outcomes), len(self.hearing.rungs))

    monkeypatch.setattr(controller, "Ledger", Watched)
    funnel = {**fake.HALVING["funnel"], "verify": {"method": "none"}, "confirm": None}
    job = fake.new_job(url, funnel=funnel, candidates=35)
    with Store.open(url) as store:
        assert run_job(store, job, fake.ShuffledExecutor(4)) == "done"
        trials = store.trials(job)
        opened = Ledger(store, open_job(store, job)).hearing
    assert len(trials) > 65
    # the baseline's two, and at most three a candidate of the window and of the cohorts in it
    assert most <= 2 + 3 * (6 + 2 * 5)
    took: dict[str, list[float]] = {}
    for trial in trials:
        took.setdefault(trial.stage, []).append(trial.seconds["total"])
    for hearing in (ledgers[0].hearing, opened):
        assert hearing.ended == Counter(trial.stage for trial in trials)
        assert hearing.mean_seconds() == pytest.approx(
            {stage: fmean(each) for stage, each in took.items()}
        )
        assert hearing.budget.limit is None
    _same(ledgers[0].hearing, opened, 35)


def _same(one: Hearing, other: Hearing, last: int) -> None:
    """A job that is opened anew knows what the one that made it knew."""
    assert one.outcomes == other.outcomes
    assert one.rungs == other.rungs
    assert [one.means(i) for i in range(last + 1)] == [other.means(i) for i in range(last + 1)]


RUNGS, SEEDS, WINDOW = (10, 20, 40), (0, 1), 4
Rungs = dict[TrialKey, dict[int, float]]
Outcomes = dict[TrialKey, Outcome]


def _mean(rungs: Rungs, outcomes: Outcomes, index: int, rung: int) -> float | None:
    keys = [TrialKey(index, "proxy", seed) for seed in SEEDS]
    values = [rungs.get(key, {}).get(rung) for key in keys]
    sound = [
        value is not None or (key in outcomes and outcomes[key].state == "diverged")
        for key, value in zip(keys, values, strict=True)
    ]
    if all(value is None for value in values) or not all(sound):
        return None
    return fmean(value or 0.0 for value in values)


def _standing(
    index: int, rungs: Rungs, outcomes: Outcomes, open_ones: set[int], halving: Halving
) -> Standing:
    """The rule over all rows, without anything remembered."""

    def arrived(other: int, rung: int) -> bool:
        keys = [TrialKey(other, "proxy", seed) for seed in SEEDS]
        return all(rung in rungs.get(key, {}) or key in outcomes for key in keys)

    before = range(1, index - WINDOW + 1)
    for cleared, rung in enumerate(RUNGS):
        if not arrived(index, rung):
            return Standing(cleared)
        ap = _mean(rungs, outcomes, index, rung)
        if ap is None:
            break
        if not all(arrived(other, rung) for other in (0, *before) if other in {0} | open_ones):
            return Standing(cleared)
        means = [_mean(rungs, outcomes, other, rung) for other in before]
        earlier = sorted(mean for mean in means if mean is not None)
        base = _mean(rungs, outcomes, 0, rung)
        stop = stop_reason(rung, ap, base, earlier, halving.reduction, halving.hopeless)
        if stop:
            return Standing(cleared, stop)
    return Standing(len(RUNGS))


@pytest.mark.parametrize("seed", range(4))
def test_halving_decides_by_what_is_left_as_by_all_rows(seed: int) -> None:
    """Trials move on in any order; whoever is resolved is only left as one number a rung."""
    rng = np.random.default_rng(seed)
    halving = Halving(RUNGS, reduction=3, hopeless=0.2, window=WINDOW, seeds=SEEDS)
    rungs: Rungs = {}
    outcomes: Outcomes = {}
    left = Heard({}, {}, set(), PastMeans())
    open_ones = set(range(40))
    left.open.update(open_ones)  # type: ignore[attr-defined]
    stops = 0
    for _ in range(1500):
        index = min(open_ones) + int(rng.integers(0, 9))
        key = TrialKey(index, "proxy", int(rng.choice(SEEDS)))
        if index not in open_ones or key in outcomes:
            continue
        passed = rungs.setdefault(key, {})
        lost = index > 0 and rng.random() < 0.08
        if lost or len(passed) == len(RUNGS):
            state = str(rng.choice(("diverged", "failed"))) if lost else "done"
            outcomes[key] = left.outcomes[key] = Outcome(state, 0.5)  # type: ignore[index]
        else:
            ap = 0.5 if index == 0 else float(rng.choice((0.05, 0.3, 0.4, 0.5, 0.6)))
            passed[RUNGS[len(passed)]] = ap
        left.rungs[key] = dict(passed)  # type: ignore[index]
        for other in sorted(open_ones)[:14]:
            wanted = _standing(other, rungs, outcomes, open_ones, halving)
            if other == 0:
                wanted = Standing(len(RUNGS))
            assert halving.standing(other, left) == wanted, (other, rungs)
            own = [TrialKey(other, "proxy", each) for each in SEEDS]
            if wanted.stop or all(each in outcomes for each in own):
                stops += bool(wanted.stop)
                left.past.note(other, halving.means(other, left))
                open_ones.remove(other)
                left.open.remove(other)  # type: ignore[attr-defined]
                for each in own if other else ():
                    left.outcomes.pop(each, None)  # type: ignore[attr-defined]
                    left.rungs.pop(each, None)  # type: ignore[attr-defined]
        if not open_ones:
            break
    assert len(open_ones) < 25
    assert stops > 2


def test_a_budget_counts_what_a_sum_of_all_trials_counts() -> None:
    rng = np.random.default_rng(1)
    proxy = {"steps": 50, "batch_size": 7, "rungs": [10, 20]}
    funnel = {"simulate": {"steps": 10, "batch_size": 3, "keep": 3}, "proxy": proxy}
    budget = StepBudget(fake.spec(funnel=funnel, limits={"steps": 9000}))
    taken: dict[TrialKey, float] = {}
    for index in range(30):
        keys = [TrialKey(index, "proxy", seed) for seed in (0, 1)]
        for key in keys:
            budget.note(key, "paused", {10: 0.1}, {})
            taken[key] = 10.0
        if index % 3:
            budget.note(keys[0], "done", {10: 0.1, 20: 0.2}, {})
            taken[keys[0]] = 50.0
        simulated = TrialKey(index, "simulate", 0)
        budget.note(simulated, "done", {}, {})
        taken[simulated] = 10 * (3 / 7)
        assert budget.spent == fsum(taken.values())
        if rng.random() < 0.5:
            last = int(rng.integers(0, index + 1))
            assert budget.upto(last) == fsum(
                steps for key, steps in taken.items() if key.candidate <= last
            )
    assert budget.upto(0) == 20 + 10 * (3 / 7)
