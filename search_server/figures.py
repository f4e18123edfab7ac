"""What a store holds, in numbers, for whoever watches it: read from aggregates, never from trials.

The cost follows the jobs, of which there are few, and not the trials: `trial_counts` and
`job_totals` are written with what they count, and what is open is found by an index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, func, select, text
from sqlalchemy.orm import Session

from search_server.errors import SchemaError
from search_server.store import schema
from search_server.store.models import Candidate, Job, JobTotals, TrialCount
from search_server.store.sessions import Sessions

ACTIVE = ("running", "cancelling")
"""States of a job whose controller is, or should be, at work."""


@dataclass(frozen=True)
class JobFigures:
    """One job.

    Attributes:
        candidates: how many it has, the baseline among them.
        trained: those that a searcher found and that have a fitness.
        open: those about which nothing is decided yet; None for a job that is not active.
        best, baseline: AP in [0, 1]; None before there is one.
        trials: (stage, state) -> how many, all stages and states that ever had one.
    """

    id: str
    state: str
    candidates: int
    trained: int
    open: int | None
    best: float | None
    baseline: float | None
    trials: Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class Figures:
    """The whole store.

    Attributes:
        jobs: state -> how many.
        trials: (stage, state) -> how many.
        queue: `running`, `paused` -> trials of active jobs in that state.
        open: candidates of active jobs about which nothing is decided yet.
        shown: the active jobs, newest first, then the newest others; as many as were asked for.
        left_out: active jobs that are not among them.
    """

    jobs: Mapping[str, int]
    trials: Mapping[tuple[str, str], int]
    queue: Mapping[str, int]
    open: int
    shown: Sequence[JobFigures]
    left_out: int


def revision(session: Session) -> str:
    """The schema of the database that a session reads.

    Raises:
        SQLAlchemyError: it has none yet, or does not answer.
    """
    return str(session.scalar(text("SELECT version_num FROM alembic_version")))


def figures(store: Sessions, limit: int) -> Figures:
    """Read them.

    Args:
        limit: how many jobs to tell of one by one.

    Raises:
        SchemaError: the schema is not this version's.
        StoreError: the store does not answer.
    """
    with store.reading() as session:
        found, wanted = revision(session), schema.head()
        if found != wanted:
            raise SchemaError(
                f"{store.url} has schema {found}, this version of Lossforge reads {wanted}; "
                "see: lossforge db current",
                found,
                wanted,
            )
        by_state = select(Job.state, func.count()).group_by(Job.state)
        count = func.sum(TrialCount.count)
        places = (TrialCount.stage, TrialCount.state)
        by_place = select(*places, count).group_by(*places)
        of_active = (
            select(TrialCount.state, count)
            .join(Job, Job.id == TrialCount.job_id)
            .where(Job.state.in_(ACTIVE), TrialCount.state.in_(("running", "paused")))
            .group_by(TrialCount.state)
        )
        waiting = _open(session)
        rows = _shown(session, limit)
        own: dict[str, dict[tuple[str, str], int]] = {row.id: {} for row in rows}
        of_shown = select(TrialCount).where(TrialCount.job_id.in_(list(own)))
        for each in session.scalars(of_shown):
            own[each.job_id][each.stage, each.state] = each.count
        return Figures(
            jobs={row[0]: row[1] for row in session.execute(by_state)},
            trials={(row[0], row[1]): int(row[2]) for row in session.execute(by_place)},
            queue={row[0]: int(row[1]) for row in session.execute(of_active)},
            open=sum(waiting.values()),
            shown=[
                JobFigures(
                    *(row.id, row.state, row.candidates, row.trained, waiting.get(row.id)),
                    *(row.best, row.baseline, own[row.id]),
                )
                for row in rows
            ],
            left_out=len(waiting.keys() - own.keys()),
        )


def _open(session: Session) -> dict[str, int]:
    """Active job -> its open candidates, which the index of boards and states holds together."""
    undecided = (
        (Candidate.board == Job.board)
        & (Candidate.state == "open")
        & (Candidate.serial == Job.serial)
    )
    query = (
        select(Job.id, func.count(Candidate.serial))
        .outerjoin(Candidate, undecided)
        .where(Job.state.in_(ACTIVE))
        .group_by(Job.id)
    )
    return {row[0]: row[1] for row in session.execute(query)}


def _shown(session: Session, limit: int) -> list[Row[*tuple[Any, ...]]]:
    """The jobs to tell of, with their totals."""
    active = Job.state.in_(ACTIVE)
    columns = (
        *(Job.id, Job.state, JobTotals.candidates, JobTotals.trained),
        *(JobTotals.best, JobTotals.baseline),
    )
    query = select(*columns).join(JobTotals, JobTotals.job_id == Job.id)
    newest = Job.serial.desc()
    found: list[Row[*tuple[Any, ...]]] = []
    found += session.execute(query.where(active).order_by(newest).limit(limit))
    if len(found) < limit:
        others = query.where(~active).order_by(newest).limit(limit - len(found))
        found += session.execute(others)
    return found
