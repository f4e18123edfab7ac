"""Jobs: created, moved between states, listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select, text

from search_server.errors import JobError
from search_server.rounds import Rounds
from search_server.store import convert, lookup, models, owner, totals
from search_server.store.moves import JOB_MOVES, check_move
from search_server.store.records import JobRecord, JobState
from search_server.store.requests import Asked, new_request
from search_server.store.sessions import Sessions, clock, now, outlasting
from search_server.store.trials import cancel_trials


class Jobs(Sessions):
    """The store's methods about jobs."""

    def create_job(
        self,
        name: str,
        spec: Mapping[str, Any],
        detector: str,
        classes: Sequence[str],
        trial_group: str = "",
        request: Asked | None = None,
    ) -> str:
        """A new job in state `created`; returns its id, `<slug of the name>-<n>`.

        Args:
            spec: the job spec as plain JSON.
            detector: text of the detector's config, self-contained.
            trial_group: see `leaderboard.trial_group`.
            request: who submits it through the service, which sees to it from then on. If a job
                was created with its key already, that one is returned.
        """
        slug = convert.slug_of(name)
        with self.changing() as session:
            if session.get_bind().dialect.name == "postgresql":  # SQLite has one writer at a time
                session.execute(text("LOCK TABLE jobs IN SHARE ROW EXCLUSIVE MODE"))
            if request is not None and request.key is not None:
                key = models.Request.key == request.key
                if (before := session.scalar(select(models.Request.job_id).where(key))) is not None:
                    return before
            serial = session.scalar(select(func.max(models.Job.serial))) or 0
            same = select(func.max(models.Job.number)).where(models.Job.slug == slug)
            number = (session.scalar(same) or 0) + 1
            of_group = select(func.min(models.Job.serial)).where(
                models.Job.trial_group == trial_group
            )
            board = session.scalar(of_group) if trial_group else None
            rounds = Rounds.of_spec(spec)
            job = models.Job(
                id=f"{slug}-{number}",
                serial=serial + 1,
                slug=slug,
                number=number,
                name=convert.plain(name),
                state="created",
                reason="",
                spec=convert.storable(spec),
                detector=convert.plain(detector),
                classes=[convert.plain(name) for name in classes],
                trial_group=trial_group,
                owner=None,
                created_at=now(),
                board=serial + 1 if board is None else board,
                rounds=None if rounds is None else rounds.count,
                samples=None if rounds is None else rounds.samples,
            )
            session.add(job)
            session.flush()  # the totals refer to it
            session.add(totals.none_yet(job.id))
            if request is not None:
                session.add(new_request(job.id, request.key, request.by, clock(session)))
            return job.id

    @outlasting
    def job(self, job_id: str) -> JobRecord:
        """The job of this id.

        Raises:
            JobError: there is none; the message lists some that there are.
        """
        with self.reading() as session:
            return convert.job_record(lookup.job(session, job_id))

    @outlasting
    def jobs(self) -> list[JobRecord]:
        """All jobs, oldest first."""
        with self.reading() as session:
            rows = session.scalars(select(models.Job).order_by(models.Job.serial))
            return [convert.job_record(row) for row in rows]

    @outlasting
    def latest_job(self) -> JobRecord:
        """The job created last.

        Raises:
            JobError: there is none.
        """
        newest = select(models.Job).order_by(models.Job.serial.desc()).limit(1)
        with self.reading() as session:
            row = session.scalar(newest)
            if row is None:
                raise JobError(f"there are no jobs in {self.url}; start one: lossforge search SPEC")
            return convert.job_record(row)

    @outlasting
    def set_job_state(self, job_id: str, state: JobState, reason: str = "") -> None:
        """Move a job; to `running` also marks this process as the one that runs it.

        Raises:
            IllegalMove: the move is not in `moves.JOB_MOVES`.
            JobError: no such job, or another live process on this host runs it.
        """
        running = state == "running"
        seal = self._leases.taking(job_id) if running else self._leases.ending(job_id)
        with self.changing(job_id, seal) as session:
            job = lookup.job(session, job_id, lock=True)
            check_move(JOB_MOVES, f"job {job_id}", job.state, state)
            if job.state == "running":
                _check_free(job)
            job.state, job.reason = state, convert.plain(reason)
            job.owner = owner.mark() if state == "running" else None
            if state == "running":
                job.started_at = job.started_at or now()
                job.finished_at = None
            else:
                job.finished_at = now()
            if state == "cancelled":
                cancel_trials(session, job)

    @outlasting
    def hold_job(self, job_id: str) -> None:
        """Mark this process as the one that works on a job, whose state stays as it is.

        Raises:
            JobError: no such job, or another live process on this host works on it.
        """
        with self.changing() as session:
            job = lookup.job(session, job_id, lock=True)
            _check_free(job)
            job.owner = owner.mark()

    @outlasting
    def release_job(self, job_id: str) -> None:
        """Take back the mark of `hold_job`, if it is this process's.

        Raises:
            JobError: no such job.
        """
        with self.changing() as session:
            job = lookup.job(session, job_id, lock=True)
            if job.owner == owner.mark():
                job.owner = None


def _check_free(job: models.Job) -> None:
    """Whether no other process on this host works on a job.

    Raises:
        JobError: one does.
    """
    if owner.alive(job.owner):
        raise JobError(
            f"job {job.id} is being run by process {owner.pid_of(job.owner or '')}; "
            "wait for it, or stop it with Ctrl-C there, then resume the job"
        )
