"""What a submitter may order: a new job, the end of one, going on with one. None of it waits for a
controller: the reconciler sees to that."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable

from search_server.attempts import newest, runs_here
from search_server.service.access import Caller
from search_server.service.problems import Problem
from search_server.service.state import Service
from search_server.spec import JobSpec
from search_server.store import JobRecord, owner
from search_server.store.requests import Asked

log = logging.getLogger(__name__)


def submit(
    service: Service, caller: Caller, spec: Callable[[], JobSpec], key: str | None
) -> tuple[str, bool]:
    """A job from a spec, which is written and will be run; returns its id, and whether it is new.

    Args:
        spec: gives the spec that was admitted; not called where the key is known.
        key: drawn by the caller; the job that they submitted with it before is returned.

    Raises:
        Problem: 422, the spec cannot be used; 429, too many jobs wait; 503.
    """
    store = service.store
    kept = None if key is None else own_key(caller, key)
    if kept is not None and (before := store.request_with(kept)) is not None:
        return before.job_id, False
    most = service.settings.bounds.waiting_jobs
    if store.waiting_requests() >= most:
        raise Problem(
            429, f"{most} jobs are waiting already; cancel some", headers={"Retry-After": "60"}
        )
    job = service.checker.job(spec())
    from search_server.jobs import write_job  # loaded by the checker

    job_id = write_job(store, job, Asked(caller.name, kept))
    log.info("job %s was submitted by %a", job_id, caller.name)
    service.wake()
    return job_id, True


def own_key(caller: Caller, key: str) -> str:
    """The key as the store has it: nobody hits upon the job of somebody else."""
    return hashlib.sha256(f"{caller.name}\0{key}".encode("utf-8", "replace")).hexdigest()


def cancel(service: Service, caller: Caller, job_id: str) -> None:
    """Ask for the end of a job.

    Raises:
        IllegalMove: it is done.
    """
    state = service.store.request_cancel(job_id)
    # What does not obey, and what waits at a cluster, is ended by the reconciler.
    service.store.reopen_request(job_id, caller.name)
    log.info("job %s is %s, as ordered by %a", job_id, state, caller.name)
    service.wake()


def resume(service: Service, caller: Caller, job_id: str, *, force: bool = False) -> None:
    """Have a job go on that does not run.

    Raises:
        Problem: 409, it is at its end, or runs, or may run.
    """
    job = service.store.job(job_id)
    if job.state in ("done", "cancelled", "cancelling"):
        raise Problem(409, f"job {job_id} is {job.state} and cannot go on")
    if job.state == "running" and not force:
        _refuse_running(service, job)
    service.store.reopen_request(job_id, caller.name)
    log.info("job %s is to go on, as ordered by %a", job_id, caller.name)
    service.wake()


def _refuse_running(service: Service, job: JobRecord) -> None:
    """Raises: Problem, 409."""
    if runs_here(job):
        raise Problem(409, f"job {job.id} runs")
    if job.owner is None or not owner.elsewhere(job.owner):
        return
    if newest(service.store, job.id) is None:
        raise Problem(
            409,
            f"job {job.id} runs on another machine, which cannot be asked; if that is gone, "
            "resume it with force",
        )
