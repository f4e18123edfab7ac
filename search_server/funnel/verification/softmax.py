"""Conditions on a loss per row: X softmax logits, Y one-hot label, Z IoU of the row."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from primitives import Expression
from search_server.funnel.verification.conditions import (
    require_between,
    require_downhill,
    require_finite,
    require_pull,
    require_vanishing,
)
from search_server.funnel.verification.probes import Array, Probe, evaluate_at
from search_server.funnel.verification.verdict import Rejected

EDGE = 5.0
MARGINS = np.linspace(-EDGE, EDGE, 11)
"""Logit that moves, from the wrong side to the right one; sign turned for wrong classes."""
FAR = np.array([7.0, 10.0, 20.0, 30.0, 40.0, 50.0])
FAR_MARGINS = np.concatenate([-FAR[::-1], FAR])
IOUS = np.array([1e-7, 0.1, 0.3, 0.5, 0.7, 0.9])
COLUMNS = (2, 4, 21)
"""Numbers of classes, background included, of the wider probe."""
CORE_COLUMNS = 5

PULL = 1e-3
"""Smallest slope while the prediction is wrong, relative to the largest."""
SLOPE = (1e-2, 50.0)
"""Slope allowed at margin 0."""
LARGEST = 200.0
"""Largest slope allowed on the core margins."""
FAR_LARGEST = 1e4
"""Largest slope allowed at any margin up to 50."""
BALANCE = 30.0
"""Largest ratio of the slopes of object and background rows at margin 0."""


def check(expression: Expression, measures: dict[str, float]) -> None:
    """Runs the conditions, cheapest first; adds what it measures.

    Raises:
        Rejected: by the first condition that fails.
    """
    _check_core(expression, measures)
    _check_far(expression, measures)
    for columns in COLUMNS:
        _check_directions(expression, context_probe(columns), f"{columns} classes")
    if "Z" in expression.inputs:
        _check_ious(expression)


def _check_core(expression: Expression, measures: dict[str, float]) -> None:
    """Five classes, IoU fixed at 1: the true logit moves, then a wrong one."""
    value, slope = evaluate_at(core_probe(), expression)
    require_finite(value, slope, f"at margins within {EDGE:g}")
    true, wrong = slope.reshape(2, 2, MARGINS.size)
    middle = MARGINS.size // 2
    for name, descents in (("true logit", -true), ("wrong logit", wrong)):
        for row, descent in zip(("object", "background"), descents, strict=True):
            what = f"{row} rows, {name}"
            scale = float(np.abs(descent).max())
            key = f"{row}_{name.split()[0]}"
            measures[f"{key}_wrong_end"] = float(descent[0])
            measures[f"{key}_middle"] = float(descent[middle])
            measures[f"{key}_right_end"] = float(descent[-1])
            if name == "wrong logit" and scale < SLOPE[0] / CORE_COLUMNS:
                raise Rejected("ignores the wrong classes", f"{what}: largest slope {scale:.3g}")
            require_between(scale, SLOPE[0] / CORE_COLUMNS, LARGEST, f"{what}: the largest slope")
            require_downhill(descent, scale, what)
            require_pull(descent[: middle + 1], scale, PULL, f"{what}, on the wrong side")
            require_vanishing(descent, scale, what)
    at_zero = -true[:, middle]
    for row, slope_there in zip(("object", "background"), at_zero, strict=True):
        require_between(float(slope_there), *SLOPE, f"{row} rows: the slope at margin 0")
    balance = float(at_zero[0] / at_zero[1])
    measures["balance"] = balance
    if not 1 / BALANCE <= balance <= BALANCE:
        raise Rejected(
            "one-sided",
            f"at margin 0 object rows pull {balance:.3g} times as hard as background rows; "
            f"at most {BALANCE:g} either way",
        )


def _check_far(expression: Expression, measures: dict[str, float]) -> None:
    """Margins up to 50, as an unlucky initialisation or a diverging step gives them."""
    value, slope = evaluate_at(far_probe(), expression)
    require_finite(value, slope, "at margins up to 50")
    largest = float(np.abs(slope).max())
    measures["largest_far_slope"] = largest
    require_between(largest, 0.0, FAR_LARGEST, "the largest slope at margins up to 50")
    true, wrong = np.split(slope, 2)
    require_downhill(-true, largest, "true logit at margins up to 50")
    require_downhill(wrong, largest, "wrong logit at margins up to 50")


def _check_directions(expression: Expression, probe: Probe, where: str) -> None:
    """Random rows: the true logit's rise lowers the loss, any wrong logit's rise does not."""
    value, slope = evaluate_at(probe, expression)
    require_finite(value, slope, f"with {where}")
    true, wrong = np.split(slope, 2)
    scale = float(np.abs(slope).max())
    require_downhill(-true, scale, f"true logit with {where}")
    require_downhill(wrong, scale, f"wrong logit with {where}")


def _check_ious(expression: Expression) -> None:
    """Object rows of any IoU: finite, and never the wrong way round.

    Below an IoU of 0.5 the row may be ignored, but not turned against its label.
    """
    value, slope = evaluate_at(iou_probe(), expression)
    require_finite(value, slope, "at IoUs between 0 and 1")
    descent = -slope.reshape(IOUS.size, MARGINS.size)
    for iou, line in zip(IOUS, descent, strict=True):
        scale = float(np.abs(line).max())
        require_downhill(line, scale, f"object rows at IoU {iou:.1f}")
        if iou >= 0.5:
            require_between(scale, SLOPE[0], LARGEST, f"the largest slope at IoU {iou:.1f}")


@lru_cache(maxsize=1)
def core_probe() -> Probe:
    """Rows: (true, wrong logit moves) x (object, background row) x margins."""
    return _margin_probe(MARGINS)


@lru_cache(maxsize=1)
def far_probe() -> Probe:
    """Rows as in the core probe, at far margins."""
    return _margin_probe(FAR_MARGINS)


@lru_cache(maxsize=1)
def iou_probe() -> Probe:
    """Rows: IoUs x margins, object rows whose true logit moves."""
    count = IOUS.size * MARGINS.size
    labels = np.zeros(count, dtype=int)
    x = _with_others(np.tile(MARGINS, IOUS.size), labels)
    return _probe(x, labels, labels, np.repeat(IOUS, MARGINS.size))


@lru_cache(maxsize=8)
def context_probe(columns: int) -> Probe:
    """Random rows with logits of spread 3: the true logit moves, then a wrong one. IoU 1."""
    rng = np.random.default_rng(columns)
    rows = 32
    x = np.tile(rng.normal(0.0, 3.0, (rows, columns)), (2, 1))
    labels = np.where(np.arange(rows) % 4 == 0, columns - 1, rng.integers(0, columns, rows))
    wrong = (labels + rng.integers(1, columns, rows)) % columns
    return _probe(x, np.tile(labels, 2), np.concatenate([labels, wrong]), np.ones(2 * rows))


def _margin_probe(margins: Array) -> Probe:
    """The true logit climbs over the margins; then a wrong one falls over them, the rest fixed."""
    rows, half = 4 * margins.size, 2 * margins.size
    labels = np.tile(np.repeat([0, CORE_COLUMNS - 1], margins.size), 2)
    moved = np.where(np.arange(rows) < half, labels, CORE_COLUMNS // 2)
    logits = np.concatenate([np.tile(margins, 2), np.tile(-margins, 2)])
    return _probe(_with_others(logits, moved), labels, moved, np.ones(rows))


def _with_others(logits: Array, moved: Array) -> Array:
    """Rows `(N, CORE_COLUMNS)` with the moving logit in its column, and other logits that stay.

    The others are such that softmax gives the moving class sigmoid(logit): its decision boundary
    is at 0, for losses that go through a softmax as for those that go through a sigmoid.
    """
    x = np.tile(np.linspace(-1.0, 1.0, CORE_COLUMNS), (logits.size, 1))
    rows = np.arange(logits.size)
    x[rows, moved] = -np.inf
    x -= np.log(np.exp(x).sum(axis=1, keepdims=True))
    x[rows, moved] = logits
    return x


def _probe(x: Array, labels: Array, moved: Array, ious: Array) -> Probe:
    """Rows of logits `(N, C + 1)` with label, moving column and IoU each `(N,)`."""
    rows = np.arange(len(x))
    y, moves = np.zeros_like(x), np.zeros_like(x)
    y[rows, labels] = 1.0
    moves[rows, moved] = 1.0
    z = np.repeat(ious[:, None], x.shape[1], axis=1)
    return Probe({"X": x, "Y": y, "Z": z}, {"X": moves})
