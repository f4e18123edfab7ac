"""The front of AP and size: the candidates that are better than all that are no larger.

A group has few sizes. The index steps from size to size and gives the best of each, so that the
query reads two of its entries per size, however many candidates there are.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    Integer,
    ScalarSelect,
    and_,
    bindparam,
    cast,
    func,
    literal,
    null,
    or_,
    select,
)

from search_server.leaderboard_query import Query
from search_server.store.models import Candidate, Job

_C = Candidate.__table__.c
# Written into the statement: a partial index is of no use for a parameter.
_DONE = and_(_C.state == literal("done", literal_execute=True), _C.fitness.is_not(None))


def front(
    connection: Connection, groups: Collection[int], *, by_job: bool
) -> dict[int, set[tuple[int, int]]]:
    """By group, serial and index of the candidates on its front: every other of at most their size
    has a lower fitness; of equals the older one.

    Args:
        groups: boards, or serials of jobs.
        by_job: whether every job has a front of its own.
    """
    found: dict[int, set[tuple[int, int]]] = {group: set() for group in groups}
    for group, serial, index in connection.execute(_front(by_job), {"groups": list(groups)}):
        found[group].add((serial, index))
    return found


@cache
def _front(by_job: bool) -> Query:
    """Group, serial and index of all on the fronts of the groups that are the parameter."""
    jobs = Job.__table__.c
    own, scope = (jobs.serial, _C.serial) if by_job else (jobs.board, _C.board)
    wanted = own.in_(bindparam("groups", expanding=True))
    given = select(own.label("group")).where(wanted).distinct().subquery()

    sizes = select(
        given.c.group,
        _smallest(scope == given.c.group).label("size"),
        cast(null(), Integer).label("passed"),
        cast(null(), Double).label("best"),
    ).cte("sizes", recursive=True)
    here = (scope == sizes.c.group, _C.size == sizes.c.size, _DONE)
    sizes = sizes.union_all(
        select(
            sizes.c.group,
            _smallest(scope == sizes.c.group, _C.size > sizes.c.size),
            sizes.c.size,
            select(func.max(_C.fitness)).where(*here).scalar_subquery(),
        ).where(sizes.c.size.is_not(None))
    )
    smaller = func.max(sizes.c.best).over(
        partition_by=sizes.c.group, order_by=sizes.c.passed, rows=(None, -1)
    )
    steps = (
        select(sizes.c.group, sizes.c.passed, sizes.c.best, smaller.label("smaller"))
        .where(sizes.c.passed.is_not(None))
        .subquery("steps")
    )
    same = (scope == steps.c.group, _C.size == steps.c.passed, _C.fitness == steps.c.best, _DONE)
    serial, index = (
        select(column).where(*same).order_by(_C.serial, _C["index"]).limit(1).scalar_subquery()
        for column in (_C.serial, _C["index"])
    )
    higher = or_(steps.c.smaller.is_(None), steps.c.best > steps.c.smaller)
    return select(steps.c.group, serial, index).where(higher)


def _smallest(*conditions: ColumnElement[bool]) -> ScalarSelect[int]:
    return select(func.min(_C.size)).where(*conditions, _DONE).scalar_subquery()
