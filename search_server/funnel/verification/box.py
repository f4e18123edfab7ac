"""Conditions on a loss per box pair, from areas in px^2: U union, I intersection, E hull."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from primitives import Expression
from search_server.funnel.verification.conditions import (
    require_between,
    require_downhill,
    require_finite,
)
from search_server.funnel.verification.pairs import areas_along, make_pairs, way_to_target
from search_server.funnel.verification.probes import Array, Mask, Probe, evaluate_at
from search_server.funnel.verification.verdict import Rejected

CORE_SIDES = (8.0, 32.0, 128.0)
SIDES = (1.0, 3.0, 8.0, 32.0, 96.0, 300.0, 800.0)
"""Sides of the target boxes in pixels: the square root of their area."""
STEPS = np.concatenate([np.linspace(0.0, 0.9, 10), [0.98, 1.0]])
"""Places on the straight way from prediction (0) to target (1)."""
CORE_WAYS, WAYS, PAIRS = 8, 24, 160

AGREEMENT = {1.0: 0.6, 3.0: 0.9}
"""Smallest Spearman correlation with 1 - IoU or 1 - GIoU over overlapping pairs, by target side.

Losses with a constant in square pixels (both of CSE-AutoLoss) order tiny boxes by size as well.
"""
AGREEMENT_ELSE = 0.99
SLOPE = (1e-2, 50.0)
"""Allowed median slope along the way where the boxes overlap, at any size."""
EXPLOSION = 200.0
"""Largest slope on ways with IoU over 0.1, relative to their median slope."""
FLAT = 1e-3
"""A slope under this share of the median counts as none."""
FLAT_SHARE = 0.02
"""Largest share of places with overlap and without slope."""
SCALE_SPREAD = 30.0
"""Largest ratio of median slopes between box sizes."""


def check(expression: Expression, measures: dict[str, float]) -> None:
    """Runs the conditions, cheapest first; adds what it measures.

    Raises:
        Rejected: by the first condition that fails.
    """
    _check_ways(expression, CORE_SIDES, CORE_WAYS, measures)
    _check_ways(expression, SIDES, WAYS, measures)
    _check_agreement(expression, measures)


def _check_ways(
    expression: Expression, sides: tuple[float, ...], ways: int, measures: dict[str, float]
) -> None:
    """Predictions moving straight to targets: finite, never uphill, pulled while overlapping."""
    probe, overlap, close = ways_probe(sides, ways)
    value, slope = evaluate_at(probe, expression)
    require_finite(value, slope, "on the way from predictions to targets")
    descent = -slope.reshape(len(sides), -1)
    medians = np.array([np.median(line[near]) for line, near in zip(descent, overlap, strict=True)])
    for side, line, steep in zip(sides, descent, np.abs(descent).max(axis=1), strict=True):
        require_downhill(line, float(steep), f"boxes of side {side:g}")
    low, high = float(medians.min()), float(medians.max())
    measures["slope_low"], measures["slope_high"] = low, high
    if low > 0:
        measures["scale_spread"] = high / low
        if high > SCALE_SPREAD * low:
            raise Rejected(
                "depends on the scale",
                f"the median slope differs {high / low:.3g}-fold between boxes of side "
                f"{min(sides):g} and {max(sides):g}; at most {SCALE_SPREAD:g}",
            )
    for side, median in zip(sides, medians, strict=True):
        require_between(float(median), *SLOPE, f"boxes of side {side:g}: the median slope")
    relative = descent / medians[:, None]
    flat = float((relative[overlap] < FLAT).mean())
    measures["flat_share"] = flat
    if flat > FLAT_SHARE:
        raise Rejected(
            "no gradient",
            f"no slope at {flat:.1%} of the places where the boxes overlap; at most "
            f"{FLAT_SHARE:.0%}",
        )
    steepest = float(relative[close].max())
    measures["steepest"] = steepest
    if steepest > EXPLOSION:
        raise Rejected(
            "gradient too large",
            f"the slope reaches {steepest:.3g} times its median where IoU is over 0.1; at most "
            f"{EXPLOSION:g}",
        )


def _check_agreement(expression: Expression, measures: dict[str, float]) -> None:
    """Loss and distance agree in their order, for targets of one size and shape range."""
    probe, rankings = pairs_probe()
    value, slope = evaluate_at(probe, expression)
    require_finite(value, slope, "at random box pairs")
    for side, line, (overlap, iou_ranks, giou_ranks) in zip(
        SIDES, value.reshape(len(SIDES), PAIRS), rankings, strict=True
    ):
        ranks = _ranks(line[overlap])
        by_iou, by_giou = _correlation(ranks, iou_ranks), _correlation(ranks, giou_ranks)
        best = max(by_iou, by_giou)
        needed = AGREEMENT.get(side, AGREEMENT_ELSE)
        measures[f"agreement_{side:g}"] = best
        if not best >= needed:
            raise Rejected(
                "disagrees with overlap",
                f"boxes of side {side:g}: rank correlation {by_iou:.3f} with 1 - IoU and "
                f"{by_giou:.3f} with 1 - GIoU; at least {needed:g} with one of them",
            )


@lru_cache(maxsize=4)
def ways_probe(sides: tuple[float, ...], ways: int) -> tuple[Probe, Mask, Mask]:
    """Places on straight ways, `(sides x ways x steps,)`; where IoU is over 0 and over 0.1.

    The two masks have shape `(sides, ways x steps)`.
    """
    columns: dict[str, list[Array]] = {name: [] for name in ("U", "I", "E", "dU", "dI", "dE")}
    for number, side in enumerate(sides):
        pred, target = make_pairs(side, ways, np.random.default_rng([7, number]), same_size=False)
        for name, array in areas_along(*way_to_target(pred, target, STEPS)).items():
            columns[name].append(array)
    stacked = {name: np.concatenate(arrays) for name, arrays in columns.items()}
    probe = Probe(
        {name: stacked[name] for name in "UIE"}, {name: stacked["d" + name] for name in "UIE"}
    )
    iou = (stacked["I"] / stacked["U"]).reshape(len(sides), -1)
    return probe, iou > 0, iou > 0.1


@lru_cache(maxsize=1)
def pairs_probe() -> tuple[Probe, list[tuple[Mask, Array, Array]]]:
    """Random pairs at every size, and per size: overlap mask, ranks of 1 - IoU and 1 - GIoU."""
    columns: dict[str, list[Array]] = {name: [] for name in "UIE"}
    moves: dict[str, list[Array]] = {name: [] for name in "UIE"}
    rankings = []
    for number, side in enumerate(SIDES):
        pred, target = make_pairs(side, PAIRS, np.random.default_rng([11, number]), same_size=True)
        areas = areas_along(pred, target, target - pred, np.sign(pred - target))
        for name in "UIE":
            columns[name].append(areas[name])
            moves[name].append(areas["d" + name])
        iou = areas["I"] / areas["U"]
        giou = iou - (areas["E"] - areas["U"]) / areas["E"]
        overlap = iou > 0
        rankings.append((overlap, _ranks(-iou[overlap]), _ranks(-giou[overlap])))
    probe = Probe(
        {name: np.concatenate(arrays) for name, arrays in columns.items()},
        {name: np.concatenate(arrays) for name, arrays in moves.items()},
    )
    return probe, rankings


def _ranks(values: Array) -> Array:
    """Ranks from 0, ties share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts + 1) / 2)[inverse]


def _correlation(a: Array, b: Array) -> float:
    """Pearson's correlation; 0 where one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else 0.0
