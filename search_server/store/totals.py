"""What a job has so far, counted in the transaction that changes it: `lossforge jobs` reads a row,
and metrics read how many trials are in which state without looking at one of them.

A row is locked before it is changed, after the candidate or trial that changes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Select, func, select, text
from sqlalchemy.orm import Session

from search_server.confirmation import CONFIRM, JUDGING
from search_server.store import models
from search_server.store.records import NOTHING_YET

GIVEN = ("baseline", "rival")
"""Origins of candidates that no searcher found."""

Highest = Literal["best", "baseline", "mean"]


@dataclass(frozen=True)
class Fitness:
    """What of a candidate is counted."""

    origin: str
    state: str
    value: float | None

    @classmethod
    def of(cls, row: models.Candidate) -> Fitness:
        """Of a row as it is now."""
        return cls(row.origin, row.state, row.fitness)

    @property
    def trained(self) -> bool:
        """Whether a searcher found it, and its fitness counts."""
        return self.origin not in GIVEN and self.value is not None and self.state != "failed"

    def among(self, column: Highest) -> float | None:
        """The fitness, where it is one of those whose highest a column has."""
        if column == "baseline":
            return self.value if self.origin == "baseline" else None
        own = self.trained and (column == "best" or self.origin == "mean")
        return self.value if own else None


def none_yet(job_id: str) -> models.JobTotals:
    """The row of a new job."""
    counts = dict.fromkeys(("candidates", "searched", "trained", "confirmed", "published"), 0)
    return models.JobTotals(job_id=job_id, best=None, baseline=None, mean=None, **counts)


def add_candidate(session: Session, row: models.Candidate) -> None:
    """Count a new candidate."""
    totals = _row(session, row.job_id)
    totals.candidates += 1
    totals.searched += row.origin not in GIVEN
    _count_fitness(session, totals, Fitness(row.origin, "open", None), Fitness.of(row))


def change_candidate(session: Session, row: models.Candidate, before: Fitness) -> None:
    """Count what has become of a candidate."""
    after = Fitness.of(row)
    if after != before:
        _count_fitness(session, _row(session, row.job_id), before, after)


def change_trials(
    session: Session, job_id: str, changes: Iterable[tuple[models.Trial, str | None]]
) -> None:
    """Count what has become of trials of a job, each with the state that it was in before; None:
    it is new."""
    moved: Counter[tuple[str, str]] = Counter()
    judged: Counter[str] = Counter()
    for row, before in changes:
        moved[row.stage, row.state] += 1
        if before is not None:
            moved[row.stage, before] -= 1
        judged[row.stage] += (row.state not in NOTHING_YET) - (before not in (None, *NOTHING_YET))
    for (stage, state), more in sorted(moved.items()):  # who locks in one order waits
        if more:
            values = {"job_id": job_id, "stage": stage, "state": state, "number": abs(more)}
            session.execute(_MORE if more > 0 else _FEWER, values)
    if any(judged[stage] for stage in JUDGING):
        totals = _row(session, job_id)
        for stage in JUDGING:
            if stage == CONFIRM:
                totals.confirmed += judged[stage]
            else:
                totals.published += judged[stage]


_MORE = text(
    "INSERT INTO trial_counts (job_id, stage, state, count) "
    "VALUES (:job_id, :stage, :state, :number) "
    "ON CONFLICT (job_id, stage, state) DO UPDATE SET count = trial_counts.count + :number"
)
_FEWER = text(  # never an insertion: a count below 0 is refused before it would be a change
    "UPDATE trial_counts SET count = count - :number "
    "WHERE job_id = :job_id AND stage = :stage AND state = :state"
)


def _row(session: Session, job_id: str) -> models.JobTotals:
    return session.get_one(models.JobTotals, job_id, with_for_update=True, populate_existing=True)


def _count_fitness(
    session: Session, totals: models.JobTotals, before: Fitness, after: Fitness
) -> None:
    totals.trained += after.trained - before.trained
    columns: tuple[Highest, ...] = ("best", "baseline", "mean")
    for column in columns:
        old, new = before.among(column), after.among(column)
        if new == old:
            continue
        known = getattr(totals, column)
        if old is None or (new is not None and new > old):
            setattr(totals, column, new if known is None else max(known, new or 0.0))
        else:  # the highest may be another's now
            session.flush()
            setattr(totals, column, session.scalar(_highest(totals.job_id, column)))


def _highest(job_id: str, column: Highest) -> Select[float | None]:
    c = models.Candidate
    conditions = [c.job_id == job_id]
    if column == "baseline":
        conditions.append(c.origin == "baseline")
    else:
        conditions += [c.origin.not_in(GIVEN), c.state != "failed"]
    if column == "mean":
        conditions.append(c.origin == "mean")
    return select(func.max(c.fitness)).where(*conditions)
