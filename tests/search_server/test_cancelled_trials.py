"""What becomes of the trials that run when their job is cancelled."""

from collections import Counter
from collections.abc import Iterator

import pytest
from sqlalchemy import select

from search_server.errors import IllegalMove
from search_server.store import CandidateRecord, Store
from search_server.store.models import JobTotals, TrialCount
from workers import TrialResult

KEYS = tuple(f"{seed}" * 64 for seed in range(4))
RUNG = TrialResult("paused", "", None, 0, 20, rungs={10: 0.5})


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store.open(url) as opened:
        yield opened


def begun(store: Store) -> str:
    """A running job: seed 0 is done, 1 paused, 2 runs, 3 runs after a pause."""
    job = store.create_job("x", {}, "", ("a",))
    store.set_job_state(job, "running")
    store.add_candidate(job, CandidateRecord(0, "baseline", (), {}, key="k"))
    for seed in range(4):
        store.start_trial(job, 0, "proxy", seed, "s", KEYS[seed], pause_after=10)
    done = TrialResult("done", "", 0.5, 0, 20)
    store.finish_trial(job, 0, "proxy", 0, done)
    for seed in (1, 3):
        store.finish_trial(job, 0, "proxy", seed, RUNG)
    store.start_trial(job, 0, "proxy", 3, "s", KEYS[3])
    return job


def found(store: Store, job: str) -> list[str]:
    """The states of its trials by seed, which are those that are counted."""
    states = [trial.state for trial in store.trials(job)]
    with store.reading() as session:
        rows = session.scalars(select(TrialCount).where(TrialCount.job_id == job)).all()
        counted = Counter({row.state: row.count for row in rows if row.stage == "proxy"})
    assert +counted == Counter(states)
    return list(states)


@pytest.mark.parametrize("way", ["obeyed", "forced", "never resumed", "written"])
def test_they_end_with_it(store: Store, way: str) -> None:
    job = begun(store)
    if way == "never resumed":
        store.leave_job(job, "interrupted")
        assert found(store, job) == ["done", "paused", "running", "running"]
    if way == "written":
        store.set_job_state(job, "cancelled")
    else:
        store.request_cancel(job)
    if way == "obeyed":
        assert store.leave_job(job, "interrupted") == "cancelled"
    if way == "forced":
        assert found(store, job) == ["done", "paused", "running", "running"]
        store.finish_cancelling(job, "its controller was gone")
    assert found(store, job) == ["done", "paused", "cancelled", "cancelled"]
    ended = store.trials(job)[2]
    assert ended.reason == "its job was cancelled"
    assert ended.finished_at == store.job(job).finished_at
    with pytest.raises(IllegalMove, match="is cancelled and cannot become running"):
        store.start_trial(job, 0, "proxy", 2, "s")
    with pytest.raises(IllegalMove, match="is cancelled and cannot become done"):
        store.finish_trial(job, 0, "proxy", 2, TrialResult("done", "", 0.5, 0, 20))


def test_another_job_trains_what_they_did_not(store: Store) -> None:
    job = begun(store)
    store.request_cancel(job)
    store.finish_cancelling(job, "its controller was gone")
    other = begun_like(store)
    for seed, wanted in enumerate(("reused", "reused", "train", "reused")):
        start = store.start_trial(other, 0, "proxy", seed, "s", KEYS[seed], pause_after=10)
        assert start.verdict == wanted
    assert found(store, other) == ["done", "paused", "running", "paused"]
    start = store.start_trial(other, 0, "proxy", 3, "s", KEYS[3])  # beyond the rung
    assert start.verdict == "train"


def begun_like(store: Store) -> str:
    job = store.create_job("y", {}, "", ("a",))
    store.set_job_state(job, "running")
    store.add_candidate(job, CandidateRecord(0, "baseline", (), {}, key="k"))
    return job


def test_one_that_is_resumed_begins_them_again(store: Store) -> None:
    job = begun(store)
    store.leave_job(job, "interrupted")
    store.set_job_state(job, "running")
    for seed in (2, 3):
        assert store.start_trial(job, 0, "proxy", seed, "s", KEYS[seed]).verdict == "train"
        store.finish_trial(job, 0, "proxy", seed, TrialResult("done", "", 0.5, 0, 20))
    assert found(store, job) == ["done", "paused", "done", "done"]


def test_a_controller_that_hears_of_it_late_leaves_none(store: Store) -> None:
    job = begun(store)
    store.request_cancel(job)
    store.finish_cancelling(job, "it did not obey")
    store.start_trial(job, 0, "proxy", 9, "s")
    assert store.leave_job(job, "interrupted") == "cancelled"
    assert found(store, job) == ["done", "paused", *["cancelled"] * 3]


def test_they_are_not_counted_as_confirmed(store: Store) -> None:
    job = begun(store)
    store.start_trial(job, 0, "confirm", 5, "s")
    store.request_cancel(job)
    store.finish_cancelling(job, "its controller was gone")
    with store.reading() as session:
        assert session.get_one(JobTotals, job).confirmed == 0
