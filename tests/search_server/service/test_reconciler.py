"""Whatever is killed, and whenever: what was submitted runs, once, to its end."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faults
import pytest

from search_server.errors import JobError
from search_server.service.reconciler import WAITS, Reconciler
from search_server.service.settings import Runs
from search_server.service.standing import Standing, decide
from search_server.store import Store
from search_server.store.requests import Asked

fake = faults.fake
TABLES = ("candidates", "trials", "losses", "funnel_counts")


@dataclass
class Process:
    """A controller in a process of its own, as `subprocess.Popen` would have it."""

    pid: int
    status: int | None = None

    def poll(self) -> int | None:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status


@dataclass
class FakeRuns:
    """Starts controllers whose trials are a formula; every start is a line of a file."""

    url: str
    log: Path
    work: Callable[[str, str], None]
    pids: list[int] = field(default_factory=list)

    def start(self, job_id: str) -> Process:
        with self.log.open("a") as file:
            file.write(f"{job_id}\n")
        pid = faults.forked(lambda: self.work(self.url, job_id))
        self.pids.append(pid)
        return Process(pid)

    def started(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []


def search(url: str, job_id: str) -> None:
    """A whole controller."""
    fake.run(url, job_id)


def slow_search(url: str, job_id: str) -> None:
    """A controller with time to be killed in."""
    from search_server.controller import run_job
    from search_server.executors import InlineExecutor

    with Store.open(url) as store, InlineExecutor(2, fake.slow_trial(0.05, 0.15)) as executor:
        run_job(store, job_id, executor, trace=1)


def submitted(store: Store, **changes: Any) -> str:
    """A job as the service writes it."""
    from search_server.jobs import create_job

    spec = fake.spec(**{**faults.FEW, **changes})
    return create_job(store, spec, request=Asked("ada"))


@pytest.fixture
def url(store_file: Path) -> str:
    return f"sqlite:///{store_file}"


@pytest.fixture
def service(store: Store, url: str, tmp_path: Path) -> Iterator[Callable[..., Reconciler]]:
    """Makes a service's reconciler, which is told when to look."""
    made: list[FakeRuns] = []

    def make(work: Callable[[str, str], None] = search, **given: Any) -> Reconciler:
        runs = Runs(**{name: given.pop(name) for name in ("at_once", "tries") if name in given})
        runner = FakeRuns(url, tmp_path / "started", work)
        made.append(runner)
        found = Reconciler(store, runner, runs, **{"starting": 60.0, "again": 0.1, **given})
        if "name" in given:
            found._name = given["name"]
        return found

    yield make
    for runner in made:
        for pid in runner.pids:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass


def until(reconciler: Reconciler, condition: Callable[[], Any], seconds: float = 300) -> Any:
    """Looks again and again until something is so; gives that."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        reconciler.turn()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def settled(store: Store, *jobs: str) -> bool:
    """Whether the service has nothing more to do for these jobs."""
    return all((found := store.request_of(job)) and found.settled for job in jobs)


@pytest.mark.parametrize(
    ("standing", "action"),
    [
        (Standing("created", "", 0, "gone"), "start"),
        (Standing("created", "", 1, "gone", begins=True), "leave"),
        (Standing("created", "", 1, "live"), "leave"),  # an attempt that waits at a cluster
        (Standing("created", "", 1, "unknown"), "leave"),
        (Standing("created", "", 2, "gone", status=1), "start"),
        (Standing("created", "", 4, "gone", status=1), "settle"),
        (Standing("running", "", 1, "live"), "leave"),
        (Standing("running", "", 0, "live"), "leave"),
        (Standing("running", "", 1, "unknown"), "leave"),
        (Standing("running", "", 0, "unknown"), "start"),  # resumed by force
        (Standing("running", "", 3, "gone"), "start"),
        (Standing("running", "", 4, "gone"), "settle"),
        (Standing("running", "", 1, "gone", begins=True), "leave"),
        (Standing("interrupted", "stopped by the user", 1, "gone"), "settle"),
        (Standing("interrupted", "the limit of 3 hours was reached", 1, "gone"), "settle"),
        (Standing("interrupted", "stopped by the user", 0, "gone"), "start"),
        (Standing("interrupted", "stopped by the user", 1, "live"), "leave"),  # resumed
        (Standing("interrupted", "ClusterGone: Ray is gone", 1, "gone"), "start"),
        (Standing("failed", "", 0, "gone"), "start"),
        (Standing("failed", "", 1, "gone", begins=True), "leave"),
        (Standing("failed", "no baseline", 1, "gone"), "settle"),
        (Standing("done", "", 1, "gone"), "settle"),
        (Standing("cancelling", "", 1, "live"), "end"),
        (Standing("cancelled", "", 0, "gone"), "end"),
    ],
)
def test_what_is_to_be_done(standing: Standing, action: str) -> None:
    decision = decide(standing, tries=3)
    assert decision.action == action
    assert decision.interrupt == (action == "settle" and standing.state == "running")
    if action == "settle" and standing.controller == "gone" and standing.tries > 3:
        assert "Resume the job" in decision.note


def test_what_is_submitted_runs_and_nothing_else(
    store: Store, url: str, service: Any, tmp_path: Path
) -> None:
    expected = faults.undisturbed(tmp_path, **faults.FEW)
    job = submitted(store)
    other = fake.new_job(url, **faults.FEW)  # by the command line
    reconciler = service()
    until(reconciler, lambda: settled(store, job))
    assert store.job(job).state == "done"
    assert store.job(other).state == "created"
    assert store.request_of(other) is None
    assert reconciler.runner.started() == [job]
    _same_rows(url, expected)


def test_one_at_a_time(store: Store, service: Any, new_job: Any) -> None:
    """The controllers do no more than to hold their job for a while."""
    reconciler = service(_held, at_once=1)
    jobs = [new_job(request=Asked("ada")) for _ in range(3)]
    most = 0

    def ended() -> bool:
        nonlocal most
        states = [store.job_state(job) for job in jobs]
        most = max(most, states.count("running"))
        return settled(store, *jobs)

    reconciler.turn()
    reconciler.turn()
    assert [store.request_of(job).note for job in jobs] == ["", WAITS, WAITS]  # type: ignore[union-attr]
    until(reconciler, ended)
    assert most <= 1
    assert reconciler.runner.started() == jobs


def _held(url: str, job_id: str) -> None:
    with Store.open(url) as store:
        store.set_job_state(job_id, "running")
        time.sleep(0.3)
        store.leave_job(job_id, "done")


def _lives(url: str, job_id: str) -> None:
    with Store.open(url) as store:
        store.set_job_state(job_id, "running")
        time.sleep(600)


def _dies(url: str, job_id: str) -> None:
    with Store.open(url) as store:
        store.set_job_state(job_id, "running")
        faults.kill_self()


def test_a_controller_that_is_killed_is_started_again(
    store: Store, url: str, service: Any, tmp_path: Path
) -> None:
    expected = faults.undisturbed(tmp_path, **faults.FEW)
    job = submitted(store)
    reconciler = service(slow_search)
    until(reconciler, lambda: faults.ended(url) >= 1)
    os.kill(reconciler.runner.pids[0], signal.SIGKILL)
    until(reconciler, lambda: settled(store, job))
    assert store.job(job).state == "done"
    assert reconciler.runner.started() == [job, job]
    _same_rows(url, expected)


def test_what_dies_always_is_given_up_and_can_be_resumed(
    store: Store, service: Any, new_job: Any
) -> None:
    job = new_job(request=Asked("ada"))
    reconciler = service(_dies, tries=2)
    until(reconciler, lambda: settled(store, job))
    assert reconciler.runner.started() == [job] * 3
    found = store.job(job)
    assert found.state == "interrupted"
    assert "started 3 times" in found.reason
    store.reopen_request(job, "ada")
    reconciler.runner.work = _held
    until(reconciler, lambda: settled(store, job))
    assert store.job(job).state == "done"
    request = store.request_of(job)
    assert request is not None
    assert request.note == ""


@pytest.mark.parametrize("moment", ["before the start", "after the note", "after the start"])
def test_a_service_that_is_killed_leaves_nothing_undone(
    moment: str, store: Store, url: str, service: Any, new_job: Any, tmp_path: Path
) -> None:
    """The first service is a process that is killed with -9; the second one mends it."""
    job = new_job(request=Asked("ada"))

    def first() -> None:
        with Store.open(url) as own:
            reconciler = service(_held, starting=1.0)
            reconciler.store = own
            start = reconciler.runner.start

            def killed(job_id: str) -> Any:
                if moment == "after the start":
                    start(job_id)
                faults.kill_self()

            reconciler.runner.start = killed
            if moment != "before the start":
                reconciler.turn()
            faults.kill_self()

    assert faults.end_of(faults.forked(first)) == signal.SIGKILL
    second = service(_held, starting=1.0)
    until(second, lambda: settled(store, job))
    assert store.job(job).state == "done"
    assert second.runner.started() == [job]  # once, whoever it was


def test_two_services_start_one_controller(
    store: Store, url: str, service: Any, new_job: Any
) -> None:
    jobs = [new_job(request=Asked("ada")) for _ in range(4)]

    def other() -> None:
        with Store.open(url) as own:
            reconciler = service(_held, at_once=2)
            reconciler.store = own
            until(reconciler, lambda: settled(own, *jobs))

    child = faults.forked(other)
    reconciler = service(_held, at_once=2)
    until(reconciler, lambda: settled(store, *jobs))
    assert faults.end_of(child) == 0
    assert sorted(reconciler.runner.started()) == sorted(jobs)
    assert {store.job_state(job) for job in jobs} == {"done"}


def test_cancelling_ends_whether_the_controller_lives_or_not(
    store: Store, service: Any, new_job: Any
) -> None:
    waiting, lost = new_job(request=Asked("ada")), new_job(request=Asked("ada"))
    reconciler = service(_lives, at_once=2)
    store.request_cancel(waiting)
    until(reconciler, lambda: store.job_state(lost) == "running")
    assert store.request_cancel(lost) == "cancelling"
    reconciler.turn()
    assert store.job_state(lost) == "cancelling"  # its controller has time to obey
    os.kill(reconciler.runner.pids[0], signal.SIGKILL)
    until(reconciler, lambda: settled(store, waiting, lost))
    assert store.job_state(lost) == "cancelled"
    assert reconciler.runner.started() == [lost]


def test_a_search_that_was_stopped_stays_stopped_until_it_is_resumed(
    store: Store, service: Any, new_job: Any
) -> None:
    job = new_job(request=Asked("ada"))
    reconciler = service(_stopped)
    until(reconciler, lambda: settled(store, job))
    reconciler.turn()
    assert store.job_state(job) == "interrupted"
    store.reopen_request(job, "ada")
    reconciler.runner.work = _held
    until(reconciler, lambda: store.job_state(job) == "done")
    assert reconciler.runner.started() == [job, job]


def _stopped(url: str, job_id: str) -> None:
    with Store.open(url) as store:
        store.set_job_state(job_id, "running")
        store.leave_job(job_id, "interrupted", "stopped by the user")


def test_what_cannot_be_started_is_tried_again_and_says_why(
    store: Store, service: Any, new_job: Any
) -> None:
    job = new_job(request=Asked("ada"))
    reconciler = service(_held, tries=0)
    start = reconciler.runner.start
    left = [3]

    def away(job_id: str) -> Any:
        left[0] -= 1
        if left[0] > 0:
            raise JobError("no Ray cluster answers at http://head:8265, see /srv/ray/log")
        return start(job_id)

    reconciler.runner.start = away
    reconciler.turn()
    request = store.request_of(job)
    assert request is not None
    assert request.note == "no Ray cluster answers at http://head:8265, see …/log"
    assert request.tries == 0
    until(reconciler, lambda: settled(store, job))
    assert store.job_state(job) == "done"


def _same_rows(url: str, expected: dict[str, Any]) -> None:
    """That a store's only search that ran came to the rows of an undisturbed one."""
    found = fake.rows(url)
    assert (
        faults.differences(
            {name: found[name] for name in TABLES}, {name: expected[name] for name in TABLES}
        )
        == []
    )
