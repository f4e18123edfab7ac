"""One job as people watch it: state, best, funnel, trials, what runs now, how long it may take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from search_server.candidates import ACCEPTED
from search_server.overview import JobSummary, summary_in
from search_server.store import Store
from search_server.store.convert import plain
from search_server.store.models import FunnelCount, Job, Request, Submission, Trial, TrialCount

MOST_RUNNING = 50
ENDED = ("done", "diverged", "timeout", "out_of_memory", "failed")


@dataclass(frozen=True)
class Running:
    """A trial that is under way."""

    candidate: int
    stage: str
    seed: int
    started_at: datetime


@dataclass(frozen=True)
class JobView:
    """One job now.

    Attributes:
        funnel: how many candidates came how far, the stages in their order.
        trials: stage -> state -> how many.
        running: the trials under way, the first `MOST_RUNNING` of them.
        seconds_left: estimate; None before anything is known, and for a job at its end.
        address: of the cluster that it was submitted to; None: it runs elsewhere.
    """

    summary: JobSummary
    spec: Mapping[str, Any]
    classes: Sequence[str]
    funnel: Mapping[str, int]
    trials: Mapping[str, Mapping[str, int]]
    running: Sequence[Running]
    seconds_left: float | None
    attempts: int
    note: str

    @property
    def ended_trials(self) -> int:
        """How many trials have come to an end."""
        return sum(
            count
            for states in self.trials.values()
            for state, count in states.items()
            if state in ENDED
        )


def job_view(store: Store, job_id: str) -> JobView:
    """What is known of a job now, from aggregates and indices: quick, however many trials it has.

    Raises:
        JobError: there is no such job.
    """
    job_id = plain(job_id)
    by_place = select(TrialCount.stage, TrialCount.state, TrialCount.count).where(
        TrialCount.job_id == job_id, TrialCount.count > 0
    )
    under_way = (
        select(Trial.candidate, Trial.stage, Trial.seed, Trial.started_at)
        .where(Trial.job_id == job_id, Trial.state == "running")
        .order_by(Trial.started_at)
        .limit(MOST_RUNNING)
    )
    newest = select(func.max(Submission.attempt)).where(Submission.job_id == job_id)
    with store.reading() as session:
        told = summary_in(session, job_id)
        spec, classes = session.execute(select(Job.spec, Job.classes).where(Job.id == job_id)).one()
        drawn, verified = draws(session, [job_id]).get(job_id, (0, 0))
        trials: dict[str, dict[str, int]] = {}
        for stage, state, count in session.execute(by_place):
            trials.setdefault(stage, {})[state] = count
        running = [Running(*row) for row in session.execute(under_way)]
        attempts = int(session.scalar(newest) or 0)
        note = session.scalar(select(Request.note).where(Request.job_id == job_id)) or ""
    funnel = {"drawn": drawn, "verified": verified}
    if spec.get("funnel", {}).get("simulate") is not None:
        funnel["simulated"] = _ended(trials, "simulate")
    funnel |= {"trained": told.trained, "confirm trials": told.confirmed}
    left = seconds_left(told, spec.get("candidates"))
    return JobView(told, spec, classes, funnel, trials, running, left, attempts, note)


def draws(session: Session, jobs: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Draws of the searchers of jobs, and how many of them were accepted; jobs without any are not
    among them."""
    accepted = case((FunnelCount.outcome == ACCEPTED, FunnelCount.count), else_=0)
    query = (
        select(FunnelCount.job_id, func.sum(FunnelCount.count), func.sum(accepted))
        .where(FunnelCount.job_id.in_(jobs))
        .group_by(FunnelCount.job_id)
    )
    return {job_id: (int(drawn), int(some)) for job_id, drawn, some in session.execute(query)}


def _ended(trials: Mapping[str, Mapping[str, int]], stage: str) -> int:
    return sum(count for state, count in trials.get(stage, {}).items() if state in ENDED)


def seconds_left(told: JobSummary, candidates: int | None) -> float | None:
    """As long as it took so far, by the share of its candidates that it still has to make.

    Args:
        candidates: how many it will make; None where its spec does not say.
    """
    if told.state != "running" or told.started_at is None or told.candidates < 2 or not candidates:
        return None
    share = min(1.0, told.candidates / candidates)
    took = (datetime.now(UTC) - told.started_at).total_seconds()
    return took * (1.0 - share) / share
