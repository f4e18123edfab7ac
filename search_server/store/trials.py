"""Trials: a row before they start, and again when they have ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import defer

from search_server.errors import JobError
from search_server.store import convert, lookup, models
from search_server.store.moves import TRIAL_MOVES, check_move
from search_server.store.records import Stage, TrialRecord
from search_server.store.sessions import Sessions, now

if TYPE_CHECKING:
    from workers import TrialResult


class Trials(Sessions):
    """The store's methods about trials."""

    def start_trial(
        self, job_id: str, candidate: int, stage: Stage, seed: int, spec_key: str
    ) -> None:
        """Write a trial's row before it starts; one left `running` by a dead process starts anew.

        Raises:
            IllegalMove: the trial has ended already.
            JobError: no such candidate.
        """
        with self.changing() as session:
            lookup.candidate(session, job_id, candidate)
            row = session.get(models.Trial, (job_id, candidate, stage, seed))
            if row is None:
                row = models.Trial(
                    job_id=job_id, candidate=candidate, stage=stage, seed=seed, state="running"
                )
                row.reason = ""
                session.add(row)
            check_move(TRIAL_MOVES, _trial(job_id, candidate, stage, seed), row.state, "running")
            row.spec_key, row.started_at = spec_key, now()

    def finish_trial(
        self, job_id: str, candidate: int, stage: Stage, seed: int, result: TrialResult
    ) -> None:
        """Write how a started trial ended.

        Raises:
            IllegalMove: it has ended already.
            JobError: it was never started.
        """
        what = _trial(job_id, candidate, stage, seed)
        with self.changing() as session:
            row = session.get(models.Trial, (job_id, candidate, stage, seed), with_for_update=True)
            if row is None:
                raise JobError(f"{what} was never started")
            check_move(TRIAL_MOVES, what, row.state, result.status)
            row.state, row.finished_at = result.status, now()
            for column, value in convert.result_columns(result).items():
                setattr(row, column, value)

    def trials(
        self, job_id: str, candidate: int | None = None, *, curves: bool = True
    ) -> list[TrialRecord]:
        """Trials of a job, or of one candidate, by candidate, stage (cheapest first) and seed.

        Args:
            curves: False leaves the curves in the database; they are most of a trial's bytes.
        """
        row = models.Trial
        query = select(row).where(row.job_id == job_id)
        if candidate is not None:
            query = query.where(row.candidate == candidate)
        if not curves:
            query = query.options(defer(row.curves, raiseload=True))
        with self.reading() as session:
            lookup.job(session, job_id)
            found = session.scalars(query.order_by(row.candidate, row.stage.desc(), row.seed))
            return [convert.trial_record(trial, curves) for trial in found]


def _trial(job_id: str, candidate: int, stage: str, seed: int) -> str:
    return f"trial {job_id}:{candidate} {stage} seed {seed}"
