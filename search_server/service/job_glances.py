"""Jobs in a list: beside each one's summary how far its funnel is, what runs, how long it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from search_server.overview import JobSummary
from search_server.service.job_view import draws, seconds_left
from search_server.store.models import Job, TrialCount

if TYPE_CHECKING:
    from search_server.store import Store


@dataclass(frozen=True)
class JobGlance:
    """One job in a list.

    Attributes:
        drawn, verified: draws of its searcher, and those that were accepted.
        running: trials that are under way.
        seconds_left: estimate; None before anything is known, and for a job at its end.
    """

    summary: JobSummary
    drawn: int
    verified: int
    running: int
    seconds_left: float | None


def glances(store: Store, jobs: Sequence[JobSummary]) -> list[JobGlance]:
    """The jobs in their order, by three queries for all of them."""
    ids = [job.id for job in jobs]
    under_way = (
        select(TrialCount.job_id, func.sum(TrialCount.count))
        .where(TrialCount.job_id.in_(ids), TrialCount.state == "running")
        .group_by(TrialCount.job_id)
    )
    wanted = select(Job.id, Job.spec["candidates"].as_integer()).where(Job.id.in_(ids))
    with store.reading() as session:
        drawn = draws(session, ids)
        running = {job_id: int(count) for job_id, count in session.execute(under_way)}
        candidates = {job_id: count for job_id, count in session.execute(wanted)}  # noqa: C416
    return [
        JobGlance(
            job,
            drawn=drawn.get(job.id, (0, 0))[0],
            verified=drawn.get(job.id, (0, 0))[1],
            running=running.get(job.id, 0),
            seconds_left=seconds_left(job, candidates.get(job.id)),
        )
        for job in jobs
    ]
