"""The leaderboard's queries: jobs in their groups, places in order, and what stands on them.

The places of a page come straight from an index, in order; nothing else of a group is looked at.
What is shown of them is asked for by their keys. A statement is put together once for all pages of
its kind: to write it anew took longer than to answer it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    Row,
    Select,
    and_,
    bindparam,
    func,
    or_,
    select,
    union_all,
)

from search_server.store.models import Candidate, Job, JobTotals

AT_ONCE = 100
"""How many groups one statement asks for: SQLite takes 500 parts."""

# The tables, not the classes: what is read is shown, and never changed.
_J, _T, _C = (each.__table__.c for each in (Job, JobTotals, Candidate))
_ORDER = (_C.standing, _C.behind, _C.serial, _C["index"])

Line = Row[*tuple[Any, ...]]
Query = Select[*tuple[Any, ...]]


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


@cache
def jobs_query(*, one: bool) -> Query:
    """Every job that has candidates, the oldest first, with its first candidate; or the one that is
    the parameter `job`."""
    query = (
        select(
            *(_J.id, _J.serial, _J.board, _J.trial_group, _J.rounds, _J.samples, _T.candidates),
            (_T.confirmed + _T.published).label("judged"),
            *(_C.origin, _C.fitness),
        )
        .join_from(Job.__table__, JobTotals.__table__, _T.job_id == _J.id)
        .outerjoin(Candidate.__table__, and_(_C.job_id == _J.id, _C["index"] == 0))
        .where(_T.candidates > 0)
        .order_by(_J.serial)
    )
    return query.where(_J.id == bindparam("job")) if one else query


def places_query(page: Page, groups: Sequence[int]) -> tuple[Query, dict[str, Any]]:
    """Serial and index of the candidates on a page of at most `AT_ONCE` groups, in no order; and
    the query's parameters.

    Args:
        groups: boards, or the serial of the one job.
    """
    given: dict[str, Any] = {f"group_{number}": group for number, group in enumerate(groups)}
    given |= {"limit": page.limit, "offset": page.offset}
    if page.state is not None:
        given["state"] = page.state
    return _places(page.job_id is not None, page.state is not None, len(groups)), given


@cache
def _places(one_job: bool, in_state: bool, groups: int) -> Query:
    scope = _C.serial if one_job else _C.board
    parts = []
    for number in range(groups):
        query = select(_C.serial, _C["index"].label("number"))
        query = query.where(scope == bindparam(f"group_{number}"))
        if in_state:
            query = query.where(_C.state == bindparam("state"))
        query = query.order_by(*_ORDER).limit(bindparam("limit")).offset(bindparam("offset"))
        parts.append(select(query.subquery()))
    return select(union_all(*parts).subquery()) if groups > 1 else parts[0]


@cache
def place_query() -> Select[int]:
    """How many candidates of the job stand before one: parameters are the columns of its row."""
    standing: BindParameter[int] = bindparam("standing")
    behind: BindParameter[float] = bindparam("behind")
    index: BindParameter[int] = bindparam("number")
    before = or_(
        _C.standing < standing,
        and_(_C.standing == standing, _C.behind < behind),
        and_(_C.standing == standing, _C.behind == behind, _C["index"] < index),
    )
    return select(func.count()).where(_C.serial == bindparam("serial"), before)


SPECS = select(_J.id, _J.spec).where(_J.id.in_(bindparam("jobs", expanding=True)))
"""The specs of the jobs that are the parameter."""
