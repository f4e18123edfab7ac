"""The search itself: ask, drop the known, verify, simulate, train, record, tell, confirm."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType

from search_server.candidates import (
    Draws,
    NothingNew,
    Stopped,
    baseline_record,
    find_candidate,
)
from search_server.errors import CalibrationError, StoreError, TakenOver
from search_server.executors import Executor
from search_server.funnel.filters import Filters
from search_server.jobs import Job, open_job
from search_server.ledger import Ledger
from search_server.progress import Progress, snapshot
from search_server.searchers import generator
from search_server.store import CandidateRecord, Store
from search_server.store.away import Patience
from search_server.store.records import JobState

Observer = Callable[[Progress], None]

log = logging.getLogger(__name__)

MARGIN = 1  # trials handed out beyond the slots, so that no slot waits for the controller
PATIENCE = 0.5  # seconds until clock, signals and trials are looked at again
STORE_PATIENCE = 3600.0  # seconds that a store which does not answer is waited for
WATCHING = 0.05  # share of the time that putting the progress together may take
QUICK = 0.002  # seconds that it always may take
ASK_AGAIN = 1.0  # seconds until the store is asked again whether the job is to be cancelled


def run_job(
    store: Store,
    job_id: str,
    executor: Executor,
    observer: Observer | None = None,
    stop: threading.Event | None = None,
    trace: int = 0,
    patience: float = STORE_PATIENCE,
) -> JobState:
    """Run a job, or go on with one, until it is done, failed, interrupted or cancelled; returns its
    new state.

    It is `failed` if its baseline is or cannot be run for the calibration, or if no candidate
    besides it came to a fitness.

    A store that does not answer is waited for, and the trials run on meanwhile; what they come to
    is written afterwards.

    What was finished is never repeated: all that a decision depends on is in the store. Trials that
    were running when a process died are run again.

    Args:
        observer: called with the progress after every change, in this thread; less often where it
            takes long to put together.
        stop: when set, running trials are cancelled and the job is `interrupted`; `cancelled` if
            the store says that it is `cancelling`, which is obeyed without `stop` too.
        trace: how many draws of every outcome to keep as text, for each candidate.
        patience: seconds that a store which does not answer is waited for.

    Raises:
        JobError: there is no such job, or another process runs it.
        TakenOver: another process took it over, from a machine that cannot tell that this one runs.
        IllegalMove: the job is finished.
        StoreError: the store does not take what is written. The job stays as it is, if even that
            cannot be written down, and can be resumed.
    """
    stop = stop or threading.Event()
    watched = _Watched(observer)
    with store.patient(Patience(patience, stop, watched.wait_for)):
        store.set_job_state(job_id, "running")
        state: JobState = "interrupted"
        reason = ""
        try:
            job = open_job(store, job_id)
            state, reason = _search(store, job, executor, watched, stop, trace)
        except KeyboardInterrupt:
            reason = "stopped by the user"
        except TakenOver:
            executor.cancel_all()
            raise
        except BaseException as error:
            executor.cancel_all()
            reason = f"{type(error).__name__}: {error}"
            _leave(store, job_id, state, reason)
            raise
        executor.cancel_all()
        return store.leave_job(job_id, state, reason)


def _leave(store: Store, job_id: str, state: JobState, reason: str) -> None:
    """Leave a job after an error, which must not be hidden by that of a store that is gone."""
    try:
        store.leave_job(job_id, state, reason)
    except (StoreError, TakenOver) as error:
        log.warning("the end of job %s could not be written: %s", job_id, error)


class _Watched:
    """Passes progress on to an observer, and tells it what is waited for in between.

    What a large job's progress costs to put together is bounded to a share of the time: it is not
    told of every change then.
    """

    def __init__(self, observer: Observer | None) -> None:
        self._observer = observer
        self._last: Progress | None = None
        self._next = 0.0

    def look(self, made: Callable[[], Progress], *, always: bool = False) -> None:
        """Something has changed; `made` puts the progress together."""
        began = time.monotonic()
        if self._observer is None or (began < self._next and not always):
            return
        self._last = made()
        took = time.monotonic() - began
        self._next = began + (took / WATCHING if took > QUICK else 0.0)
        self._observer(self._last)

    def wait_for(self, what: str) -> None:
        """Called again and again while it is waited for."""
        log.info("waiting for %s", what)
        if self._observer is not None and self._last is not None:
            self._observer(replace(self._last, waiting_for=what))


def _search(
    store: Store,
    job: Job,
    executor: Executor,
    watched: _Watched,
    stop: threading.Event,
    trace: int,
) -> tuple[JobState, str]:
    """The loop. Returns the job's new state and why."""
    ledger = Ledger(store, job)
    deadline = _deadline(job)
    no_more = ""  # why no candidate is made after the last one
    next_look = 0.0
    cancelled = _cancel_order(store, job.id)

    def ending() -> tuple[JobState, str] | None:
        """How the search ends before its time, if it does."""
        if cancelled():
            return "cancelled", ""
        if stop.is_set():
            return "interrupted", "stopped by the user"
        if time.monotonic() > deadline:
            return "interrupted", f"the limit of {job.spec.limits.job_hours:g} hours was reached"
        why = ledger.broken_baseline()
        return ("failed", why) if why else None

    def progress() -> Progress:
        return snapshot(job, ledger, executor.slots(), executor.lacks())

    def turn(patience: float) -> None:
        """Hands out what is due, takes what has ended, decides. None of it steers a drawing."""
        nonlocal next_look
        free = executor.slots() + MARGIN - len(ledger.running)
        for key, spec in ledger.hand_out(free):
            executor.submit(key, spec)
        # what was found done may let others start: no time to wait then
        ledger.finish(executor.wait(0.0 if ledger.reused else patience))
        ledger.decide()
        watched.look(progress)
        next_look = time.monotonic() + PATIENCE

    def stopped() -> bool:
        """Asked every few draws, which can take minutes: the trials go on meanwhile."""
        if time.monotonic() >= next_look:
            turn(0.0)
        return ending() is not None

    ledger.decide()
    while not ledger.finished:
        if (end := ending()) is not None:
            return end
        if asking := ledger.may_ask():
            for seen in ledger.news():
                job.searcher.tell(seen)
            draws = Draws(keep=trace)
            if no_more := ledger.spent():
                ledger.end_at(ledger.next - 1)
            else:
                try:
                    ledger.add(_make(job, ledger, draws, stopped), draws)
                except NothingNew as error:
                    ledger.end_at(ledger.next - 1)
                    no_more = str(error)
                except CalibrationError as error:
                    return "failed", str(error)
                except Stopped:
                    continue
        elif ledger.searched:
            ledger.add_rivals()
        turn(0.0 if asking else PATIENCE)
    watched.look(progress, always=True)
    ledger.close()
    why = ledger.fruitless()
    return "failed" if why else "done", "; ".join(filter(None, (why, no_more)))


def _make(job: Job, ledger: Ledger, draws: Draws, stopped: Callable[[], bool]) -> CandidateRecord:
    """The next candidate: the baseline, then whatever the searcher finds."""
    index = ledger.next
    if index == 0:
        return baseline_record(job.baseline)
    rng = generator(job.spec.seed, index)
    return find_candidate(
        index,
        job.searcher.ask(index, rng),
        job.problem,
        rng,
        known=ledger.known,
        draws=draws,
        max_draws=job.spec.funnel.verify.max_draws,
        first_stage=job.stages.first,
        stopped=stopped,
        filters=Filters(job.spec.funnel.verify),
        same=ledger.same.find,
        calibration=job.calibration,
    )


def _cancel_order(store: Store, job_id: str) -> Callable[[], bool]:
    """Tells whether somebody has asked for the end of a job; asks the store now and then."""
    due, ordered = 0.0, False

    def ask() -> bool:
        nonlocal due, ordered
        if time.monotonic() >= due:
            ordered = store.job_state(job_id) in ("cancelling", "cancelled")
            due = time.monotonic() + ASK_AGAIN
        return ordered

    return ask


def _deadline(job: Job) -> float:
    """When this run of the job has to stop, on the clock of `time.monotonic`."""
    hours = job.spec.limits.job_hours
    return float("inf") if hours is None else time.monotonic() + 3600 * hours


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; the second one ends the program at once."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
