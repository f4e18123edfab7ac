"""The front of AP and size: the candidates that are better than all that are no larger.

A group has few sizes. The index steps from size to size and gives the best of each, so that the
query reads a few rows per size, however many candidates there are.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import (
    ColumnElement,
    ScalarSelect,
    Select,
    and_,
    func,
    literal,
    select,
)
from sqlalchemy.orm import Session

from search_server.store.models import Candidate, Job

# Written into the statement: a partial index is of no use for a parameter.
_DONE = and_(
    Candidate.state == literal("done", literal_execute=True), Candidate.fitness.is_not(None)
)


def front(
    session: Session, groups: Collection[int], *, by_job: bool
) -> dict[int, set[tuple[int, int]]]:
    """By group, serial and index of the candidates on its front: every other of at most their size
    has a lower fitness; of equals the older one.

    Args:
        groups: boards, or serials of jobs.
        by_job: whether every job has a front of its own.
    """
    found: dict[int, set[tuple[int, int]]] = {group: set() for group in groups}
    highest: dict[int, float] = {}
    for group, _, best, serial, index in session.execute(_best_query(groups, by_job)):
        if group not in highest or best > highest[group]:
            highest[group] = best
            found[group].add((serial, index))
    return found


def _best_query(groups: Collection[int], by_job: bool) -> Select[*tuple[Any, ...]]:
    """By group and size, the smallest first: the best fitness, and the oldest that has it."""
    own, scope = (Job.serial, Candidate.serial) if by_job else (Job.board, Candidate.board)
    given = select(own.label("group")).where(own.in_(groups)).distinct().subquery()
    sizes = select(given.c.group, _smallest(scope == given.c.group).label("size")).cte(
        "sizes", recursive=True
    )
    larger = _smallest(scope == sizes.c.group, Candidate.size > sizes.c.size)
    sizes = sizes.union_all(select(sizes.c.group, larger).where(sizes.c.size.is_not(None)))
    here = (scope == sizes.c.group, Candidate.size == sizes.c.size)
    highest = select(func.max(Candidate.fitness)).where(*here, _DONE).scalar_subquery()
    best = (
        select(sizes.c.group, sizes.c.size, highest.label("best"))
        .where(sizes.c.size.is_not(None))
        .subquery()
    )
    oldest = (
        select(Candidate)
        .where(
            scope == best.c.group,
            Candidate.size == best.c.size,
            Candidate.fitness == best.c.best,
            _DONE,
        )
        .order_by(Candidate.serial, Candidate.index)
        .limit(1)
    )
    return select(
        *best.c,
        oldest.with_only_columns(Candidate.serial).scalar_subquery(),
        oldest.with_only_columns(Candidate.index).scalar_subquery(),
    ).order_by(best.c.group, best.c.size)


def _smallest(*conditions: ColumnElement[bool]) -> ScalarSelect[int]:
    return select(func.min(Candidate.size)).where(*conditions, _DONE).scalar_subquery()
