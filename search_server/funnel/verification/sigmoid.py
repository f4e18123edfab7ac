"""Conditions on a loss per class: X sigmoid logits, Q quality, PY label, NY 1 - label."""

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
from search_server.funnel.verification.probes import Array, Probe, evaluate_at, uses
from search_server.funnel.verification.verdict import Rejected

EDGE = 5.0
"""Logits of the core grid reach this far either side; the sigmoid is within 0.007 of 0 or 1."""
GRID = np.linspace(-EDGE, EDGE, 21)
FAR = np.array([6.0, 7.0, 8.5, 10.0, 12.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0, 45.0, 50.0])
QUALITIES = np.array([1e-7, 0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95])
OTHERS = np.array([-2.5, -0.0857])
"""Logits of two other classes, both negative, where an expression mixes classes.

Their exponentials add up to 1, so that a softmax has its decision boundary at 0 too.
"""

PULL = 1e-3
"""Smallest slope while the prediction is wrong, relative to the largest."""
SLOPE = (1e-2, 50.0)
"""Slope allowed at the decision boundary (logit 0)."""
LARGEST = 200.0
"""Largest slope allowed on the core grid."""
FAR_LARGEST = 1e4
"""Largest slope allowed at any logit up to 50."""
BALANCE = 30.0
"""Largest ratio of the slopes of positives and negatives at logit 0."""


def check(expression: Expression, measures: dict[str, float]) -> None:
    """Runs the conditions, cheapest first; adds what it measures.

    Raises:
        Rejected: by the first condition that fails.
    """
    classes = 3 if uses(expression, "Softmax") else 1
    _check_core(expression, classes, measures)
    _check_far(expression, classes, measures)
    if "Q" in expression.inputs:
        _check_qualities(expression, classes)


def _check_core(expression: Expression, classes: int, measures: dict[str, float]) -> None:
    """Quality fixed at 1 for positives and 0 for negatives, logits within the core grid."""
    value, slope = evaluate_at(core_probe(classes), expression)
    require_finite(value, slope, f"at logits within {EDGE:g}")
    # from the wrong end to the right one: positives climb, negatives descend
    positive, negative = -slope[: GRID.size], slope[GRID.size :][::-1]
    middle = GRID.size // 2
    for name, descent in (("positive", positive), ("negative", negative)):
        scale = float(np.abs(descent).max())
        measures[f"{name}_wrong_end"] = float(descent[0])
        measures[f"{name}_middle"] = float(descent[middle])
        measures[f"{name}_right_end"] = float(descent[-1])
        require_between(scale, SLOPE[0], LARGEST, f"{name}s: the largest slope")
        require_downhill(descent, scale, f"{name}s")
        require_pull(descent[: middle + 2], scale, PULL, f"{name}s on the wrong side")
        require_between(float(descent[middle]), *SLOPE, f"{name}s: the slope at logit 0")
        require_vanishing(descent, scale, f"{name}s")
    balance = float(positive[middle] / negative[middle])
    measures["balance"] = balance
    if not 1 / BALANCE <= balance <= BALANCE:
        raise Rejected(
            "one-sided",
            f"at logit 0 positives pull {balance:.3g} times as hard as negatives; "
            f"at most {BALANCE:g} either way",
        )


def _check_far(expression: Expression, classes: int, measures: dict[str, float]) -> None:
    """Logits up to 50, as an unlucky initialisation or a diverging step gives them."""
    value, slope = evaluate_at(far_probe(classes), expression)
    require_finite(value, slope, "at logits up to 50")
    largest = float(np.abs(slope).max())
    measures["largest_far_slope"] = largest
    require_between(largest, 0.0, FAR_LARGEST, "the largest slope at logits up to 50")
    half = slope.size // 2
    require_downhill(-slope[:half], largest, "positives at logits up to 50")
    require_downhill(slope[half:], largest, "negatives at logits up to 50")


def _check_qualities(expression: Expression, classes: int) -> None:
    """Positives of any quality: finite; of quality over a half: pulled up from the wrong end.

    The optimum of a quality loss lies inside for qualities below 1, so no more is asked.
    """
    value, slope = evaluate_at(quality_probe(classes), expression)
    require_finite(value, slope, "at qualities between 0 and 1")
    descent = -slope.reshape(QUALITIES.size, GRID.size)
    wrong_end = descent[QUALITIES > 0.5][:, GRID <= -4.0]
    if not (wrong_end > 0).all():
        raise Rejected(
            "wrong direction",
            f"positives of quality over 0.5: slope {-float(wrong_end.min()):.3g} "
            "at logits of -4 and less, which pushes them further down",
        )


@lru_cache(maxsize=8)
def core_probe(classes: int) -> Probe:
    """Rows: the grid for positives, then for negatives."""
    return _probe(np.tile(GRID, 2), np.repeat([1.0, 0.0], GRID.size), None, classes)


@lru_cache(maxsize=8)
def far_probe(classes: int) -> Probe:
    """Rows: far logits of both signs for positives, then for negatives."""
    logits = np.concatenate([-FAR[::-1], FAR])
    return _probe(np.tile(logits, 2), np.repeat([1.0, 0.0], logits.size), None, classes)


@lru_cache(maxsize=8)
def quality_probe(classes: int) -> Probe:
    """Rows: the grid for positives, once per quality."""
    logits = np.tile(GRID, QUALITIES.size)
    return _probe(logits, np.ones_like(logits), np.repeat(QUALITIES, GRID.size), classes)


def _probe(logits: Array, label: Array, quality: Array | None, classes: int) -> Probe:
    """Rows whose first class moves; the others, where there are any, are negatives.

    Args:
        logits, label: `(N,)`, of the first class.
        quality: `(N,)`; None: 1 for positives, 0 for negatives.
    """
    shape = (logits.size, classes)
    x, y, q, moves = np.empty(shape), np.zeros(shape), np.zeros(shape), np.zeros(shape)
    x[:, 1:] = OTHERS[: classes - 1]
    x[:, 0], y[:, 0] = logits, label
    q[:, 0] = label if quality is None else quality
    moves[:, 0] = 1.0
    return Probe({"X": x, "Q": q, "PY": y, "NY": 1.0 - y}, {"X": moves})
