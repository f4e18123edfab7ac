"""Losses beside each other from what has been trained: paired by seed, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Connection, select

from search_server.confirmation import CONFIRM, TEST
from search_server.leaderboard_keys import STAGE, Key, Trials, candidates, trials
from search_server.leaderboard_query import Line
from search_server.paired_statistics import Paired, holm, paired
from search_server.seed_statistics import Spread, spread
from search_server.service.problems import Problem
from search_server.shrinkage import shrunken
from search_server.store.models import Job
from search_server.store.records import Stage

if TYPE_CHECKING:
    from search_server.store import Store

STAGES: tuple[Stage, ...] = cast(tuple[Stage, ...], (STAGE, CONFIRM, TEST))


@dataclass(frozen=True)
class ComparedLoss:
    """A candidate that is compared."""

    job: str
    index: int
    name: str | None
    origin: str
    cls: str | None
    bbox: str | None
    size: int

    @property
    def id(self) -> str:
        """`JOB:INDEX`."""
        return f"{self.job}:{self.index}"


@dataclass(frozen=True)
class ComparedRow:
    """One candidate in one stage.

    Attributes:
        ap: over its seeds, a diverged training as AP 0; None without any.
        difference: to the baseline over common seeds; None for the baseline itself, without a
            common seed, and where the stage was trained otherwise.
        p: of the difference, two-sided, corrected by Holm for the number of the others; None
            without an interval.
        shrunken: empirical-Bayes estimate of the difference; None where it cannot be told.
    """

    id: str
    baseline: bool
    ap: Spread | None
    by_seed: Mapping[int, float]
    difference: Paired | None
    p: float | None = None
    shrunken: float | None = None


@dataclass(frozen=True)
class ComparedStage:
    """A stage that any of them has trials of."""

    stage: Stage
    rows: tuple[ComparedRow, ...]


@dataclass(frozen=True)
class Comparison:
    """Candidates beside each other; the baseline is one of them."""

    baseline: str
    losses: tuple[ComparedLoss, ...]
    stages: tuple[ComparedStage, ...]


def compared(store: Store, keys: Sequence[Key], baseline: Key) -> Comparison:
    """Candidates of one trial group against one of them.

    Raises:
        Problem: 404, one is not there; 409, they were not trained alike.
    """
    with store.reading() as session:
        connection = session.connection()
        lines = candidates(connection, set(keys))
        for job, index in keys:
            if (job, index) not in lines:
                raise Problem(404, f"there is no candidate {job}:{index}")
        trained = _trained(connection, {job for job, _ in keys})
        tried = trials(connection, set(keys))
    if len({each[0] for each in trained.values()}) > 1:
        raise Problem(
            409,
            "these are of jobs that train differently (detector, data, steps or arithmetic), so "
            "their APs cannot be compared",
        )
    stages = [_stage(stage, keys, baseline, tried, trained) for stage in STAGES]
    return Comparison(
        f"{baseline[0]}:{baseline[1]}",
        tuple(_loss(lines[key]) for key in keys),
        tuple(each for each in stages if any(row.ap for row in each.rows)),
    )


def _trained(connection: Connection, jobs: set[str]) -> dict[str, tuple[object, object]]:
    """How the trials of jobs are trained: the trial group, and what `confirm` and `test` have of
    their own; equal for jobs that can be compared."""
    query = select(Job.id, Job.trial_group, Job.spec["funnel"]).where(Job.id.in_(sorted(jobs)))
    found: dict[str, tuple[object, object]] = {}
    for job, group, funnel in connection.execute(query):
        own: Any = (funnel if isinstance(funnel, Mapping) else {}).get("confirm") or {}
        found[job] = (group or job, (own.get("steps"), own.get("batch_size")))
    return found


def _stage(
    stage: Stage,
    keys: Sequence[Key],
    baseline: Key,
    tried: Mapping[Key, Trials],
    trained: Mapping[str, tuple[object, object]],
) -> ComparedStage:
    values = {key: tried.get(key, Trials()).values(stage) for key in keys}
    base = values[baseline]
    rows = []
    for job, index in keys:
        own = values[job, index]
        alike = stage == STAGE or trained[job] == trained[baseline[0]]
        known = alike and (job, index) != baseline
        rows.append(
            ComparedRow(
                f"{job}:{index}",
                (job, index) == baseline,
                spread(own) if own else None,
                own,
                paired(own, base) if known else None,
            )
        )
    return ComparedStage(stage, tuple(_corrected(rows, base)))


def _corrected(rows: list[ComparedRow], base: Mapping[int, float]) -> list[ComparedRow]:
    """The rows with what depends on how many they are: one without a p value, for want of seeds,
    is counted all the same."""
    others = [place for place, row in enumerate(rows) if row.difference is not None]
    own = [
        {seed: ap - base[seed] for seed, ap in rows[place].by_seed.items() if seed in base}
        for place in others
    ]
    for place, estimate in zip(others, shrunken(own), strict=True):
        rows[place] = replace(rows[place], shrunken=estimate)
    tested = [
        (place, p)
        for place in others
        if (found := rows[place].difference) is not None and (p := found.p) is not None
    ]
    lacking = [1.0] * (len(rows) - 1 - len(tested))
    corrected = holm([p for _, p in tested] + lacking)
    for (place, _), p in zip(tested, corrected, strict=False):
        rows[place] = replace(rows[place], p=p)
    return rows


def _loss(line: Line) -> ComparedLoss:
    return ComparedLoss(
        line.job_id, line.number, line.name, line.origin, line.cls_text, line.bbox_text, line.size
    )
