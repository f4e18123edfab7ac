"""The search loop: cohorts, window, counting, statuses; and that timing changes nothing."""

import importlib.util
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from losses import CATALOG, LossDefinition
from search_server import jobs as jobs_module
from search_server.controller import run_job
from search_server.executors import InlineExecutor
from search_server.funnel.stages import TrialKey
from search_server.progress import Progress
from search_server.searchers import EvolutionSearcher, Observation
from search_server.store import Store
from workers import TrialResult, TrialSpec

_spec = importlib.util.spec_from_file_location(
    "fake_search", Path(__file__).with_name("fake_search.py")
)
assert _spec is not None
assert _spec.loader is not None
fake: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


_REFERENCE: dict[str, Any] = {}


@pytest.fixture
def reference(own_home: Path, tmp_path: Path) -> dict[str, Any]:
    """All rows of an undisturbed search, made once; data and with it trials live in `own_home`."""
    if not _REFERENCE:
        url = f"sqlite:///{tmp_path / 'reference.db'}"
        job = fake.new_job(url)
        assert fake.run(url, job, slots=1) == "done"
        _REFERENCE.update(fake.rows(url))
    return _REFERENCE


def test_the_funnel_of_a_search(reference: dict[str, Any]) -> None:
    candidates, trials = reference["candidates"], reference["trials"]
    assert [row["index"] for row in candidates] == list(range(18))
    assert len({row["key"] for row in candidates}) == 18
    assert candidates[0]["origin"] == "baseline"
    assert candidates[0]["stage"] == "proxy"
    assert [row["origin"] for row in candidates[1:3]] == ["named", "named"]
    assert all(row["state"] != "open" for row in candidates)
    for start in (1, 6, 11, 16):
        cohort = candidates[start : start + 5]
        done = {
            row["candidate"]: row["fitness"]
            for row in trials
            if row["stage"] == "simulate" and row["state"] == "done"
        }
        ranked = sorted(
            (row["index"] for row in cohort if row["index"] in done),
            key=lambda index: (-done[index], index),
        )
        assert [r["index"] for r in cohort if r["stage"] == "proxy"] == sorted(ranked[:2])


def test_the_fitness_is_the_mean_over_the_seeds(reference: dict[str, Any]) -> None:
    by_candidate: dict[int, list[Any]] = {}
    for row in reference["trials"]:
        if row["stage"] == "proxy":
            by_candidate.setdefault(row["candidate"], []).append(row)
    for row in reference["candidates"]:
        trials = by_candidate.get(row["index"], [])
        assert sorted(t["seed"] for t in trials) == ([0, 7] if row["stage"] == "proxy" else [])
        if row["state"] == "done":
            values = [t["fitness"] if t["state"] == "done" else 0.0 for t in trials]
            assert row["fitness"] == pytest.approx(sum(values) / 2, abs=1e-15)


def test_every_draw_is_counted(reference: dict[str, Any]) -> None:
    accepted: Counter[str] = Counter()
    for row in reference["funnel_counts"]:
        if row["outcome"] == "accepted":
            accepted[row["origin"]] += row["count"]
    origins = Counter(row["origin"] for row in reference["candidates"] if row["index"] > 0)
    assert accepted == origins
    assert sum(row["count"] for row in reference["funnel_counts"]) > 1000
    assert reference["draws"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_timing_and_slots_change_nothing(seed: int, url: str, reference: dict[str, Any]) -> None:
    job = fake.new_job(url)
    with Store.open(url) as store:
        assert run_job(store, job, fake.ShuffledExecutor(seed), trace=1) == "done"
    assert fake.rows(url) == reference


def test_threads_change_nothing(url: str, reference: dict[str, Any]) -> None:
    job = fake.new_job(url)
    assert fake.run(url, job, slots=4) == "done"
    assert fake.rows(url) == reference


def test_ask_sees_exactly_the_window(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[int, list[int]] = {}

    class Spy(EvolutionSearcher):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.seen: list[int] = []

        def tell(self, observation: Observation) -> None:
            self.seen.append(observation.index)
            super().tell(observation)

        def ask(self, index: int, rng: Any) -> Any:
            asked[index] = list(self.seen)
            return super().ask(index, rng)

    monkeypatch.setattr(jobs_module, "make_searcher", Spy)
    job = fake.new_job(url)
    with Store.open(url) as store:
        run_job(store, job, fake.ShuffledExecutor(3))
    assert asked == {k: list(range(max(0, k - 6 + 1))) for k in range(1, 18)}


def test_a_stopped_search_goes_on_where_it_was(url: str, reference: dict[str, Any]) -> None:
    job = fake.new_job(url)
    finished: list[int] = []
    for done in (3, 9, 20):
        stop = threading.Event()

        def look(progress: Progress, stop: threading.Event = stop, done: int = done) -> None:
            if progress.done >= done:
                stop.set()

        assert fake.run(url, job, stop=stop, observer=look) == "interrupted"
        with Store.open(url) as store:
            finished.append(sum(t.state != "running" for t in store.trials(job)))
    assert finished == sorted(finished)
    assert finished[-1] >= 20
    assert fake.run(url, job) == "done"
    assert fake.rows(url) == reference


def test_a_time_limit_only_interrupts(url: str) -> None:
    job = fake.new_job(url, limits={"job_hours": 1e-9})
    assert fake.run(url, job) == "interrupted"
    with Store.open(url) as store:
        assert "limit of 1e-09 hours" in store.job(job).reason


def test_a_broken_executor_leaves_the_job_to_be_resumed(
    url: str, reference: dict[str, Any]
) -> None:
    class Broken(fake.ShuffledExecutor):
        def wait(self, timeout: float) -> list[tuple[TrialKey, TrialResult]]:
            if len(self.held) > 2:
                raise OSError("the cluster is gone")
            return []

    job = fake.new_job(url)
    with Store.open(url) as store:
        with pytest.raises(OSError, match="the cluster is gone"):
            run_job(store, job, Broken(0), trace=1)
        assert store.job(job).state == "interrupted"
        assert "the cluster is gone" in store.job(job).reason
    assert fake.run(url, job) == "done"
    assert fake.rows(url) == reference


@pytest.mark.parametrize(
    ("status", "state", "fitness", "ends"),
    [
        ("diverged", "done", 0.0, "done"),
        ("failed", "failed", None, "failed"),
        ("timeout", "failed", None, "failed"),
    ],
)
def test_a_bad_proxy_trial_is_a_result(
    url: str, status: Any, state: str, fitness: float | None, ends: str
) -> None:
    def trial(spec: TrialSpec) -> TrialResult:
        if spec.steps == 5 and spec.definition["name"] != "default":
            return TrialResult(status, "on purpose", None, spec.seed, spec.steps)
        return TrialResult("done", "", 0.5, spec.seed, spec.steps)

    job = fake.new_job(url, candidates=5)
    with Store.open(url) as store, InlineExecutor(2, trial) as executor:
        assert run_job(store, job, executor) == ends
        proxied = [each for each in store.candidates(job) if each.stage == "proxy"]
    assert len(proxied) == 3
    for each in proxied[1:]:
        assert (each.state, each.fitness) == (state, fitness)
        assert "on purpose" in each.reason


def test_an_exception_in_a_trial_is_a_failed_trial(url: str) -> None:
    def trial(spec: TrialSpec) -> TrialResult:
        if spec.definition["name"] != "default":
            raise RuntimeError("no such luck")
        return TrialResult("done", "", 0.5, spec.seed, spec.steps)

    job = fake.new_job(url, candidates=5)
    with Store.open(url) as store, InlineExecutor(2, trial) as executor:
        assert run_job(store, job, executor) == "failed"
        assert {each.state for each in store.candidates(job)[1:]} == {"failed"}
        reasons = [each.reason for each in store.trials(job) if each.candidate > 0]
        assert len(reasons) == 5
        assert all("no such luck" in reason for reason in reasons)
        said = store.job(job).reason
    assert "no candidate came to a fitness: simulation failed: RuntimeError: no such luck" in said


def test_a_baseline_that_fails_ends_the_search_at_once(url: str) -> None:
    def trial(spec: TrialSpec) -> TrialResult:
        raise RuntimeError("no such file: train.json")

    job = fake.new_job(url, candidates=1000)
    with Store.open(url) as store, InlineExecutor(2, trial) as executor:
        assert run_job(store, job, executor) == "failed"
        assert "baseline" in store.job(job).reason
        assert "RuntimeError: no such file: train.json" in store.job(job).reason
        assert len(store.candidates(job)) < 50
        assert run_job(store, job, executor) == "failed"  # resumed, it says so again


@pytest.mark.parametrize(
    ("status", "words"), [("timeout", "took too long"), ("out_of_memory", "ran out of memory")]
)
def test_a_baseline_without_an_end_leaves_nothing_to_compare_with(
    url: str, status: str, words: str
) -> None:
    def trial(spec: TrialSpec) -> TrialResult:
        return TrialResult(status, "that was it", None, spec.seed, spec.steps)  # type: ignore[arg-type]

    job = fake.new_job(url)
    with Store.open(url) as store, InlineExecutor(2, trial) as executor:
        assert run_job(store, job, executor) == "failed"
        assert store.job(job).reason == f"the baseline's training {words}: that was it"


POOR = {
    "name": "poor",
    "inputs": {"I": "per_row", "U": "per_row"},
    "constants": [1],
    "operators": ["Neg"],
    "root": "per_row",
}  # nothing that is verified can be grown from it


def test_trials_and_time_limit_count_while_a_candidate_is_drawn(url: str) -> None:
    job = fake.new_job(
        url,
        branches={"bbox": {"space": POOR}},
        searcher={"population": 4},
        funnel={**fake.SPEC["funnel"], "verify": {"max_draws": 10_000_000}},
        limits={"job_hours": 4 / 3600},
    )
    began = time.monotonic()
    assert fake.run(url, job) == "interrupted"
    assert time.monotonic() - began < 20
    with Store.open(url) as store:
        assert "hours was reached" in store.job(job).reason
        assert [each.state for each in store.trials(job)] == ["done", "done"]
        assert store.candidate(job, 0).state == "done"


def test_without_simulation_everything_goes_to_the_proxy(url: str) -> None:
    funnel = {**fake.SPEC["funnel"], "simulate": None}
    job = fake.new_job(url, candidates=7, window=2, funnel=funnel)
    assert fake.run(url, job) == "done"
    with Store.open(url) as store:
        assert {each.stage for each in store.candidates(job)} == {"proxy"}
        assert {trial.stage for trial in store.trials(job)} == {"proxy"}


def test_alternate_changes_one_branch_a_generation(url: str) -> None:
    job = fake.new_job(url, mode="alternate", candidates=15)
    assert fake.run(url, job) == "done"
    with Store.open(url) as store:
        candidates = store.candidates(job)
    for each in candidates[6:]:  # the first that see a result: the window is 6
        visible = [
            (seen.fitness is None, -(seen.simulate_score if seen.fitness is None else seen.fitness))
            + (seen.index,)
            for seen in candidates[: each.index - 6 + 1]
            if seen.fitness is not None or seen.simulate_score is not None
        ]  # type: ignore[operator]
        best = candidates[min(visible)[-1]]
        other = "bbox_text" if (each.index - 1) // 5 % 2 == 0 else "cls_text"
        assert getattr(each, other) == getattr(best, other), each.index


def test_a_search_that_finds_nothing_ends_with_a_reason(url: str) -> None:
    job = fake.new_job(
        url,
        branches={"bbox": {"space": POOR}},
        searcher={"population": 4},
        candidates=4,
    )
    assert fake.run(url, job) == "failed"
    with Store.open(url) as store:
        assert "no new loss for candidate 1 in 400 draws" in store.job(job).reason
        assert [each.origin for each in store.candidates(job)] == ["baseline"]


def test_named_losses_are_trained_as_they_are(url: str) -> None:
    job = fake.new_job(
        url,
        iou_centerness=True,
        searcher={"population": 5, "named": ["qfl-giou", "focal-giou"]},
        candidates=5,
    )
    assert fake.run(url, job) == "done"
    with Store.open(url) as store:
        found = [LossDefinition.from_json(each.definition) for each in store.candidates(job)]
    assert [each.name for each in found[:3]] == ["default", "qfl-giou", "focal-giou"]
    assert all(each.iou_centerness for each in found)
    assert found[1].cls == CATALOG["qfl-giou"].cls
    assert found[2].bbox == CATALOG["focal-giou"].bbox


def test_progress_tells_where_the_search_stands(url: str) -> None:
    seen: list[Progress] = []
    job = fake.new_job(url)
    assert fake.run(url, job, observer=seen.append) == "done"
    last = seen[-1]
    assert last.candidates == last.of == 17
    assert last.running == ()
    assert last.funnel["verified"] == 17
    assert last.funnel["drawn"] > 17
    assert last.best is not None
    assert seen[0].seconds_left is None or seen[0].seconds_left > 0
    assert seen[0].waiting_for == ""
    assert last.seconds_left == 0.0 or last.done < last.trials
