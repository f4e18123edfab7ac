"""Whether a job's controller lives, and how to end it: its process here, its attempt at Ray."""

from __future__ import annotations

import time
from dataclasses import dataclass

from search_server.cluster import LIVE, Cluster
from search_server.errors import JobError
from search_server.store import JobRecord, Store, SubmissionRecord, owner

UNHEARD_SECONDS = 60.0  # between the claim of an attempt and Ray's knowing of it
LOOK_SECONDS = 0.3
STOP_SECONDS = 20.0  # Ray ends what it stops after 3 s
GRACE_SECONDS = 5.0  # for the last write of a controller that has just ended


@dataclass(frozen=True)
class Seen:
    """What is known of an attempt now.

    Attributes:
        status: Ray's word; None: Ray knows no such attempt, or does not answer.
        seconds: since its claim, by the store's clock: it may have been made on another machine.
        trouble: why nothing is known; empty if Ray has answered.
    """

    attempt: SubmissionRecord
    status: str | None
    seconds: float
    trouble: str = ""

    @property
    def live(self) -> bool:
        """Whether it runs, will run, or has only just been claimed."""
        if self.status is not None:
            return self.status in LIVE
        return not self.trouble and self.seconds < UNHEARD_SECONDS


def seen(store: Store, attempt: SubmissionRecord) -> Seen:
    """What Ray says of an attempt; trouble is told, not raised."""
    seconds = (store.clock() - attempt.created_at).total_seconds()
    try:
        return Seen(attempt, Cluster(attempt.address).status(attempt.submission_id), seconds)
    except JobError as error:
        return Seen(attempt, None, seconds, str(error))


def newest(store: Store, job_id: str, attempt: int | None = None) -> SubmissionRecord | None:
    """A job's attempt of this number, or its newest one; None: it was never submitted.

    Raises:
        JobError: it has no attempt of this number.
    """
    found = store.submissions(job_id)
    if attempt is None:
        return found[-1] if found else None
    for each in found:
        if each.attempt == attempt:
            return each
    has = ", ".join(str(each.attempt) for each in found) or "none"
    raise JobError(f"job {job_id} has no attempt {attempt} on a cluster; it has {has}")


def runs_here(job: JobRecord) -> bool:
    """Whether the job's controller is a live process of this machine."""
    return owner.alive(job.owner)


def live_attempt(store: Store, job: JobRecord, force: bool = False) -> SubmissionRecord | None:
    """The job's newest attempt, if it is live.

    Raises:
        JobError: Ray does not answer and the job may run; not with `force`.
    """
    attempt = newest(store, job.id)
    if attempt is None:
        return None
    found = seen(store, attempt)
    if found.trouble and job.state == "running" and not force:
        if job.owner is not None and not owner.elsewhere(job.owner) and not runs_here(job):
            return None
        raise JobError(
            f"job {job.id} was submitted as {attempt.submission_id}, which may still run: "
            f"{found.trouble}. If that cluster is gone, give --force"
        )
    return attempt if found.live else None


def cancel(store: Store, job_id: str, patience: float) -> str:
    """End a job for good; returns how, for people. Results stay.

    The controller obeys the store. Where it does not within `patience` seconds, or is gone, its
    attempt at Ray is stopped, and the job's row says so.

    Raises:
        JobError: no such job, or a process of this machine does not obey.
        IllegalMove: it is done.
    """
    state = store.request_cancel(job_id)
    attempt = newest(store, job_id)
    if state == "cancelled":
        stopped = attempt is not None and _stop(attempt)
        return "it did not run" + ", its attempt at Ray is stopped" * stopped
    if _obeyed(store, job_id, attempt, patience):
        return "its controller has obeyed"
    job = store.job(job_id)
    if attempt is None or runs_here(job):
        stopped = attempt is not None and _stop(attempt)
        job = _ended(store, job_id, STOP_SECONDS if stopped else 0.0)
        if job.state == "cancelled":
            return "its controller has obeyed"
        if runs_here(job):
            pid = owner.pid_of(job.owner or "")
            raise JobError(
                f"job {job_id} is cancelling, but process {pid} of this machine has not obeyed in "
                f"{patience:g} s; end it (kill {pid}), then: lossforge cancel {job_id}"
            )
    else:
        stopped = _stop(attempt)
    how = "its attempt at Ray was stopped" if stopped else "its controller was gone"
    store.finish_cancelling(job_id, f"cancelled by the user; {how}")
    return how


def _obeyed(store: Store, job_id: str, attempt: SubmissionRecord | None, patience: float) -> bool:
    """Whether the controller ends the job in time; not waited for if it is gone."""
    deadline = time.monotonic() + patience
    next_look = time.monotonic() + GRACE_SECONDS / 2
    while True:
        job = store.job(job_id)
        if job.state == "cancelled":
            return True
        if job.owner is None or not (owner.elsewhere(job.owner) or runs_here(job)):
            return False
        if attempt is not None and owner.elsewhere(job.owner) and time.monotonic() >= next_look:
            found = seen(store, attempt)
            if not found.trouble and not found.live:
                time.sleep(min(GRACE_SECONDS, max(0.0, deadline - time.monotonic())))
                return store.job_state(job_id) == "cancelled"
            next_look = time.monotonic() + GRACE_SECONDS / 2
        if time.monotonic() >= deadline:
            return False
        time.sleep(LOOK_SECONDS)


def _ended(store: Store, job_id: str, patience: float) -> JobRecord:
    """The job, once its process of this machine has ended; Ray does not wait until a process that
    it kills is gone."""
    deadline = time.monotonic() + patience
    while True:
        job = store.job(job_id)
        if job.state == "cancelled" or not runs_here(job) or time.monotonic() >= deadline:
            return job
        time.sleep(LOOK_SECONDS)


def _stop(attempt: SubmissionRecord) -> bool:
    """Stop an attempt that is live, and wait for its end; whether there was one to stop."""
    try:
        cluster = Cluster(attempt.address)
        if cluster.status(attempt.submission_id) not in LIVE:
            return False
        cluster.stop(attempt.submission_id)
        deadline = time.monotonic() + STOP_SECONDS
        while cluster.status(attempt.submission_id) in LIVE and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
    except JobError:
        return False
    return True
