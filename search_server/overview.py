"""All jobs at a glance: how far each is, the best it found; a policy search by its rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, Select, select

from search_server.errors import JobError
from search_server.rounds import Rounds
from search_server.store.models import Candidate, Job, JobTotals

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from search_server.store import Store


@dataclass(frozen=True)
class JobSummary:
    """One job in a list.

    Attributes:
        reason: why it is in its state.
        candidates: candidates so far, the baseline not counted.
        trained: those with a fitness.
        best, baseline: AP in [0, 1]; None before there is one.
        round, rounds: of a policy search, the newest round, from 0 before the first, and how many
            there will be; None elsewhere.
        mean: AP of a policy search's final mean, in [0, 1]; None before there is one.
        confirmed, published: trials of the stages `confirm` and `test` that have ended.
        detector: as its spec names it.
        serial: from 1, in the order of creation.
    """

    id: str
    name: str
    state: str
    reason: str
    candidates: int
    trained: int
    best: float | None
    baseline: float | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    round: int | None = None
    rounds: int | None = None
    mean: float | None = None
    confirmed: int = 0
    published: int = 0
    detector: str = ""
    serial: int = 0

    @property
    def doing(self) -> str:
        """Its state; of one that is not at its end, also that it confirms what it found."""
        confirming = self.confirmed and self.state in ("running", "interrupted")
        return f"{self.state}, confirming" if confirming else self.state


@dataclass(frozen=True)
class RoundSummary:
    """One round of a policy search.

    Attributes:
        round: from 1; None for the final mean, which comes last.
        made: candidates of the round so far.
        trained: those with a fitness, which moved the policy.
        zero: those of them whose fitness is 0: most diverged.
        failed: those that were left out.
        mean, deviation, best: of the fitness, AP in [0, 1]; None where there is none (the
            deviation: fewer than two).
    """

    round: int | None
    made: int
    trained: int
    zero: int
    failed: int
    mean: float | None
    deviation: float | None
    best: float | None


def summaries(store: Store) -> list[JobSummary]:
    """Every job, the newest first."""
    with store.reading() as session:
        return [_summary(row) for row in session.execute(_summary_query())]


def summary(store: Store, job_id: str) -> JobSummary:
    """One job.

    Raises:
        JobError: there is none.
    """
    with store.reading() as session:
        return summary_in(session, job_id)


def summary_in(session: Session, job_id: str) -> JobSummary:
    """The same in a session that is open."""
    row = session.execute(_summary_query().where(Job.id == job_id)).first()
    if row is None:
        raise JobError(f"there is no job {job_id}")
    return _summary(row)


def job_page(
    store: Store, *, state: str | None = None, before: int | None = None, limit: int = 50
) -> list[JobSummary]:
    """The newest jobs.

    Args:
        state: only those in it.
        before: only those with a lower serial.
    """
    query = _summary_query().limit(limit)
    if state is not None:
        query = query.where(Job.state == state)
    if before is not None:
        query = query.where(Job.serial < before)
    with store.reading() as session:
        return [_summary(row) for row in session.execute(query)]


def _summary_query() -> Select[*tuple[Any, ...]]:
    return (
        select(
            *(Job.id, Job.name, Job.state, Job.reason),
            *(JobTotals.searched, JobTotals.trained, JobTotals.best, JobTotals.baseline),
            *(Job.created_at, Job.started_at, Job.finished_at),
            *(JobTotals.confirmed, JobTotals.published, JobTotals.mean, Job.rounds, Job.samples),
            *(Job.spec["detector"].as_string(), Job.serial),
        )
        .join(JobTotals, JobTotals.job_id == Job.id)
        .order_by(Job.serial.desc())
    )


def _summary(row: Row[*tuple[Any, ...]]) -> JobSummary:
    *facts, confirmed, published, mean, count, samples, detector, serial = tuple(row)
    found = replace(
        JobSummary(*facts),
        confirmed=confirmed,
        published=published,
        detector=detector or "",
        serial=serial,
    )
    if count is None:
        return found
    rounds = Rounds(count, samples)
    newest = rounds.round(min(found.candidates, rounds.last)) or 0
    return replace(found, round=newest, rounds=rounds.count, mean=mean)


def round_summaries(store: Store, job_id: str) -> list[RoundSummary]:
    """The rounds of a policy search that have begun, then its final mean; empty for another job.

    Raises:
        JobError: there is no such job.
    """
    rounds = Rounds.of_spec(store.job(job_id).spec)
    if rounds is None:
        return []
    query = (
        select(Candidate.index, Candidate.state, Candidate.fitness)
        .where(Candidate.job_id == job_id, Candidate.index > 0, Candidate.origin != "rival")
        .order_by(Candidate.index)
    )
    with store.reading() as session:
        rows = [(index, state, value) for index, state, value in session.execute(query)]
    return [
        _round_summary(number, list(group))
        for number, group in groupby(rows, key=lambda row: rounds.round(row[0]))
    ]


def _round_summary(
    number: int | None, found: Sequence[tuple[int, str, float | None]]
) -> RoundSummary:
    """A round from index, state and fitness of its candidates."""
    values = [fitness for _, state, fitness in found if fitness is not None and state != "failed"]
    return RoundSummary(
        round=number,
        made=len(found),
        trained=len(values),
        zero=sum(value == 0 for value in values),
        failed=sum(state == "failed" for _, state, _ in found),
        mean=fmean(values) if values else None,
        deviation=stdev(values) if len(values) > 1 else None,
        best=max(values, default=None),
    )
