"""The board's statements: keys of candidates over any jobs, filtered, in one of five orders.

Each job, or all that are ranked together, is a part that an index gives in order, and each part
gives no more than a page, so that how many candidates it has makes no difference. A place in an
order, the values of the last row's key, is where the next page begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

from sqlalchemy import (
    ColumnElement,
    Double,
    Integer,
    Select,
    bindparam,
    literal,
    select,
    tuple_,
    union_all,
)

from search_server.store.models import Candidate, Trial
from search_server.store.records import CandidateState, Stage

Sort = Literal["standing", "fitness", "gain", "size", "newest"]
SORTS: tuple[Sort, ...] = get_args(Sort)
Place = list[int | float]
"""The key of a row in an order: as many values, of such types, as `KINDS` says."""

KINDS: Mapping[Sort, tuple[type[int] | type[float], ...]] = {
    "standing": (int, float, int, int),
    "gain": (int, float, int, int),
    "fitness": (float, int, int),
    "size": (int, float, int, int),
    "newest": (int, int),
}
AT_ONCE = 100
"""How many jobs, or boards, one statement asks for: SQLite takes 500 parts."""
ENDLESS = 2**31 - 1
CONFIRMED, TRAINED, FAILED = 0, 1, 4  # standings, see `store.models.STANDING`

_C, _R = Candidate.__table__.c, Trial.__table__.c
Query = Select[*tuple[Any, ...]]


@dataclass(frozen=True)
class Shape:
    """What steers the text of a statement; the rest are parameters.

    Attributes:
        stage: only candidates that have come this far; simulate: all.
        confirmed: only those with a difference to the baseline on `confirm`.
        state: only those in it.
        front: only those on the front of AP and size, whose indices are the parameter `front`.
        after: whether the page begins after a place.
        boards: whether a part is a board, all of whose jobs are asked for, and not a job.
    """

    sort: Sort = "standing"
    stage: Stage = "simulate"
    confirmed: bool = False
    state: CandidateState | None = None
    front: bool = False
    after: bool = False
    boards: bool = False

    @property
    def on_boards(self) -> bool:
        """Whether boards can be asked as jobs can: an index has their order, and what is asked of a
        row stands in it."""
        return self.stage in ("simulate", "proxy") and self.sort != "newest" and not self.front


def statement(
    shape: Shape, parts: Sequence[tuple[str, int]], limit: int, after: Place, front: Sequence[int]
) -> tuple[Query, dict[str, Any]]:
    """Job, index and key of the first `limit` rows, in order, and the parameters.

    Args:
        parts: id and serial of jobs, or nothing and the number of boards; `AT_ONCE` at most.
        after: a place of the order; empty for the first page.
        front: see `Shape`.
    """
    given: dict[str, Any] = {f"part_{n}": number for n, (_, number) in enumerate(parts)}
    if not shape.boards:
        given |= {f"job_{n}": job for n, (job, _) in enumerate(parts)}
    given["limit"] = limit
    if shape.sort == "newest":
        given |= {f"before_{n}": _before(serial, after) for n, (_, serial) in enumerate(parts)}
    else:
        given |= {f"after_{n}": value for n, value in enumerate(after)}
    if shape.front:
        given["front"] = list(front)
    return _statement(shape, len(parts)), given


def _before(serial: int, after: Place) -> int:
    """The index below which the candidates of a job follow on a place of the order `newest`."""
    if not after or serial < -after[0]:
        return ENDLESS
    return -int(after[1]) if serial == -after[0] else 0


def _key(sort: Sort, standing: int | None) -> tuple[ColumnElement[Any], ...]:
    """What the rows of a standing are ordered by, ascending."""
    if sort == "fitness":
        # The same number, and the one that an index has.
        first = _C.behind if standing == TRAINED else -_C.fitness
        return (first, _C.serial, _C["index"])
    if sort == "size":
        return (_C.size, -_C.fitness, _C.serial, _C["index"])
    if sort == "newest":
        return (-_C.serial, -_C["index"])
    return (_C.standing, _C.behind, _C.serial, _C["index"])


@cache
def _statement(shape: Shape, count: int) -> Query:
    each = _standings(shape)
    parts = [_part(shape, number, standing) for number in range(count) for standing in each]
    if len(parts) == 1:
        return parts[0]
    whole = union_all(*(select(part.subquery()) for part in parts)).subquery()
    keys = [whole.c[f"key_{n}"] for n in range(len(KINDS[shape.sort]))]
    return select(whole).order_by(*keys).limit(bindparam("limit", type_=Integer))


def _standings(shape: Shape) -> tuple[int | None, ...]:
    """The standings that are asked for apart, because within one the index has the order."""
    if shape.sort == "fitness":
        return (CONFIRMED,) if shape.confirmed else (CONFIRMED, TRAINED)
    if shape.sort == "gain" or (shape.confirmed and shape.sort == "standing"):
        return (CONFIRMED,)
    return (FAILED,) if shape.state == "failed" and shape.sort == "standing" else (None,)


def _part(shape: Shape, number: int, standing: int | None) -> Query:
    """The first rows of one job, or of one board."""
    keys = _key(shape.sort, standing)
    job: Any = bindparam(f"job_{number}")
    named = [key.label(f"key_{n}") for n, key in enumerate(keys)]
    query = select(_C.job_id, _C["index"].label("number"), *named)
    if shape.boards:
        query = query.where(_C.board == bindparam(f"part_{number}"))
    elif shape.sort == "newest":  # the primary key has this order, backwards
        query = query.where(_C.job_id == job, _C["index"] < bindparam(f"before_{number}"))
    else:
        query = query.where(_C.job_id == job, _C.serial == bindparam(f"part_{number}"))
    if standing is not None:
        # Written into the statement: known to the planner, and one value of the index.
        query = query.where(_C.standing == literal(standing, literal_execute=True))
    if shape.sort == "fitness":
        query = query.where(_C.fitness.is_not(None))
    if shape.sort == "size":
        done = literal("done", literal_execute=True)  # a partial index is of no use for a parameter
        query = query.where(_C.state == done, _C.fitness.is_not(None))
    if shape.confirmed:
        query = query.where(_C.gain.is_not(None), _C["index"] != 0)
    if shape.state is not None:
        query = query.where(_C.state == shape.state)
    if shape.stage == "proxy":
        query = query.where(_C.stage != "simulate")
    elif shape.stage != "simulate":
        reached = select(_R.candidate).where(_R.stage == shape.stage, _R.job_id == job)
        query = query.where(_C["index"].in_(reached))
    if shape.front:
        query = query.where(_C["index"].in_(bindparam("front", expanding=True)))
    if shape.after and shape.sort != "newest":
        kinds = KINDS[shape.sort]
        types: list[Any] = [Integer() if kind is int else Double() for kind in kinds]
        place: list[Any] = [bindparam(f"after_{n}", type_=kind) for n, kind in enumerate(types)]
        query = query.where(tuple_(*keys) > tuple_(*place))
    order = (_C["index"].desc(),) if shape.sort == "newest" else keys
    return query.order_by(*order).limit(bindparam("limit", type_=Integer))
