"""A job is cancelled through the store: its controller obeys, results stay, and that is final."""

import threading
import time
from collections import Counter
from itertools import count

import fake_search
import pytest

from search_server.controller import run_job
from search_server.errors import IllegalMove, JobError
from search_server.executors import InlineExecutor
from search_server.store import Store
from workers import TrialResult, TrialSpec


def running(url: str, job: str, state: list[str], delay: float = 0.3) -> threading.Thread:
    """A thread that runs a job with slow trials and appends its last state."""

    def run() -> None:
        trial = fake_search.slow_trial(delay, delay)
        with Store.open(url) as store, InlineExecutor(2, trial) as executor:
            state.append(run_job(store, job, executor))

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_the_controller_obeys_and_results_stay(url: str) -> None:
    job = fake_search.new_job(url)
    states: list[str] = []
    thread = running(url, job, states)
    with Store.open(url) as store:
        until = time.monotonic() + 60
        while not any(trial.state == "done" for trial in store.trials(job)):
            assert time.monotonic() < until
            time.sleep(0.05)
        assert store.request_cancel(job) == "cancelling"
        assert store.request_cancel(job) == "cancelling"
        thread.join(60)
        assert states == ["cancelled"]
        record = store.job(job)
        assert (record.state, record.reason, record.owner) == (
            "cancelled",
            "cancelled by the user",
            None,
        )
        ends = {trial.state for trial in store.trials(job)}
        assert "done" in ends
        assert "running" not in ends
        with pytest.raises(IllegalMove, match="is final"):
            store.set_job_state(job, "running")
    states.clear()
    again = fake_search.new_job(url)  # the same spec: what is finished is not paid for twice
    assert fake_search.run(url, again) == "done"
    with Store.open(url) as store:
        kept = [each for each in store.trials(job) if each.state in ("done", "diverged")]
        taken = [each for each in store.trials(again) if each.reused_from is not None]
        assert len(taken) >= len(kept) > 0


def test_what_is_trained_meanwhile_ends_with_it(url: str) -> None:
    job, begun, go_on = fake_search.new_job(url), count(), threading.Event()

    def trial(spec: TrialSpec) -> TrialResult:
        """The first one ends, the others do not."""
        if next(begun) > 0:
            go_on.wait(300)
        return fake_search.fake_trial(spec)

    def search() -> None:
        with Store.open(url) as store, InlineExecutor(2, trial) as executor:
            run_job(store, job, executor)

    thread = threading.Thread(target=search)
    thread.start()
    with Store.open(url) as store:
        until = time.monotonic() + 300
        while Counter(trial.state for trial in store.trials(job)).keys() != {"done", "running"}:
            assert time.monotonic() < until
            time.sleep(0.05)
        store.request_cancel(job)
        while store.job_state(job) != "cancelled":
            assert time.monotonic() < until
            time.sleep(0.05)
        ends = Counter(trial.state for trial in store.trials(job))
        assert (ends["done"], ends["running"]) == (1, 0)
        assert ends["cancelled"] > 0
    go_on.set()
    thread.join(60)


@pytest.mark.parametrize("before", ["created", "interrupted", "failed"])
def test_what_does_not_run_is_cancelled_at_once(url: str, before: str) -> None:
    with Store.open(url) as store:
        job = store.create_job("x", {}, "", ("a",))
        if before != "created":
            store.set_job_state(job, "running")
            store.set_job_state(job, before)  # type: ignore[arg-type]
        assert store.request_cancel(job) == "cancelled"
        assert store.job(job).state == "cancelled"
        assert store.leave_job(job, "done") == "cancelled"  # a late controller changes nothing


def test_whatever_a_run_came_to_it_is_cancelled(url: str) -> None:
    with Store.open(url) as store:
        for late in ("done", "interrupted", "failed"):
            job = store.create_job("x", {}, "", ("a",))
            store.set_job_state(job, "running")
            store.request_cancel(job)
            assert store.leave_job(job, late) == "cancelled"  # type: ignore[arg-type]
        job = store.create_job("x", {}, "", ("a",))
        with pytest.raises(IllegalMove):
            store.finish_cancelling(job, "nobody asked")
        store.set_job_state(job, "running")
        store.request_cancel(job)
        store.finish_cancelling(job, "its controller is gone")
        assert store.job(job).reason == "its controller is gone"
        store.set_job_state(store.create_job("y", {}, "", ("a",)), "running")
        store.leave_job("y-1", "done")
        with pytest.raises(IllegalMove, match="is final"):
            store.request_cancel("y-1")


def test_of_two_that_submit_one_wins(url: str) -> None:
    with Store.open(url) as store:
        job = store.create_job("x", {}, "", ("a",))
        with pytest.raises(JobError):
            store.add_submission("none-1", 1, "http://head:8265", 0)
        barrier, won = threading.Barrier(4), []

        def claim(number: int) -> None:
            barrier.wait()
            won.append(store.add_submission(job, 1, f"http://head-{number}:8265", 0))

        threads = [threading.Thread(target=claim, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (winner,) = [each for each in won if each is not None]
        assert store.submissions(job) == [winner]
        assert winner.submission_id == "x-1-a1"
        second = store.add_submission(job, 3, "http://head:8265", 1)
        assert [each.attempt for each in store.submissions(job)] == [1, 3]
        assert second is not None
        store.drop_submission(job, 3)
        assert store.submissions(job) == [winner]
