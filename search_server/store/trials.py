"""Trials: a row before they start, again when they are paused, and when they have ended.

A trial that is due names by `trained_key` what it would train: the same for two trials of any jobs
that differ in nothing but rounding. The row that trains it holds the key, and the key is unique:

    - Where the holder has ended, or passed the rung that is asked for, its result is taken over.
    - Where the holder runs in a live job, the trial waits. A running trial ends, so nobody waits
      for ever; for a paused one, whose going on may depend on others, nobody waits.
    - Else (its job was killed, interrupted or cancelled, or it is paused before that) the key
      moves.
    - A trial that was lost (failed, out of time or memory) gives its key up: that says nothing
      about the loss. So does one that needed a smaller batch: it is not what the key names.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import case, select, text, tuple_
from sqlalchemy.orm import Session, defer

from search_server.errors import JobError
from search_server.store import convert, gains, lookup, models, owner, totals
from search_server.store.moves import TRIAL_MOVES, check_move
from search_server.store.records import (
    LAST_INDEX,
    METRICS,
    PHASES,
    STAGES,
    Due,
    Stage,
    Start,
    TrialRecord,
)
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
        """`start_trials` for one."""
        due = Due(candidate, stage, seed, spec_key, trained_key, pause_after)
        return self.start_trials(job_id, [due], running)[0]

    @outlasting
    def start_trials(
        self, job_id: str, trials: Sequence[Due], running: Container[Place] = ()
    ) -> list[Start]:
        """Write the rows of trials before they start, or find that they need not start; all of them
        in one transaction, or none.

        One that a dead process left `running` starts anew, one that is paused goes on.

        Args:
            running: the trials of this job that this process runs at the moment.

        Returns:
            For each, whether to train it. If it is to wait, nothing was written of it.

        Raises:
            IllegalMove: a trial has ended already.
            JobError: no such candidate.
        """
        with self.changing(job_id) as session:
            starting = _Starting(session, job_id, trials, running)
            starts = [starting.start(due) for due in trials]
            starting.count()
            return starts

    @outlasting
    def plan_trials(self, job_id: str, trials: Mapping[Place, str]) -> None:
        """Write the rows of trials that will be started, all of them or none, as if a process had
        died while it ran them: so it is fixed which they are before any of them is known.

        Args:
            trials: candidate, stage and seed -> `TrialSpec.key`.

        Raises:
            JobError: no such candidate, or one of the rows is there already.
        """
        made = []
        with self.changing(job_id) as session:
            at = clock(session)
            for (candidate, stage, seed), spec_key in trials.items():
                lookup.candidate(session, job_id, candidate)
                place = (job_id, candidate, stage, seed)
                if session.get(models.Trial, place) is not None:
                    raise JobError(f"{_trial(*place)} was planned by another process; ask again")
                row = models.Trial(job_id=job_id, candidate=candidate, stage=stage, seed=seed)
                row.state, row.reason, row.spec_key = "running", "", spec_key
                row.started_at = at
                session.add(row)
                made.append(row)
            totals.change_trials(session, job_id, [(row, None) for row in made])

    def finish_trial(
        self, job_id: str, candidate: int, stage: Stage, seed: int, result: TrialResult
    ) -> None:
        """`finish_trials` for one."""
        self.finish_trials(job_id, {(candidate, stage, seed): result})

    @outlasting
    def finish_trials(self, job_id: str, results: Mapping[Place, TrialResult]) -> None:
        """Write how started trials ended, or that they were paused: all of them, or none.

        The seconds of earlier parts are added to, and what these showed at their rungs stays, even
        if a later part is lost; all else is the result's alone, which tells of the whole training.

        Raises:
            IllegalMove: one has ended already.
            JobError: one was never started.
        """
        with self.changing(job_id) as session:
            rows = _rows(session, job_id, results, lock=True)
            at, changes = clock(session), []
            for place, result in sorted(results.items(), key=lambda each: each[0]):
                row = rows.get(place)
                if row is None:
                    raise JobError(f"{_trial(job_id, *place)} was never started")
                check_move(TRIAL_MOVES, _trial(job_id, *place), row.state, result.status)
                changes.append((row, row.state))
                _end(row, result, at)
            _count(session, job_id, changes)

    @outlasting
    def trials(
        self, job_id: str, candidate: int | range | None = None, *, curves: bool = True
    ) -> list[TrialRecord]:
        """Trials of a job, by candidate, stage (cheapest first) and seed.

        Args:
            candidate: of this one alone, or of those in a range of step 1.
            curves: False leaves the curves in the database; they are most of a trial's bytes.
        """
        row = models.Trial
        query = select(row).where(row.job_id == job_id)
        if isinstance(candidate, int) and not 0 <= candidate <= LAST_INDEX:
            candidate = range(0)  # PostgreSQL would refuse to look for it
        if isinstance(candidate, range):
            query = query.where(row.candidate >= candidate.start, row.candidate < candidate.stop)
        elif candidate is not None:
            query = query.where(row.candidate == candidate)
        if not curves:
            query = query.options(defer(row.curves, raiseload=True))
        with self.reading() as session:
            lookup.job(session, job_id)
            found = session.scalars(query.order_by(row.candidate, _IN_ORDER, row.seed))
            return [convert.trial_record(trial, curves) for trial in found]


class _Starting:
    """Trials that are started in one transaction."""

    def __init__(
        self, session: Session, job_id: str, trials: Sequence[Due], running: Container[Place]
    ) -> None:
        self._session, self._job_id, self._running = session, job_id, running
        self._rows = _rows(session, job_id, [due.place for due in trials])
        own = models.Candidate
        wanted = own.index.in_({due.candidate for due in trials})
        self._candidates = set(
            session.scalars(select(own.index).where(own.job_id == job_id, wanted))
        )
        self._holders = _holders(session, {due.trained_key for due in trials} - {None})
        self._at = clock(session)
        self._started: set[Place] = set()
        self._changes: list[tuple[models.Trial, str | None]] = []

    def start(self, due: Due) -> Start:
        """The row of one; see `Trials.start_trials`."""
        session, row = self._session, self._rows.get(due.place)
        if due.candidate not in self._candidates:
            lookup.candidate(session, self._job_id, due.candidate)  # says what there is instead
        if row is not None:
            what = _trial(self._job_id, *due.place)
            check_move(TRIAL_MOVES, what, row.state, "running")
        before = None if row is None else row.state
        holder = None if due.trained_key is None else self._holders.get(due.trained_key)
        holder = None if holder is row else holder
        taken = None if holder is None else _taken(holder, due.pause_after)
        if holder is not None and taken is None and self._runs(holder):
            return Start("wait")
        if row is None:
            row = models.Trial(
                job_id=self._job_id, candidate=due.candidate, stage=due.stage, seed=due.seed
            )
            row.state, row.reason = "running", ""
            session.add(row)
        row.spec_key, row.started_at = due.spec_key, self._at
        self._changes.append((row, before))
        if holder is None or taken is None:
            if holder is not None:
                holder.trained_key = None
                session.flush()  # the key is free before it is taken
            row.state, row.trained_key, row.reused_from = "running", due.trained_key, None
            self._started.add(due.place)
            if due.trained_key is not None:
                self._holders[due.trained_key] = row
            return Start("train")
        row.trained_key, row.finished_at = None, row.started_at
        row.reused_from = f"{holder.job_id}:{holder.candidate}:{holder.stage}:{holder.seed}"
        for column, value in taken.items():
            setattr(row, column, value)
        return Start("reused", convert.trial_record(row, curves=True))

    def count(self) -> None:
        """Write what the starts change elsewhere; when all of them are made."""
        _count(self._session, self._job_id, self._changes)

    def _runs(self, holder: models.Trial) -> bool:
        """Whether a trial is under way at this moment, as far as can be known."""
        if holder.state != "running":
            return False
        if holder.job_id == self._job_id:
            place = (holder.candidate, holder.stage, holder.seed)
            return place in self._running or place in self._started
        job = self._session.get(models.Job, holder.job_id)
        if job is None or job.owner is None:
            return False
        if owner.elsewhere(job.owner):
            return self._at - holder.started_at < REMOTE_PATIENCE
        return job.owner == owner.mark() or owner.alive(job.owner)


def cancel_trials(session: Session, job: models.Job) -> None:
    """End the trials of a job that run, with the job; what they showed at rungs stays theirs."""
    row = models.Trial
    query = select(row).where(row.job_id == job.id, row.state == "running")
    query = query.order_by(row.candidate, row.stage, row.seed).with_for_update()
    changes: list[tuple[models.Trial, str | None]] = []
    for each in session.scalars(query):
        check_move(TRIAL_MOVES, f"a trial of {job.id}", each.state, "cancelled")
        changes.append((each, each.state))
        each.state, each.reason = "cancelled", "its job was cancelled"
        each.finished_at = job.finished_at
    _count(session, job.id, changes)


def _end(row: models.Trial, result: TrialResult, at: datetime) -> None:
    """Write a result into the row of its trial."""
    row.state, row.finished_at = result.status, at
    if result.status in LOST or result.batch_size is not None:
        row.trained_key = None
    before = {f"seconds_{phase}": getattr(row, f"seconds_{phase}") for phase in PHASES}
    rungs = {**convert.rungs_of(row), **result.rungs}
    for column, value in convert.result_columns(result).items():
        spent = before.get(column)
        setattr(row, column, value if spent is None else spent + (value or 0.0))
    row.rungs = convert.rung_columns(rungs)


def _count(
    session: Session, job_id: str, changes: Sequence[tuple[models.Trial, str | None]]
) -> None:
    """Write what changes of state, or first ones, change elsewhere."""
    gains.renew(session, job_id, [row for row, _ in changes])
    totals.change_trials(session, job_id, changes)


def _rows(
    session: Session, job_id: str, places: Iterable[Place], *, lock: bool = False
) -> dict[Place, models.Trial]:
    """The rows of a job's trials that are there, locked in one order if need be."""
    row, wanted = models.Trial, list(places)
    place = tuple_(row.candidate, row.stage, row.seed)
    # by the candidates first: SQLite looks no list of tuples up in an index, it reads the whole job
    near = row.candidate.in_({candidate for candidate, _, _ in wanted})
    query = select(row).where(row.job_id == job_id, near, place.in_(wanted))
    if lock:
        query = query.order_by(row.candidate, row.stage, row.seed).with_for_update()
    found = session.scalars(query)
    return {(each.candidate, cast("Stage", each.stage), each.seed): each for each in found}


def _holders(session: Session, keys: Collection[str | None]) -> dict[str, models.Trial]:
    """By key, the rows of trials that hold one, locked against changes. Until the transaction ends,
    nobody else finds out about these keys."""
    if not keys:
        return {}
    if session.get_bind().dialect.name == "postgresql":  # SQLite has one writer at a time
        numbers = sorted(int(str(key)[:16], 16) - 2**63 for key in keys)  # who locks in one order
        for number in numbers:
            session.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})
    row = models.Trial
    query = select(row).where(row.trained_key.in_(keys)).order_by(row.trained_key)
    found = session.scalars(query.with_for_update())
    return {str(each.trained_key): each for each in found}


def _taken(holder: models.Trial, pause_after: int | None) -> dict[str, Any] | None:
    """The columns that a trial has after it was trained as the holder was, up to the rung asked
    for, else to its end; None where the holder has not come so far."""
    rungs = convert.rungs_of(holder)
    columns: dict[str, Any] = {"steps": holder.steps, "versions": holder.versions}
    if pause_after is not None and pause_after in rungs:
        passed = {step: value for step, value in rungs.items() if step <= pause_after}
        return columns | {"state": "paused", "rungs": convert.rung_columns(passed)}
    if holder.state in ("running", "paused", "cancelled"):
        return None
    same = ("state", "reason", "fitness", "curves", "rungs", *METRICS)
    return columns | {column: getattr(holder, column) for column in same}


def _trial(job_id: str, candidate: int, stage: str, seed: int) -> str:
    return f"trial {job_id}:{candidate} {stage} seed {seed}"
