"""The same loss under the same trial is trained once: in a job and across jobs of a store."""

import importlib.util
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from losses import CATALOG, LossDefinition
from search_server.candidates import MERGES_KEPT, Draws
from search_server.controller import run_job
from search_server.executors import InlineExecutor
from search_server.jobs import open_job
from search_server.same_losses import SameLosses, trained_key
from search_server.store import Store
from search_server.store.records import SAME
from workers import Split, TrialResult, TrialSpec

PROGRAM = Path(__file__).with_name("fake_search.py")
_spec = importlib.util.spec_from_file_location("fake_search", PROGRAM)
assert _spec is not None
assert _spec.loader is not None
fake: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake)

SMALL = {"candidates": 8}


class Trainer:
    """Trains every loss to an AP of its own, and counts."""

    def __init__(self, stop_at: int | None = None, stop: threading.Event | None = None) -> None:
        self.trained: Counter[str] = Counter()
        self._stop_at, self._stop = stop_at, stop

    def __call__(self, spec: TrialSpec) -> TrialResult:
        self.trained[spec.key] += 1
        if self._stop is not None and self.trained.total() == self._stop_at:
            self._stop.set()
        value = fake.number(spec)
        return TrialResult("done", "", value, spec.seed, spec.steps, seconds={"total": 1.0})


def search(
    url: str,
    job: str,
    train: Callable[[TrialSpec], TrialResult],
    stop: threading.Event | None = None,
) -> str:
    with Store.open(url) as store, InlineExecutor(2, train) as executor:
        return run_job(store, job, executor, stop=stop)


def outcome(store: Store, job: str) -> list[Any]:
    """All of a job that does not say how it came about."""
    trials = [(t.candidate, t.stage, t.seed, t.state, t.fitness) for t in store.trials(job)]
    return [[(c.key, c.state, c.fitness, c.reason) for c in store.candidates(job)], trials]


def test_a_second_job_trains_nothing_and_comes_to_the_same(url: str) -> None:
    jobs = [fake.new_job(url, **SMALL) for _ in range(2)]
    first, second = Trainer(), Trainer()
    assert search(url, jobs[0], first) == search(url, jobs[1], second) == "done"
    assert second.trained.total() == 0
    assert first.trained.total() == len(first.trained) > 10
    with Store.open(url) as store:
        assert outcome(store, jobs[0]) == outcome(store, jobs[1])
        again = store.trials(jobs[1])
        assert [each.reused_from for each in again] == [
            f"{jobs[0]}:{each.candidate}:{each.stage}:{each.seed}" for each in again
        ]
        assert all(each.reused_from is None for each in store.trials(jobs[0]))
        assert not any(each.seconds for each in again)


def test_a_search_by_rungs_takes_over_rung_by_rung(url: str) -> None:
    """Trials that are lost are trained again, and they alone."""
    funnel = {**fake.HALVING["funnel"], "confirm": None}
    jobs = [fake.new_job(url, funnel=funnel) for _ in range(2)]
    trained: list[list[TrialSpec]] = [[], []]
    for job, specs in zip(jobs, trained, strict=True):

        def train(spec: TrialSpec, specs: list[TrialSpec] = specs) -> TrialResult:
            specs.append(spec)
            return fake.fake_trial(spec)

        assert search(url, job, train) == "done"  # type: ignore[arg-type]
    assert any(spec.pause_after is not None for spec in trained[0])
    with Store.open(url) as store:
        assert outcome(store, jobs[0]) == outcome(store, jobs[1])
        rows = [store.trials(job) for job in jobs]
        assert [t.rungs for t in rows[0]] == [t.rungs for t in rows[1]]
    lost = {t.spec_key for t in rows[0] if t.state in ("failed", "timeout")}
    assert {spec.key for spec in trained[1]} <= lost
    assert sum(t.reused_from is not None for t in rows[1]) >= len(rows[1]) - len(lost)


def test_an_interrupted_job_takes_what_another_trained_meanwhile(url: str) -> None:
    jobs = [fake.new_job(url, **SMALL) for _ in range(2)]
    stop = threading.Event()
    first, second, rest = Trainer(7, stop), Trainer(), Trainer()
    assert search(url, jobs[0], first, stop) == "interrupted"
    assert search(url, jobs[1], second) == "done"
    assert search(url, jobs[0], rest) == "done"
    assert rest.trained.total() == 0
    with Store.open(url) as store:
        assert outcome(store, jobs[0]) == outcome(store, jobs[1])
        ended = [t for job in jobs for t in store.trials(job) if t.reused_from is None]
        assert len(ended) == len({t.spec_key for t in ended}) == len(second.trained | first.trained)
    # what ran when the first was stopped, and only that, was trained again
    assert set((first.trained & second.trained).values()) <= {1}
    assert (first.trained & second.trained).total() <= 3


def test_two_jobs_at_once_share_their_trials(url: str) -> None:
    jobs = [fake.new_job(url, **SMALL) for _ in range(2)]
    train = Trainer()
    states: list[str] = []

    def when_both_run(spec: TrialSpec) -> TrialResult:
        with Store.open(url) as store:
            deadline = time.monotonic() + 60
            while {store.job(job).state for job in jobs} != {"running"} and not train.trained:
                assert time.monotonic() < deadline, "the other job has not begun"
                time.sleep(0.01)
        return train(spec)

    threads = [
        threading.Thread(target=lambda job=job: states.append(search(url, job, when_both_run)))
        for job in jobs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states == ["done", "done"]
    assert set(train.trained.values()) == {1}
    with Store.open(url) as store:
        assert outcome(store, jobs[0]) == outcome(store, jobs[1])


def test_what_needed_a_smaller_batch_is_no_result_for_others(url: str) -> None:
    """Its AP is that of fewer images, so the next job tries the full batch."""
    jobs = [fake.new_job(url, **SMALL) for _ in range(2)]
    first, second = Trainer(), Trainer()

    def short_of_memory(spec: TrialSpec) -> TrialResult:
        result = first(spec)
        return replace(result, batch_size=2) if spec.seed == 7 else result

    search(url, jobs[0], short_of_memory)
    search(url, jobs[1], second)
    with Store.open(url) as store:
        rows = [store.trials(job) for job in jobs]
    assert {t.seed for t in rows[1] if t.reused_from is None} == {7}
    assert {t.batch_size for t in rows[0] if t.seed == 7} == {2}
    assert {t.batch_size for t in rows[1]} == {None}


def test_another_seed_is_another_trial(url: str) -> None:
    jobs = [
        fake.new_job(
            url, **SMALL, funnel={**fake.SPEC["funnel"], "proxy": {"steps": 5, "seeds": s}}
        )
        for s in ([0, 7], [7, 8])
    ]
    search(url, jobs[0], Trainer())
    search(url, jobs[1], train := Trainer())
    with Store.open(url) as store:
        proxy = [each for each in store.trials(jobs[1]) if each.stage == "proxy"]
    assert {each.seed for each in proxy if each.reused_from is None} == {8}
    assert 0 < train.trained.total() == sum(each.reused_from is None for each in proxy)


def test_a_named_loss_that_is_the_baseline_is_no_candidate(url: str) -> None:
    searcher = {**fake.SPEC["searcher"], "named": ["focal-giou", "cse-autoloss-b"]}
    baseline = {
        "cls": {"type": "stock", "loss": {"type": "FocalLoss"}, "loss_weight": None},
        "bbox": {"type": "stock", "loss": {"type": "GIoULoss"}, "loss_weight": None},
    }
    job = fake.new_job(url, **SMALL, searcher=searcher, baseline=baseline)
    search(url, job, Trainer())
    with Store.open(url) as store:
        assert [store.candidate(job, index).name for index in (1, 2)] == [None, "cse-autoloss-b"]
        assert store.counts(job)["named", SAME] == 1
        (draw,) = [each for each in store.draws(job) if each.origin == "named"]
    assert draw.outcome == f"{SAME} as 0"
    kept = LossDefinition.from_json(json.loads(draw.text))
    assert kept.branch("bbox") == CATALOG["focal-giou"].branch("bbox")


def test_kept_merges_are_bounded_and_all_are_counted() -> None:
    draws = Draws()
    for _ in range(MERGES_KEPT + 5):
        draws.merge("random", CATALOG["default"], 3)
    assert draws.counts["random", SAME] == MERGES_KEPT + 5
    assert len(draws.traced) == MERGES_KEPT


def test_candidates_of_an_earlier_version_are_identified(url: str) -> None:
    """A job of a store without identities: resumed, its later trials are shared."""
    jobs = [fake.new_job(url, **SMALL) for _ in range(2)]
    stop = threading.Event()
    search(url, jobs[0], Trainer(7, stop), stop)
    with Store.open(url) as store, store.changing() as session:
        from sqlalchemy import text

        session.execute(text("UPDATE candidates SET loss_id = NULL"))
        session.execute(text("DELETE FROM losses"))
        session.execute(text("UPDATE trials SET trained_key = NULL"))
    search(url, jobs[0], Trainer())
    search(url, jobs[1], train := Trainer())
    with Store.open(url) as store:
        ids = [[each.loss_id for each in store.candidates(job)] for job in jobs]
        assert outcome(store, jobs[0]) == outcome(store, jobs[1])
    assert ids[0] == ids[1]
    assert None not in ids[0]
    assert train.trained.total() <= 9  # those of before have no key, all others one


def test_what_is_in_the_key_of_a_trial() -> None:
    split = Split("a.json", "images")
    spec = TrialSpec("model", {"name": "a"}, split, split, 0, 10, 2, ("x",), rungs=(4,))
    key = trained_key(spec, 3)

    def of(**fields: Any) -> str | None:
        return trained_key(TrialSpec(**{**vars(spec), **fields}), 3)

    assert key is not None
    assert of(definition={"name": "b", "cls": None}) == of(time_limit=5.0) == key
    assert of(pause_after=4) == of(checkpoint="/tmp/x") == key
    others = [
        of(seed=1),
        of(steps=11),
        of(rungs=()),
        of(precision="bfloat16"),
        trained_key(spec, 4),
    ]
    assert len({key, *others}) == 6
    assert trained_key(spec, None) is None


def test_changed_annotations_and_other_packages_are_another_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotations = tmp_path / "a.json"
    annotations.write_text("{}")
    split = Split(str(annotations), "images")
    spec = TrialSpec("model", {"name": "a"}, split, split, 0, 10, 2, ("x",))
    key = trained_key(spec, 3)
    annotations.write_text('{"images": []}')
    changed = trained_key(spec, 3)
    monkeypatch.setattr(
        "search_server.same_losses.package_versions", lambda: {"torch": "of tomorrow"}
    )
    assert len({key, changed, trained_key(spec, 3)}) == 3


def test_scales_count_as_the_job_says(url: str) -> None:
    given = LossDefinition.from_json(
        {"name": "x", "cls": CATALOG["focal-expression"].cls.to_json()}  # type: ignore[union-attr]
    )
    with Store.open(url) as store:
        job = open_job(store, fake.new_job(url, **SMALL))
    same = SameLosses(job, lambda index: job.baseline.to_json())
    same.add(0, same.fingerprint(job.baseline))
    assert same.find(given) == 0
    for scale in (1.0001, 2.0):
        branch = {**given.to_json()["cls"], "scale": scale}
        assert same.find(LossDefinition.from_json({"name": "x", "cls": branch})) is None
