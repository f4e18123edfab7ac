"""All jobs at a glance: how far each is and the best it found, in one query."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import and_, case, func, select

from search_server.store.models import Candidate, Job

if TYPE_CHECKING:
    from search_server.store import Store


@dataclass(frozen=True)
class JobSummary:
    """One job in a list.

    Attributes:
        reason: why it is in its state.
        candidates: candidates so far, the baseline not counted.
        trained: those with a fitness.
        best, baseline: AP in [0, 1]; None before there is one.
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


def summaries(store: Store) -> list[JobSummary]:
    """Every job, the newest first."""
    mine, own = Candidate.origin != "baseline", Candidate.origin == "baseline"
    trained = and_(mine, Candidate.fitness.is_not(None), Candidate.state != "failed")
    counted = (
        select(
            Candidate.job_id,
            func.sum(case((mine, 1), else_=0)).label("candidates"),
            func.sum(case((trained, 1), else_=0)).label("trained"),
            func.max(case((trained, Candidate.fitness))).label("best"),
            func.max(case((own, Candidate.fitness))).label("baseline"),
        )
        .group_by(Candidate.job_id)
        .subquery()
    )
    query = (
        select(
            *(Job.id, Job.name, Job.state, Job.reason),
            func.coalesce(counted.c.candidates, 0),
            func.coalesce(counted.c.trained, 0),
            *(counted.c.best, counted.c.baseline),
            *(Job.created_at, Job.started_at, Job.finished_at),
        )
        .outerjoin(counted, counted.c.job_id == Job.id)
        .order_by(Job.serial.desc())
    )
    with store.reading() as session:
        return [JobSummary(*row) for row in session.execute(query)]
