"""Trials: a row before they start, again when they are paused, and when they have ended.

A trial that is due names by `trained_key` what it would train: the same for two trials of any jobs
that differ in nothing but rounding. The row that trains it holds the key, and the key is unique:

    - Where the holder has ended, or passed the rung that is asked for, its result is taken over.
    - Where the holder runs in a live job, the trial waits. A running trial ends, so nobody waits
      for ever; for a paused one, whose going on may depend on others, nobody waits.
    - Else (its job was killed or interrupted, or it is paused before that) the key moves.
    - A trial that was lost (failed, out of time or memory) gives its key up: that says nothing
      about the loss. So does one that needed a smaller batch: it is not what the key names.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, select, text
from sqlalchemy.orm import Session, defer

from search_server.errors import JobError
from search_server.store import convert, gains, lookup, models, owner, totals
from search_server.store.moves import TRIAL_MOVES, check_move
from search_server.store.records import METRICS, PHASES, STAGES, Stage, Start, TrialRecord
from search_server.store.sessions import Sessions, clock, outlasting
from workers.result import LOST

if TYPE_CHECKING:
    from workers import TrialResult

Place = tuple[int, Stage, int]  # candidate, stage, seed
REMOTE_PATIENCE = timedelta(hours=1)
"""How long a trial of a job on another host, whose process cannot be looked for, is waited for."""
_IN_ORDER = case({stage: number for number, stage in enumerate(STAGES)}, value=models.Trial.stage)


class Trials(Sessions):
    """The store's methods about trials."""

    @outlasting
    def start_trial(
        self,
        job_id: str,
        candidate: int,
        stage: Stage,
        seed: int,
        spec_key: str,
        trained_key: str | None = None,
        pause_after: int | None = None,
        running: Container[Place] = (),
    ) -> Start:
        """Write a trial's row before it starts, or find that it need not start.

        One that a dead process left `running` starts anew, one that is paused goes on.

        Args:
            trained_key: what would be trained, hex; None: whether it was before is not asked.
            pause_after: the rung in steps at which this run of the trial is to be paused.
            running: the trials of this job that this process runs at the moment.

        Returns:
            Whether to train it. If it is to wait, nothing was written.

        Raises:
            IllegalMove: the trial has ended already.
            JobError: no such candidate.
        """
        with self.changing(job_id) as session:
            lookup.candidate(session, job_id, candidate)
            row = session.get(models.Trial, (job_id, candidate, stage, seed))
            if row is not None:
                what = _trial(job_id, candidate, stage, seed)
                check_move(TRIAL_MOVES, what, row.state, "running")
            before = None if row is None else row.state
            holder = _holder(session, trained_key, row)
            taken = None if holder is None else _taken(holder, pause_after)
            if holder is not None and taken is None and _runs(session, holder, job_id, running):
                return Start("wait")
            if row is None:
                row = models.Trial(job_id=job_id, candidate=candidate, stage=stage, seed=seed)
                row.state, row.reason = "running", ""
                session.add(row)
            row.spec_key, row.started_at = spec_key, clock(session)
            if holder is None or taken is None:
                if holder is not None:
                    holder.trained_key = None
                    session.flush()  # the key is free before it is taken
                row.state, row.trained_key, row.reused_from = "running", trained_key, None
                _count(session, row, before)
                return Start("train")
            row.trained_key, row.finished_at = None, row.started_at
            row.reused_from = f"{holder.job_id}:{holder.candidate}:{holder.stage}:{holder.seed}"
            for column, value in taken.items():
                setattr(row, column, value)
            _count(session, row, before)
            return Start("reused", convert.trial_record(row, curves=True))

    @outlasting
    def plan_trials(self, job_id: str, trials: Mapping[Place, str]) -> None:
        """Write the rows of trials that will be started, all of them or none, as if a process had
        died while it ran them: so it is fixed which they are before any of them is known.

        Args:
            trials: candidate, stage and seed -> `TrialSpec.key`.

        Raises:
            JobError: no such candidate, or one of the rows is there already.
        """
        with self.changing(job_id) as session:
            for (candidate, stage, seed), spec_key in trials.items():
                lookup.candidate(session, job_id, candidate)
                place = (job_id, candidate, stage, seed)
                if session.get(models.Trial, place) is not None:
                    raise JobError(f"{_trial(*place)} was planned by another process; ask again")
                row = models.Trial(job_id=job_id, candidate=candidate, stage=stage, seed=seed)
                row.state, row.reason, row.spec_key = "running", "", spec_key
                row.started_at = clock(session)
                session.add(row)
                totals.change_trial(session, row, None)

    @outlasting
    def finish_trial(
        self, job_id: str, candidate: int, stage: Stage, seed: int, result: TrialResult
    ) -> None:
        """Write how a started trial ended, or that it was paused.

        The seconds of its earlier parts are added to, and what these showed at their rungs stays,
        even if a later part is lost; all else is the result's alone, which tells of the whole
        training.

        Raises:
            IllegalMove: it has ended already.
            JobError: it was never started.
        """
        what = _trial(job_id, candidate, stage, seed)
        with self.changing(job_id) as session:
            row = session.get(models.Trial, (job_id, candidate, stage, seed), with_for_update=True)
            if row is None:
                raise JobError(f"{what} was never started")
            check_move(TRIAL_MOVES, what, row.state, result.status)
            counted = row.state
            row.state, row.finished_at = result.status, clock(session)
            if result.status in LOST or result.batch_size is not None:
                row.trained_key = None
            before = {f"seconds_{phase}": getattr(row, f"seconds_{phase}") for phase in PHASES}
            rungs = {**convert.rungs_of(row), **result.rungs}
            for column, value in convert.result_columns(result).items():
                spent = before.get(column)
                setattr(row, column, value if spent is None else spent + (value or 0.0))
            row.rungs = convert.rung_columns(rungs)
            _count(session, row, counted)

    @outlasting
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
            found = session.scalars(query.order_by(row.candidate, _IN_ORDER, row.seed))
            return [convert.trial_record(trial, curves) for trial in found]


def _count(session: Session, row: models.Trial, before: str | None) -> None:
    """Write what a trial's change of state, or its first one, changes elsewhere."""
    gains.renew(session, row)
    totals.change_trial(session, row, before)


def _holder(
    session: Session, trained_key: str | None, own: models.Trial | None
) -> models.Trial | None:
    """The row of another trial that holds a key, locked against changes; None where there is none.
    Until the transaction ends, nobody else finds out about this key."""
    if trained_key is None:
        return None
    if session.get_bind().dialect.name == "postgresql":  # SQLite has one writer at a time
        number = int(trained_key[:16], 16) - 2**63
        session.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})
    query = select(models.Trial).where(models.Trial.trained_key == trained_key)
    found = session.scalar(query.with_for_update())
    return None if found is own else found


def _taken(holder: models.Trial, pause_after: int | None) -> dict[str, Any] | None:
    """The columns that a trial has after it was trained as the holder was, up to the rung asked
    for, else to its end; None where the holder has not come so far."""
    rungs = convert.rungs_of(holder)
    columns: dict[str, Any] = {"steps": holder.steps, "versions": holder.versions}
    if pause_after is not None and pause_after in rungs:
        passed = {step: value for step, value in rungs.items() if step <= pause_after}
        return columns | {"state": "paused", "rungs": convert.rung_columns(passed)}
    if holder.state in ("running", "paused"):
        return None
    same = ("state", "reason", "fitness", "curves", "rungs", *METRICS)
    return columns | {column: getattr(holder, column) for column in same}


def _runs(session: Session, holder: models.Trial, job_id: str, running: Container[Place]) -> bool:
    """Whether a trial is under way at this moment, as far as can be known."""
    if holder.state != "running":
        return False
    if holder.job_id == job_id:
        return (holder.candidate, holder.stage, holder.seed) in running
    job = session.get(models.Job, holder.job_id)
    if job is None or job.owner is None:
        return False
    if owner.elsewhere(job.owner):
        return clock(session) - holder.started_at < REMOTE_PATIENCE
    return job.owner == owner.mark() or owner.alive(job.owner)


def _trial(job_id: str, candidate: int, stage: str, seed: int) -> str:
    return f"trial {job_id}:{candidate} {stage} seed {seed}"
