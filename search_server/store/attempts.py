"""Who runs a job: its attempts on Ray clusters, the end of a run, the wish to cancel it."""

from __future__ import annotations

from datetime import datetime
from typing import cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from search_server.errors import IllegalMove
from search_server.store import convert, lookup, models
from search_server.store.moves import JOB_MOVES, check_move
from search_server.store.records import JobState, SubmissionRecord
from search_server.store.sessions import Sessions, clock, now, outlasting
from search_server.store.trials import cancel_trials

CANCELLED_BY_USER = "cancelled by the user"


class Attempts(Sessions):
    """The store's methods about runs of jobs."""

    @outlasting
    def add_submission(
        self, job_id: str, attempt: int, address: str, after: int
    ) -> SubmissionRecord | None:
        """Note an attempt that is about to be submitted as `JOB-a<attempt>`.

        Of several that submit a job at once only one gets a record; for the others it is None,
        since the newest attempt is no longer the one they looked at.

        Args:
            address: of the cluster's Jobs API.
            after: the newest attempt that the caller knows of; 0: none.

        Raises:
            JobError: no such job.
        """
        row = models.Submission
        with self.changing() as session:
            lookup.job(session, job_id, lock=True)
            newest = select(row.attempt).where(row.job_id == job_id).order_by(row.attempt.desc())
            if (session.scalar(newest.limit(1)) or 0) != after:
                return None
            made = row(
                job_id=job_id,
                attempt=attempt,
                submission_id=f"{job_id}-a{attempt}",
                address=convert.plain(address),
                created_at=clock(session),
            )
            session.add(made)
            session.flush()
            return convert.submission_record(made)

    @outlasting
    def drop_submission(self, job_id: str, attempt: int) -> None:
        """Forget an attempt that the cluster did not take."""
        with self.changing() as session:
            row = session.get(models.Submission, (job_id, attempt))
            if row is not None:
                session.delete(row)

    @outlasting
    def submissions(self, job_id: str) -> list[SubmissionRecord]:
        """A job's attempts on clusters, the first one first."""
        row = models.Submission
        query = select(row).where(row.job_id == job_id).order_by(row.attempt)
        with self.reading() as session:
            return [convert.submission_record(found) for found in session.scalars(query)]

    @outlasting
    def clock(self) -> datetime:
        """The present time by the clock that `SubmissionRecord.created_at` was told by."""
        with self.reading() as session:
            return clock(session)

    @outlasting
    def job_state(self, job_id: str) -> JobState | None:
        """The state alone, which a controller asks for every second; None: no such job."""
        with self.reading() as session:
            query = select(models.Job.state).where(models.Job.id == job_id)
            return cast(JobState | None, session.scalar(query))

    @outlasting
    def request_cancel(self, job_id: str) -> JobState:
        """Ask for the end of a job for good; returns its new state.

        One that runs is `cancelling` until its controller has obeyed; others are `cancelled`.

        Raises:
            JobError: no such job.
            IllegalMove: it is done.
        """
        with self.changing() as session:
            job = lookup.job(session, job_id, lock=True)
            if job.state in ("cancelling", "cancelled"):
                return cast(JobState, job.state)
            state: JobState = "cancelling" if job.state == "running" else "cancelled"
            check_move(JOB_MOVES, f"job {job_id}", job.state, state)
            job.state = state
            if state == "cancelled":
                _end(session, job, CANCELLED_BY_USER)
            return state

    @outlasting
    def leave_job(self, job_id: str, state: JobState, reason: str = "") -> JobState:
        """How a run of a job ended; returns the job's new state.

        It is `cancelled` whatever `state` says if somebody has asked for that meanwhile.

        Raises:
            JobError: no such job.
            IllegalMove: the move is not in `moves.JOB_MOVES`.
        """
        with self.changing(job_id, self._leases.ending(job_id)) as session:
            job = lookup.job(session, job_id, lock=True)
            if job.state == "cancelled":
                cancel_trials(session, job)  # that were begun before this process heard of it
                return "cancelled"
            if job.state == "cancelling" or state == "cancelled":
                state, reason = "cancelled", CANCELLED_BY_USER
            check_move(JOB_MOVES, f"job {job_id}", job.state, state)
            job.state = state
            _end(session, job, reason)
            return state

    @outlasting
    def finish_cancelling(self, job_id: str, reason: str) -> None:
        """Move a job whose controller is gone from `cancelling` to `cancelled`.

        Raises:
            JobError: no such job.
            IllegalMove: nobody has asked for it.
        """
        with self.changing() as session:
            job = lookup.job(session, job_id, lock=True)
            if job.state == "cancelled":
                return
            if job.state != "cancelling":
                raise IllegalMove(f"job {job_id}", job.state, "cancelled", ())
            job.state = "cancelled"
            _end(session, job, reason)


def _end(session: Session, job: models.Job, reason: str) -> None:
    """What is written of a run's end besides the job's new state."""
    job.reason, job.owner, job.finished_at = convert.plain(reason), None, now()
    if job.state == "cancelled":
        cancel_trials(session, job)
