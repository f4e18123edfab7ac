"""How many good losses the filters before the proxy task throw away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from search_server.table.contents import Table, TableLoss
from search_server.table.plan import DrawCount
from search_server.table.proportions import Interval, Share, share

KEEP_RATES = (0.25, 0.5, 0.75)
WITHOUT_GRADIENT = "ignores the prediction"  # such a loss cannot train: none of them is good
PRIOR = 2.0
_RESAMPLES = 4000


@dataclass(frozen=True)
class ConditionRow:
    """Losses that one condition of verification rejects.

    Attributes:
        good: of those trained, how many are good.
        best: highest mean AP among them.
    """

    branch: str
    condition: str
    good: Share
    best: float


@dataclass(frozen=True)
class WayRow:
    """What verification does to expressions drawn in one way.

    Attributes:
        draws, accepted: as counted when the table was planned.
        good: of the expressions accepted and trained, how many are good, see `one_each`.
        false_rejection: of all good losses among the draws, the share that is rejected; None
            before there is anything to tell it from.
    """

    branch: str
    way: str
    draws: int
    accepted: int
    good: Share
    false_rejection: Interval | None


@dataclass(frozen=True)
class SimulationRow:
    """What the simulation does at one rate.

    Attributes:
        keep: share that it lets through.
        lost: of the good losses, how many it throws away.
        best_kept: whether the best loss of the table is among those kept.
    """

    keep: float
    lost: Share
    best_kept: bool


@dataclass(frozen=True)
class FilterReplay:
    """Both filters on the losses of one detector.

    Attributes:
        mark: a loss is good if its mean AP reaches this; the baseline's mean less one standard
            deviation of a single trial.
    """

    group: str
    mark: float
    conditions: tuple[ConditionRow, ...]
    ways: tuple[WayRow, ...]
    simulation: tuple[SimulationRow, ...]


def replay_filters(table: Table, group: str, seed: int = 0) -> FilterReplay | None:
    """The filters on a table; None as long as the baseline has not been trained.

    Of draws in one way, condition by condition, the share of good losses is that of those trained,
    of the same way where there are some. With a handful for each condition that says little, so
    each share is drawn towards that of all rejected losses of the branch, as by `PRIOR` losses
    more, and its posterior is carried on into the interval, whose median is the value. Of losses
    without any gradient none is good.
    """
    own = table.baseline(group).mean()
    if own is None:
        return None
    mark = own - (table.noise(group) or 0.0)
    trained = table.trained(group)
    rejected = [loss for loss in trained if loss.rejected]
    rng = np.random.default_rng(seed)
    ways = [
        _way_row(counts, trained, rejected, mark, rng)
        for counts in table.draws
        if counts.group == group
    ]
    return FilterReplay(
        group, mark, tuple(_conditions(rejected, mark)), tuple(ways), tuple(_kept(trained, mark))
    )


def made_by(loss: TableLoss, branch: str) -> str:
    """The way in which a loss's expression of a branch was made."""
    parts = loss.plan.way.split(" + ")
    return parts[0] if branch == "cls" else parts[-1]


def one_each(
    accepted: Sequence[TableLoss], branch: str, rejected: Sequence[TableLoss]
) -> list[TableLoss]:
    """One loss for each expression of a branch, to be compared with rejected expressions.

    The losses that share an expression are no independent trials of it, and a bad partner says
    nothing about it. Rejected expressions have one partner, a good one, so an expression stands
    with that too; where no such pair was trained, with the partner that it did best with.
    """
    other = "bbox" if branch == "cls" else "cls"
    partners = {getattr(loss, other) for loss in rejected}
    found: dict[str, list[TableLoss]] = {}
    for loss in accepted:
        found.setdefault(getattr(loss, branch) or loss.id, []).append(loss)
    return [
        max(losses, key=lambda loss: (getattr(loss, other) in partners, loss.mean() or 0.0))
        for losses in found.values()
    ]


def _good(losses: Sequence[TableLoss], mark: float) -> Share:
    return share(sum((loss.mean() or 0.0) >= mark for loss in losses), len(losses))


def _conditions(rejected: Sequence[TableLoss], mark: float) -> list[ConditionRow]:
    found: dict[tuple[str, str], list[TableLoss]] = {}
    for loss in rejected:
        found.setdefault((str(loss.plan.branch), str(loss.plan.condition)), []).append(loss)
    return [
        ConditionRow(*place, _good(losses, mark), max(loss.mean() or 0.0 for loss in losses))
        for place, losses in sorted(found.items())
    ]


def _way_row(
    counts: DrawCount,
    trained: Sequence[TableLoss],
    rejected: Sequence[TableLoss],
    mark: float,
    rng: Generator,
) -> WayRow:
    branch, way = counts.branch, counts.way
    accepted = [
        loss
        for loss in trained
        if loss.plan.accepted and loss.plan.kind != "named" and made_by(loss, branch) == way
    ]
    of_branch = [loss for loss in rejected if loss.plan.branch == branch]
    accepted = one_each(accepted, branch, of_branch)
    good = _good(accepted, mark)
    if not accepted or not of_branch:
        return WayRow(branch, way, counts.draws, counts.accepted, good, None)
    all_of_branch = _good(of_branch, mark)
    prior = (all_of_branch.hits + 0.5) / (all_of_branch.count + 1)
    kept = counts.accepted * _posterior(good, 0.5, 1.0, rng)
    lost = np.zeros(_RESAMPLES)
    for condition, number in counts.conditions.items():
        if condition != WITHOUT_GRADIENT:
            fitting = [loss for loss in of_branch if loss.plan.condition == condition]
            same = [loss for loss in fitting if loss.plan.way == way]
            lost += number * _posterior(_good(same or fitting, mark), prior, PRIOR, rng)
    low, middle, high = np.quantile(lost / (lost + kept), [0.025, 0.5, 0.975])
    interval = Interval(float(middle), float(low), float(high))
    return WayRow(branch, way, counts.draws, counts.accepted, good, interval)


def _posterior(given: Share, mean: float, weight: float, rng: Generator) -> NDArray[np.float64]:
    """Draws of a share, from a beta prior of a mean that counts as much as `weight` losses."""
    hits = given.hits + weight * mean
    return rng.beta(hits, given.count + weight - hits, size=_RESAMPLES)


def _kept(trained: Sequence[TableLoss], mark: float) -> list[SimulationRow]:
    """The simulation sees what verification lets through."""
    seen = [loss for loss in trained if not loss.rejected and loss.score is not None]
    if not seen:
        return []
    ranked = sorted(seen, key=lambda loss: -(loss.score or 0.0))
    best = max(seen, key=lambda loss: loss.mean() or 0.0)
    rows = []
    for rate in KEEP_RATES:
        kept = ranked[: math.ceil(rate * len(ranked))]
        good = [loss for loss in seen if (loss.mean() or 0.0) >= mark]
        lost = sum(loss not in kept for loss in good)
        rows.append(SimulationRow(rate, share(lost, len(good)), best in kept))
    return rows
