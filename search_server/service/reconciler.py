"""Sees to it that the jobs which were submitted through a service run, and end when they should.

Whatever it knows is in the store, so a service may be killed at any point: the next one, or another
one beside it, goes on. Jobs that were not submitted through a service are none of its business.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field

from search_server import attempts
from search_server.errors import SearchError, StoreAway
from search_server.service.problems import told
from search_server.service.runner import Runner, Started
from search_server.service.settings import Runs
from search_server.service.standing import Decision, Standing, decide
from search_server.store import JobRecord, Store, owner
from search_server.store.records import RequestRecord

log = logging.getLogger(__name__)

TURN_SECONDS = 2.0
AGAIN_SECONDS = 20.0
ASK_SECONDS = 10.0
WAITS = "it waits for its turn: others run"
OBEY_SECONDS = 30.0  # that a controller is given to end a job that is being cancelled


@dataclass
class Reconciler:
    """Looks after the requests of a store, in a thread of its own.

    Attributes:
        starting: seconds that a controller is given to reach the store; for so long no other
            service starts one, even if this one is killed.
        every: seconds between two looks.
        again: seconds until a start that was refused, by a cluster that is away, is tried again.
        ask_again: seconds until a cluster is asked again how a job is.
    """

    store: Store
    runner: Runner
    runs: Runs
    starting: float = 120.0
    every: float = TURN_SECONDS
    again: float = AGAIN_SECONDS
    ask_again: float = ASK_SECONDS
    _name: str = field(default_factory=owner.mark)
    _started: dict[str, Started] = field(default_factory=dict)
    _not_yet: dict[str, float] = field(default_factory=dict)
    _asked: dict[str, tuple[float, str]] = field(default_factory=dict)
    _ordered: dict[str, float] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _wake: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._loop, name="reconciler", daemon=True)
        self._thread.start()

    def stop(self, patience: float = 5.0) -> None:
        """End, after what is being done at the moment."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(patience)

    def wake(self) -> None:
        """Look at once: something was ordered."""
        self._wake.set()

    def turn(self) -> None:
        """See to every open request once, the oldest first.

        Raises:
            SearchError: the store does not answer.
        """
        active = 0
        requests = self.store.open_requests()
        for request in requests:
            if self._stop.is_set():
                return
            active += self._see_to(request, room=active < self.runs.at_once)
        known = {request.job_id for request in requests}
        for job_id, process in list(self._started.items()):
            if process.poll() is not None and job_id not in known:
                del self._started[job_id]

    def _loop(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                self.turn()
            except StoreAway as error:
                log.warning("the store is away: %s", error)
            except Exception:  # the next turn may do better; without this thread nothing runs
                log.exception("the jobs could not be seen to")
            self._wake.wait(self.every)

    def _see_to(self, request: RequestRecord, *, room: bool) -> bool:
        """Do what is due for one job; returns whether it takes one of the places of those that run
        at a time."""
        job = self.store.job(request.job_id)
        standing = self._standing(job, request)
        decision = decide(standing, self.runs.tries)
        try:
            return self._carry_out(job, request, standing, decision, room=room)
        except StoreAway:
            raise
        except SearchError as error:
            log.warning("job %s: %s", job.id, error)
            self.store.note_request(job.id, note=told(str(error), 500))
            return standing.occupied
        except Exception:  # one job must not keep the others from being seen to
            log.exception("job %s could not be seen to", job.id)
            return standing.occupied

    def _standing(self, job: JobRecord, request: RequestRecord) -> Standing:
        process = self._started.get(job.id)
        status = None if process is None else process.poll()
        if status is not None:
            del self._started[job.id]
        begins = process is not None and status is None
        if not begins and request.held_by not in (None, self._name):
            held = request.held_until
            begins = held is not None and held > self.store.clock()
        return Standing(job.state, job.reason, request.tries, self._controller(job), begins, status)

    def _controller(self, job: JobRecord) -> str:
        """Whether a job's controller lives: `live`, `gone`, or `unknown`."""
        if attempts.runs_here(job):
            return "live"
        # One that is known to be dead may have a successor on a cluster, which has not begun yet.
        otherwise = "gone"
        if job.owner is not None and owner.elsewhere(job.owner):
            otherwise = "unknown"
        attempt = attempts.newest(self.store, job.id)
        if attempt is None:
            return otherwise
        at, found = self._asked.get(job.id, (0.0, ""))
        if time.monotonic() > at:  # clusters are asked less often than the store
            seen = attempts.seen(self.store, attempt)
            if seen.trouble:
                found = "unknown" if job.owner is None else otherwise
            else:
                found = "live" if seen.live else "gone"
            self._asked[job.id] = (time.monotonic() + self.ask_again, found)
        return found

    def _carry_out(
        self,
        job: JobRecord,
        request: RequestRecord,
        standing: Standing,
        decision: Decision,
        *,
        room: bool,
    ) -> bool:
        """Returns: see `_see_to`."""
        if decision.action == "settle":
            self._forget(job.id)
            if decision.interrupt:
                self.store.set_job_state(job.id, "interrupted", decision.note)
            self.store.note_request(job.id, note=decision.note, settled=True)
            return False
        if decision.action == "end":
            self._end(job, gone=standing.controller == "gone")
            return True
        if standing.begins or self._not_yet.get(job.id, 0.0) > time.monotonic():
            return standing.occupied
        if decision.action == "leave" or not room:
            note = decision.note if decision.action == "leave" else WAITS
            if note != request.note:
                self.store.note_request(job.id, note=note, keep=True)
            return standing.occupied
        return self._start(job, decision)

    def _start(self, job: JobRecord, decision: Decision) -> bool:
        """Start a controller, unless another service does at this moment."""
        if not self.store.hold_request(job.id, self._name, self.starting):
            return True
        # Noted first: a service that is killed here has tried, and nobody tries for a while.
        self.store.note_request(job.id, note=decision.note, tried=1, keep=True)
        log.info("job %s: its controller is started", job.id)
        self._asked.pop(job.id, None)
        try:
            process = self.runner.start(job.id)
        except SearchError as error:
            self._not_yet[job.id] = time.monotonic() + self.again
            log.warning("job %s: %s", job.id, error)
            self.store.note_request(job.id, note=told(str(error), 500), tried=-1)
            return False
        if process is not None:
            self._started[job.id] = process
        return True

    def _end(self, job: JobRecord, *, gone: bool) -> None:
        """End a job for good, if need be against the will of its controller."""
        began = self._ordered.setdefault(job.id, time.monotonic())
        if not gone and time.monotonic() - began < OBEY_SECONDS:
            return
        if self.store.hold_request(job.id, self._name, self.starting):
            how = attempts.cancel(self.store, job.id, 0.0)
            log.info("job %s is cancelled: %s", job.id, how)
            self.store.note_request(job.id, settled=True)
            self._forget(job.id)

    def _forget(self, job_id: str) -> None:
        self._ordered.pop(job_id, None)
        self._not_yet.pop(job_id, None)
        self._asked.pop(job_id, None)
        process = self._started.get(job_id)
        if process is not None and process.poll() is not None:
            del self._started[job_id]
