"""What the plots of a job show, as plain numbers: progress, funnel, front of AP and size.

Of a large job some of the points are shown, evenly, but all that matter: those that were the best
so far, the front, and what was confirmed. All that is read of a candidate for them is in an index.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, bindparam, literal, select

from search_server.candidates import ACCEPTED
from search_server.leaderboard_front import front
from search_server.leaderboard_keys import STAGE, Values, trials
from search_server.overview import summary
from search_server.seed_statistics import Spread, spread
from search_server.service.job_view import job_view
from search_server.service.recent import Recent
from search_server.store.models import Candidate, Job

if TYPE_CHECKING:
    from search_server.store import Store

MOST_POINTS = 2000
MOST_OUTCOMES = 30

_C = Candidate.__table__.c
_TRAINED = (
    select(_C["index"], _C.size, _C.fitness)
    .where(
        _C.serial == bindparam("serial"),
        # written into the statement: a partial index is of no use for a parameter
        _C.state == literal("done", literal_execute=True),
        _C.fitness.is_not(None),
    )
    .order_by(_C.size, _C.fitness)  # as in the one index that has all of this in it
)
_ORIGINS = select(_C["index"].label("number"), _C.origin).where(
    _C.job_id == bindparam("job"), _C["index"].in_(bindparam("wanted", expanding=True))
)
_CONFIRMED = select(_C["index"], _C.origin, _C.size, _C.fitness, _C.gain, _C.shrunken, _C.p).where(
    _C.serial == bindparam("serial"), _C.standing == 0, _C.gain.is_not(None), _C["index"] != 0
)


@dataclass(frozen=True)
class Points:
    """The candidates of a job that were trained to the end, by index, the baseline not counted.

    Attributes:
        index, size: (n,) whole numbers.
        fitness: (n,) AP in [0, 1].
    """

    index: NDArray[np.int64]
    size: NDArray[np.int64]
    fitness: NDArray[np.float64]

    @property
    def steps(self) -> NDArray[np.int64]:
        """Places of those that were better than all before them."""
        if not len(self.fitness):
            return np.zeros(0, dtype=np.int64)
        before = np.maximum.accumulate(np.concatenate([[-1.0], self.fitness[:-1]]))
        return np.flatnonzero(self.fitness > before)


@dataclass(frozen=True)
class Dot:
    """A candidate in a plot; `fitness` is AP in [0, 1]."""

    candidate: int
    origin: str
    size: int
    fitness: float


@dataclass(frozen=True)
class Progress:
    """How a search went.

    Attributes:
        dots: trained candidates by index; `trained` is how many there are.
        best: those that were the best so far, from their index on.
        baseline: its proxy trials, over its seeds; None before there is one.
    """

    dots: Sequence[Dot]
    best: Sequence[Dot]
    baseline: Spread | None
    trained: int


@dataclass(frozen=True)
class FunnelPlot:
    """How far how many came.

    Attributes:
        stages: name -> count, in order.
        origins: origin -> stage (drawn, verified) -> count.
        rejections: why draws were rejected -> how many, the most frequent first.
    """

    stages: Mapping[str, int]
    origins: Mapping[str, Mapping[str, int]]
    rejections: Mapping[str, int]


@dataclass(frozen=True)
class ConfirmedDot:
    """A candidate that was confirmed, or a rival: its size and its gain, AP from -1 to 1."""

    candidate: int
    origin: str
    size: int
    fitness: float | None
    gain: float
    shrunken: float | None
    p: float | None


@dataclass(frozen=True)
class FrontPlot:
    """AP against size.

    Attributes:
        dots: trained candidates; `trained` is how many there are.
        front: those that are better than all that are no larger, by size.
    """

    dots: Sequence[Dot]
    front: Sequence[Dot]
    confirmed: Sequence[ConfirmedDot]
    trained: int


_recent: Recent[Points] = Recent(most=32)


def progress_state(store: Store, job_id: str) -> Hashable:
    """Is another whenever the plot of progress may be another; quick. Raises JobError: as there."""
    told = summary(store, job_id)
    with store.reading() as session:
        values = _baseline(session.connection(), job_id)
    return told.trained, told.best, tuple(values.items())


def front_state(store: Store, job_id: str) -> Hashable:
    """The same of the front of AP and size."""
    told = summary(store, job_id)
    with store.reading() as session:
        confirmed = session.connection().execute(_CONFIRMED, {"serial": told.serial}).all()
    # The baseline is on no front, and keeps others from it.
    return told.trained, told.best, told.baseline, tuple(tuple(line) for line in confirmed)


def progress(store: Store, job_id: str) -> Progress:
    """The plot of a search's progress. Raises JobError: there is no such job."""
    found = _points(store, job_id)
    with store.reading() as session:
        connection = session.connection()
        values = _baseline(connection, job_id)
        steps = found.steps
        if len(steps) > MOST_POINTS // 4:  # every one that follows is the better one
            steps = steps[np.linspace(0, len(steps) - 1, MOST_POINTS // 4).astype(np.int64)]
        shown = _thinned(len(found.index), steps)
        dots = _dots(connection, job_id, found, shown)
    by_index = {dot.candidate: dot for dot in dots}
    best = [by_index[int(found.index[place])] for place in steps]
    return Progress(dots, best, spread(values) if values else None, len(found.index))


def funnel(store: Store, job_id: str) -> FunnelPlot:
    """The plot of a job's funnel. Raises JobError: there is no such job."""
    view = job_view(store, job_id)
    origins: dict[str, dict[str, int]] = {}
    rejected: dict[str, int] = {}
    for (origin, outcome), count in store.counts(job_id).items():
        own = origins.setdefault(origin, {"drawn": 0, "verified": 0})
        own["drawn"] += count
        if outcome == ACCEPTED:
            own["verified"] += count
        else:
            rejected[outcome] = rejected.get(outcome, 0) + count
    order = sorted(rejected, key=lambda outcome: (-rejected[outcome], outcome))
    shown = {outcome: rejected[outcome] for outcome in order[:MOST_OUTCOMES]}
    if rest := sum(rejected[outcome] for outcome in order[MOST_OUTCOMES:]):
        shown["other reasons"] = rest
    return FunnelPlot(dict(view.funnel), origins, shown)


def size_front(store: Store, job_id: str) -> FrontPlot:
    """The plot of AP against size. Raises JobError: there is no such job."""
    found = _points(store, job_id)
    with store.reading() as session:
        connection = session.connection()
        serial = _serial(connection, job_id)
        ahead = {index for _, index in front(connection, [serial], by_job=True)[serial]}
        places = np.flatnonzero(np.isin(found.index, list(ahead)))
        dots = _dots(connection, job_id, found, _thinned(len(found.index), places))
        confirmed = connection.execute(_CONFIRMED, {"serial": serial}).all()
    leading = sorted((dot for dot in dots if dot.candidate in ahead), key=lambda dot: dot.size)
    judged = sorted((ConfirmedDot(*line) for line in confirmed), key=lambda dot: -dot.gain)
    return FrontPlot(dots, leading, judged[:MOST_POINTS], len(found.index))


def _points(store: Store, job_id: str) -> Points:
    """The trained candidates of a job; read anew once there are more."""
    told = summary(store, job_id)

    def read() -> Points:
        with store.reading() as session:
            connection = session.connection()
            lines = connection.execute(_TRAINED, {"serial": told.serial}).all()
        ordered = sorted((each[0], each[1], each[2]) for each in lines if each[0])
        columns: Any = zip(*ordered, strict=True) if ordered else ((), (), ())
        index, size, fitness = columns
        return Points(
            np.array(index, dtype=np.int64),
            np.array(size, dtype=np.int64),
            np.array(fitness, dtype=np.float64),
        )

    return _recent.get((store.url, job_id), (told.trained, told.best), read)


def _baseline(connection: Connection, job_id: str) -> Values:
    """AP in [0, 1] of the baseline's trials, by seed."""
    own = trials(connection, [(job_id, 0)]).get((job_id, 0))
    return {} if own is None else own.values(STAGE)


def _serial(connection: Connection, job_id: str) -> int:
    found = connection.scalar(select(Job.serial).where(Job.id == job_id))
    assert found is not None, "the job was there a moment ago"
    return found


def _thinned(count: int, kept: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of at most `MOST_POINTS` of `count` points, those that are to be kept among them."""
    if count <= MOST_POINTS:
        return np.arange(count)
    room = max(1, MOST_POINTS - len(kept))
    return np.union1d(np.linspace(0, count - 1, room).astype(np.int64), kept)


def _dots(
    connection: Connection, job_id: str, found: Points, places: NDArray[np.int64]
) -> list[Dot]:
    """The points at some places, by index."""
    wanted = found.index[places].tolist()
    lines = connection.execute(_ORIGINS, {"job": job_id, "wanted": wanted}).all()
    origins = {line.number: line.origin for line in lines}
    return [
        Dot(index, origins.get(index, "random"), size, fitness)
        for index, size, fitness in zip(
            wanted, found.size[places].tolist(), found.fitness[places].tolist(), strict=True
        )
    ]
