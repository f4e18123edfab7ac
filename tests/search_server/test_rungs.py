"""Successive halving: who is stopped at a rung, and that neither timing nor a kill changes it."""

import shutil
import threading
from pathlib import Path
from statistics import fmean
from typing import Any

import fake_search as fake
import pytest

from search_server import jobs as jobs_module
from search_server.checkpoints import Checkpoints
from search_server.controller import run_job
from search_server.errors import SpecError
from search_server.executors import InlineExecutor
from search_server.funnel.outcomes import Heard, Outcome, TrialKey
from search_server.funnel.rungs import Halving, stop_reason
from search_server.jobs import open_job
from search_server.progress import Progress
from search_server.searchers import EvolutionSearcher, Observation
from search_server.step_budget import StepBudget
from search_server.store import Store
from workers import TrialResult, TrialSpec


@pytest.mark.parametrize(
    ("ap", "baseline", "earlier", "stopped"),
    [
        (0.10, 0.20, [], False),  # just what is asked of the hopeless
        (0.0999, 0.20, [], True),
        (0.0, 0.0, [], False),
        (0.0, None, [], False),
        (0.2, 0.2, [0.9, 0.8], False),  # too few came here before
        (0.2, 0.2, [0.9, 0.1, 0.1], True),  # the mark is the best of three
        (0.9, 0.2, [0.9, 0.1, 0.1], False),
        (0.3, 0.2, [0.9, 0.3, 0.1, 0.1, 0.1, 0.1], False),  # the second best of six
        (0.29, 0.2, [0.9, 0.3, 0.1, 0.1, 0.1, 0.1], True),
    ],
)
def test_who_goes_on(
    ap: float, baseline: float | None, earlier: list[float], stopped: bool
) -> None:
    reason = stop_reason(40, ap, baseline, earlier, reduction=3, hopeless=0.5)
    assert bool(reason) == stopped
    if stopped:
        assert f"AP {100 * ap:.1f} after 40 steps" in reason


def _heard(rungs: dict[tuple[int, int], dict[int, float]], ended: dict[Any, str]) -> Heard:
    return Heard(
        {TrialKey(i, "proxy", s): Outcome(state) for (i, s), state in ended.items()},
        {TrialKey(i, "proxy", s): dict(found) for (i, s), found in rungs.items()},
        {1, 2, 3},
    )


def test_a_decision_waits_for_all_seeds_and_for_the_baseline() -> None:
    halving = Halving((10, 20), reduction=3, hopeless=0.5, window=1, seeds=(0, 1))
    own = {(1, 0): {10: 0.1}, (1, 1): {10: 0.3}}
    assert halving.standing(1, _heard(own, {})).cleared == 0
    base = {(0, 0): {10: 0.3, 20: 0.4}}
    assert halving.standing(1, _heard(own | base, {})).cleared == 0
    whole = base | {(0, 1): {10: 0.5, 20: 0.5}}
    assert halving.standing(1, _heard(own | whole, {})).cleared == 1  # mean 0.2 of 0.4
    assert halving.standing(1, _heard({(1, 0): {10: 0.1}} | whole, {})).cleared == 0
    low = {(1, 0): {10: 0.1}, (1, 1): {10: 0.29}}
    assert "19.5 after 10 steps" in halving.standing(1, _heard(low | whole, {})).stop


def test_a_diverged_seed_counts_as_nothing_and_a_lost_one_stops_nobody() -> None:
    halving = Halving((10,), reduction=3, hopeless=0.5, window=1, seeds=(0, 1))
    base = {(0, 0): {10: 0.4}, (0, 1): {10: 0.4}}
    one = {(1, 0): {10: 0.3}}
    assert halving.standing(1, _heard(base | one, {(1, 1): "diverged"})).stop
    lost = halving.standing(1, _heard(base | one, {(1, 1): "failed"}))
    assert (lost.cleared, lost.stop) == (1, "")


def test_nobody_pauses_where_the_decision_is_known() -> None:
    lenient = Halving((10, 20), reduction=3, hopeless=0.0, window=1, seeds=(0,))
    assert lenient.pause(0, 0) is None
    assert lenient.pause(3, 0) is None  # too few before it to be measured by, whatever they reach
    assert lenient.pause(4, 0) == 10
    strict = Halving((10, 20), reduction=3, hopeless=0.5, window=1, seeds=(0,))
    assert strict.pause(0, 0) is None
    assert strict.pause(1, 0) == 10
    assert strict.pause(1, 1) == 20
    assert strict.pause(1, 2) is None


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


_REFERENCE: dict[str, Any] = {}


@pytest.fixture
def reference(own_home: Path, tmp_path: Path) -> dict[str, Any]:
    """All rows of an undisturbed search with rungs, made once."""
    if not _REFERENCE:
        url = f"sqlite:///{tmp_path / 'reference.db'}"
        job = fake.new_job(url, **fake.HALVING)
        assert fake.run(url, job, slots=1) == "done"
        _REFERENCE.update(fake.rows(url))
    return _REFERENCE


def _means(trials: list[dict[str, Any]], candidate: int, rung: int) -> float | None:
    """Mean AP at a rung over the seeds, the rule spelt out anew."""
    values = []
    for row in trials:
        if row["candidate"] == candidate and row["stage"] == "proxy":
            found = (row["rungs"] or {}).get(str(rung))
            if found is None and row["state"] != "diverged":
                return None
            values.append(found)
    if all(value is None for value in values):
        return None
    return fmean(value or 0.0 for value in values)


def test_the_rows_follow_the_rule(reference: dict[str, Any]) -> None:
    trials, stopped = reference["trials"], 0
    for row in reference["candidates"]:
        index = row["index"]
        if not 0 < index <= 17 or row["stage"] != "proxy":
            continue
        wanted = False
        for rung in (10, 20):
            ap = _means(trials, index, rung)
            if wanted or ap is None:
                break
            seen = [_means(trials, other, rung) for other in range(1, index - 6 + 1)]
            earlier = sorted((ap for ap in seen if ap is not None), reverse=True)
            base = _means(trials, 0, rung)
            assert base is not None
            wanted = ap < 0.3 * base
            if len(earlier) >= 3:
                wanted = wanted or ap < earlier[len(earlier) // 3 - 1]
        own = [t for t in trials if t["candidate"] == index and t["stage"] == "proxy"]
        assert (row["state"] == "dropped") == wanted, index
        if wanted:
            stopped += 1
            assert row["fitness"] is None
            assert {t["state"] for t in own} <= {"paused", "diverged"}
            assert "was needed" in row["reason"]
        else:
            assert "paused" not in {t["state"] for t in own}
    assert stopped >= 2
    base = [t for t in trials if t["candidate"] == 0 and t["stage"] == "proxy"]
    assert all(t["state"] == "done" and set(t["rungs"]) == {"10", "20"} for t in base)


@pytest.mark.parametrize("seed", range(3))
def test_timing_and_slots_change_nothing(seed: int, url: str, reference: dict[str, Any]) -> None:
    job = fake.new_job(url, **fake.HALVING)
    with Store.open(url) as store:
        assert run_job(store, job, fake.ShuffledExecutor(seed), trace=1) == "done"
    assert fake.rows(url) == reference


def _losing(trial: TrialSpec) -> TrialResult:
    """As the fake trials, but of the last parts of the training every second is lost whole."""
    if trial.rungs and trial.pause_after is None and int(fake.number(trial) * 1e5) % 2:
        return TrialResult("timeout", "made to be", None, trial.seed, trial.steps)
    result: TrialResult = fake.fake_trial(trial)
    return result


def test_a_lost_trial_keeps_what_it_showed_at_its_rungs(url: str) -> None:
    """Or else who is measured by it would depend on whether it was lost before or after."""
    proxy = {"steps": 50, "rungs": [10, 20], "reduction": 2, "hopeless": 0.3}
    funnel = {"simulate": None, "verify": {"max_draws": 400}, "proxy": proxy}
    job = fake.new_job(url, funnel=funnel, window=3, candidates=14)
    with Store.open(url) as store:
        run_job(store, job, fake.ShuffledExecutor(0, _losing))
        lost = [t for t in store.trials(job) if t.candidate and t.reason == "made to be"]
    assert lost
    assert all(set(trial.rungs) == {10, 20} for trial in lost)


def test_stopped_anywhere_it_goes_on_without_its_checkpoints(
    url: str, own_home: Path, reference: dict[str, Any]
) -> None:
    job = fake.new_job(url, **fake.HALVING)
    paused = 0
    for done in (3, 9, 16, 21, 30, 44):
        stop = threading.Event()

        def look(progress: Progress, stop: threading.Event = stop, done: int = done) -> None:
            if progress.done >= done:
                stop.set()

        assert fake.run(url, job, stop=stop, observer=look) == "interrupted"
        with Store.open(url) as store:
            open_ones = {c.index for c in store.candidates(job) if c.state == "open"}
            paused += sum(
                t.state == "paused" and t.candidate in open_ones for t in store.trials(job)
            )
        shutil.rmtree(own_home / "checkpoints", ignore_errors=True)
    assert paused
    assert fake.run(url, job) == "done"
    assert fake.rows(url) == reference


def test_only_what_may_go_on_keeps_a_checkpoint(url: str, own_home: Path) -> None:
    job_id = fake.new_job(url, **fake.HALVING)
    most = 0
    with Store.open(url) as store:
        job = open_job(store, job_id)
        folder = Checkpoints(job_id, store.url).folder
        assert folder.parent == own_home / "checkpoints"

        def look(progress: Progress) -> None:
            nonlocal most
            found = {file.stem for file in folder.glob("*.pth")} if folder.is_dir() else set()
            most = max(most, len(found))
            may = {
                job.trial(TrialKey(c.index, "proxy", seed), c.definition).key
                for c in store.candidates(job_id)
                if c.state == "open"
                for seed in (0, 7)
            }
            assert found <= may

        executor = fake.ShuffledExecutor(1)
        assert run_job(store, job_id, executor, look) == "done"
    assert most > 0
    assert not folder.exists()


def test_a_trial_that_waits_holds_no_slot(url: str) -> None:
    class Counting(fake.ShuffledExecutor):
        def submit(self, key: TrialKey, spec: TrialSpec) -> None:
            super().submit(key, spec)
            assert len(self.held) <= 2

        def slots(self) -> int:
            return 1

    job = fake.new_job(url, **fake.HALVING)
    with Store.open(url) as store:
        assert run_job(store, job, Counting(5), trace=1) == "done"


def test_the_searcher_sees_the_rungs(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[int, Observation] = {}

    class Spy(EvolutionSearcher):
        def tell(self, observation: Observation) -> None:
            seen[observation.index] = observation
            super().tell(observation)

    monkeypatch.setattr(jobs_module, "make_searcher", Spy)
    job = fake.new_job(url, **{**fake.HALVING, "candidates": 24})
    assert fake.run(url, job) == "done"
    with Store.open(url) as store:
        records = {c.index: c for c in store.candidates(job)}
        trials = fake.rows(url)["trials"]
    stopped = [i for i in seen if i and records[i].stage == "proxy" and not seen[i].fitness]
    assert any(records[i].state == "dropped" for i in stopped)
    for index, observation in seen.items():
        for rung, ap in observation.rungs.items():
            assert ap == pytest.approx(_means(trials, index, rung), abs=1e-15)
        if records[index].state == "dropped" and records[index].stage == "proxy":
            assert observation.fitness is None
            assert observation.rungs


def _budgeted(url: str, steps: int, **more: Any) -> tuple[str, float, int]:
    """State, steps spent counted from the rows, and candidates made."""
    job = fake.new_job(
        url, **{**fake.HALVING, "candidates": 200, "limits": {"steps": steps}, **more}
    )
    state = fake.run(url, job)
    spent = 0.0
    with Store.open(url) as store:
        for trial in store.trials(job):
            if trial.stage == "simulate":
                spent += (3 if trial.state in ("done", "timeout") else 2) * 4 / 8
            elif trial.stage == "proxy" and trial.state in ("done", "timeout"):
                spent += 50
            elif trial.stage == "proxy":
                last = max(trial.rungs, default=0)
                spent += last if trial.state == "paused" else max(last, 2)
        return state, spent, len(store.candidates(job)) - 1


def test_a_budget_of_steps_is_kept(url: str, tmp_path: Path) -> None:
    state, spent, made = _budgeted(url, 1200)
    assert state == "done"
    assert made < 200
    assert 900 <= spent <= 1300
    more = _budgeted(f"sqlite:///{tmp_path / 'more.db'}", 2000)
    assert more[2] > made


def test_timing_does_not_change_what_a_budget_buys(url: str, tmp_path: Path) -> None:
    changes = {**fake.HALVING, "candidates": 200, "limits": {"steps": 900}}
    other = f"sqlite:///{tmp_path / 'other.db'}"
    job = fake.new_job(url, **changes)
    assert fake.run(url, job, slots=1) == "done"
    job = fake.new_job(other, **changes)
    stop = threading.Event()

    def look(progress: Progress) -> None:
        if progress.done >= 12:
            stop.set()
        assert progress.steps_of == 900
        # what is left is reckoned by the budget, not by the 200 candidates, which take 457 trials
        assert progress.done < 6 or progress.trials < 250

    assert fake.run(other, job, stop=stop, observer=look) == "interrupted"
    with Store.open(other) as store:
        assert run_job(store, job, fake.ShuffledExecutor(2), trace=1) == "done"
    assert fake.rows(other) == fake.rows(url)


def test_what_was_spent_does_not_depend_on_the_order_in_which_trials_ended() -> None:
    proxy = {"steps": 50, "batch_size": 3}
    funnel = {"simulate": {"steps": 10, "batch_size": 1, "keep": 3}, "proxy": proxy}
    spec = fake.spec(funnel=funnel, limits={"steps": 900})
    one, other = StepBudget(spec), StepBudget(spec)
    trials = [TrialKey(index, "simulate", 0) for index in range(1, 12)]
    trials += [TrialKey(index, "proxy", 0) for index in range(5)]
    for key in trials:
        one.note(key, "done", {}, {})
    for key in reversed(trials):
        other.note(key, "done", {}, {})
    assert [one.share(last) for last in range(12)] == [other.share(last) for last in range(12)]
    assert one.spent == other.spent


def test_a_budget_too_small_for_anything_says_so(url: str) -> None:
    job = fake.new_job(url, **{**fake.HALVING, "limits": {"steps": 110}})
    assert fake.run(url, job) == "failed"
    with Store.open(url) as store:
        assert "the budget of 110 training steps has no room" in store.job(job).reason
        assert [c.origin for c in store.candidates(job)] == ["baseline"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"funnel": {"proxy": {"steps": 50, "rungs": [20, 10]}}}, "funnel.proxy"),
        ({"funnel": {"proxy": {"steps": 50, "rungs": [10, 50]}}}, "funnel.proxy"),
        ({"funnel": {"proxy": {"steps": 50, "rungs": [10, 10]}}}, "funnel.proxy"),
        ({"funnel": {"proxy": {"reduction": 1}}}, "funnel.proxy.reduction"),
        ({"limits": {"steps": 0}}, "limits.steps"),
        (
            {
                **fake.POLICY,
                "funnel": {"simulate": None, "proxy": {"steps": 5, "rungs": [2]}},
            },
            "funnel.proxy.rungs",
        ),
        ({**fake.POLICY, "limits": {"steps": 100}}, "limits.steps"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        fake.spec(**changes)
    assert caught.value.field == field


def test_without_verification_everything_is_trained(url: str) -> None:
    """Vanilla evolution: nothing is rejected but what the job has already."""

    def trial(spec: TrialSpec) -> TrialResult:
        return fake.fake_trial(spec)

    funnel = {"verify": {"method": "none"}, "simulate": None, "proxy": {"steps": 5}}
    job = fake.new_job(url, funnel=funnel, candidates=12, window=2, searcher={"population": 4})
    with Store.open(url) as store, InlineExecutor(2, trial) as executor:
        assert run_job(store, job, executor) == "done"
        counts = store.counts(job)
        assert {outcome for _, outcome in counts} <= {"accepted", "known", "same loss"}
        assert len(store.candidates(job)) == 13
