"""The leaderboard's queries: jobs in their groups, the rows of a page, the trials of those rows.

The rows of a page come straight from an index, in order; nothing else of a group is looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    Text,
    and_,
    case,
    column,
    func,
    literal,
    or_,
    select,
    tuple_,
    type_coerce,
    union_all,
    values,
)

from search_server.confirmation import JUDGING, MEASURED
from search_server.store.models import Candidate, Job, JobTotals, Trial

STAGE = "proxy"  # the stage whose trials make the fitness
AT_ONCE = 100
"""How many groups one statement asks for: SQLite takes 500 parts, and has 32,766 parameters."""

_SHOWN = (
    *("job_id", "serial", "name", "origin", "cls_text", "bbox_text", "size", "stage"),
    *("state", "reason", "simulate_score", "fitness", "definition", "standing", "behind"),
    *("gain", "p", "shrunken", "family"),
)
# A row of a result has a method `index`.
_COLUMNS = (Candidate.index.label("number"), *(getattr(Candidate, name) for name in _SHOWN))
_ORDER = (Candidate.standing, Candidate.behind, Candidate.serial, Candidate.index)

FAILED = 4
"""The standing of failed candidates, after all others."""

Key = tuple[str, int]  # job, index


@dataclass(frozen=True)
class Page:
    """What part of the leaderboard is asked for.

    Attributes:
        job_id: one job; None for all, in groups.
        limit, offset: rows per group.
        state: only candidates in this state.
        index: only this candidate of the job, whatever the above say.
        pareto: only those on the front of AP and size.
    """

    job_id: str | None = None
    limit: int = 20
    offset: int = 0
    state: str | None = None
    index: int | None = None
    pareto: bool = False


def scope_of(page: Page) -> ColumnElement[int]:
    """The column of `candidates` whose equal values are ranked together."""
    return type_coerce(Candidate.board if page.job_id is None else Candidate.serial, Integer)


def jobs_query(job_id: str | None) -> Select[*tuple[Any, ...]]:
    """Every job that has candidates, the oldest first, with its first candidate."""
    query = (
        select(
            *(Job.id, Job.serial, Job.board, Job.trial_group, Job.rounds, Job.samples),
            JobTotals.candidates,
            (JobTotals.confirmed + JobTotals.published).label("judged"),
            Candidate.origin,
            Candidate.fitness,
        )
        .join(JobTotals, JobTotals.job_id == Job.id)
        .outerjoin(Candidate, and_(Candidate.job_id == Job.id, Candidate.index == 0))
        .where(JobTotals.candidates > 0)
        .order_by(Job.serial)
    )
    return query if job_id is None else query.where(Job.id == job_id)


def page_query(
    page: Page, groups: Collection[int], only: Collection[tuple[int, int]] | None = None
) -> Select[*tuple[Any, ...]]:
    """The rows of a page of at most `AT_ONCE` groups, in no order, with their place on it from 0.

    Args:
        groups: values of `scope_of(page)`.
        only: nothing but these candidates, by serial and index.
    """
    parts = []
    for group in groups:
        query = select(literal(group).label("group"), *_COLUMNS).where(scope_of(page) == group)
        if page.index is not None:
            query = query.where(Candidate.index == page.index)
        else:
            if page.state is not None:
                query = query.where(Candidate.state == page.state)
            if page.state == "failed":  # so that the index is of use in one job, too
                query = query.where(Candidate.standing == FAILED)
            if only is not None:
                query = query.where(tuple_(Candidate.serial, Candidate.index).in_(only))
            query = query.order_by(*_ORDER).limit(page.limit).offset(page.offset)
        parts.append(select(query.subquery()))
    return select(union_all(*parts).subquery())


def first_query(jobs: Collection[str]) -> Select[*tuple[Any, ...]]:
    """The first candidates of jobs, as `page_query` has them."""
    return select(*_COLUMNS).where(Candidate.job_id.in_(jobs), Candidate.index == 0)


def place_query(page: Page, row: Any) -> Select[int]:
    """How many candidates of the job stand before one."""
    c = Candidate
    before = or_(
        c.standing < row.standing,
        and_(c.standing == row.standing, c.behind < row.behind),
        and_(c.standing == row.standing, c.behind == row.behind, c.index < row.number),
    )
    return select(func.count()).where(scope_of(page) == row.serial, before)


def trials_query(keys: Sequence[Key]) -> Select[*tuple[Any, ...]]:
    """The ended trials of candidates, those of simulation left out. For each at least one line,
    whose seed is None where it has none; one that diverged has the worst AP there is."""
    # Joined from the outside: left to itself, SQLite looks through all trials of the stage.
    given = values(column("job_id", Text), column("candidate", Integer), name="given")
    asked = given.data(list(keys)).cte("asked")
    value = case((Trial.state == "diverged", 0.0), else_=Trial.fitness).label("value")
    own = and_(
        Trial.job_id == asked.c.job_id,
        Trial.candidate == asked.c.candidate,
        Trial.stage.in_((STAGE, *JUDGING)),
        Trial.state.in_(MEASURED),
    )
    return (
        select(
            *(asked.c.job_id, asked.c.candidate),
            *(Trial.stage, Trial.seed, value, Trial.reused_from),
        )
        .select_from(asked)
        .outerjoin(Trial, own)
        .order_by(asked.c.job_id, asked.c.candidate, Trial.stage, Trial.seed)
    )
