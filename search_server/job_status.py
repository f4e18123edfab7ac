"""How a job is: its row and counts in the store, and what Ray says of its newest attempt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, select

from search_server.attempts import newest, runs_here, seen
from search_server.overview import JobSummary, summary
from search_server.store import JobRecord, Store, SubmissionRecord, owner
from search_server.store.models import TrialCount
from search_server.store.records import TRIAL_STATES


@dataclass(frozen=True)
class JobStatus:
    """One job now.

    Attributes:
        trials: how many there are by state, without the states that none is in.
        runs: where its controller is, for people.
        attempt: the newest one on a cluster; None: it was never submitted.
        ray: what Ray calls that attempt: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED; None: it
            does not know it, or does not answer.
        note: what is wrong, for people; empty if nothing is.
    """

    summary: JobSummary
    trials: Mapping[str, int]
    runs: str
    attempt: SubmissionRecord | None
    ray: str | None
    note: str


def job_status(store: Store, job_id: str) -> JobStatus:
    """All that is known of a job. A cluster that does not answer is a note.

    Raises:
        JobError: no such job.
    """
    job = store.job(job_id)
    told = summary(store, job_id)
    count = func.sum(TrialCount.count)
    query = select(TrialCount.state, count).group_by(TrialCount.state)
    query = query.where(TrialCount.job_id == job_id, TrialCount.count > 0)
    with store.reading() as session:
        found = {str(row[0]): int(row[1]) for row in session.execute(query)}
    trials = {state: found[state] for state in TRIAL_STATES if state in found}
    attempt = newest(store, job_id)
    looked = None if attempt is None else seen(store, attempt)
    note = "" if looked is None else looked.trouble
    active = job.state in ("running", "cancelling")
    gone = job.owner is None or not (owner.elsewhere(job.owner) or runs_here(job))
    if looked is not None and not looked.trouble and not looked.live:
        gone = not runs_here(job)
    if active and gone:
        todo = "cancel" if job.state == "cancelling" else "resume"
        note = f"its controller is gone; lossforge {todo} {job_id}"
    elif looked is not None and job.state == "created" and not looked.live and not note:
        note = f"its controller never began; lossforge logs {job_id} says why"
    return JobStatus(
        told, trials, _where(job), attempt, None if looked is None else looked.status, note
    )


def _where(job: JobRecord) -> str:
    if job.owner is None:
        return "nowhere"
    host, pid, _ = job.owner.rsplit(" ", 2)
    if owner.elsewhere(job.owner):
        return f"as process {pid} on {host}"
    return f"as process {pid} of this machine" + (", which is gone" * (not runs_here(job)))
