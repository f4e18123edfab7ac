"""Conditions that losses of more than one family have to meet."""

from __future__ import annotations

import numpy as np

from search_server.funnel.verification.probes import Array
from search_server.funnel.verification.verdict import Rejected

REVERSAL = 1e-6
"""Largest wrong-way slope, relative to the largest slope: rounding, not a direction."""

VANISHING = 0.1
"""Largest slope at the right end, relative to the largest slope."""
EVEN = 1.01
"""Largest slope at the right end, relative to the wrong end: symmetric losses (|p - y|) pass."""


def require_finite(value: Array, slope: Array, where: str) -> None:
    """Neither value nor slope is NaN or infinite ("non-finite")."""
    bad_value, bad_slope = ~np.isfinite(value), ~np.isfinite(slope)
    if bad_value.any():
        raise Rejected(
            "non-finite", f"value not finite at {bad_value.sum()} of {value.size} points {where}"
        )
    if bad_slope.any():
        raise Rejected(
            "non-finite", f"gradient not finite at {bad_slope.sum()} of {slope.size} points {where}"
        )


def require_downhill(descent: Array, scale: float, what: str) -> None:
    """No point where a step towards the target raises the loss ("wrong direction").

    Args:
        descent: slope of the loss towards the target with its sign turned, so that positive is
            right, any shape.
        scale: the slope that a reversal is measured against.
        what: the case, for the message.
    """
    worst = float(descent.min())
    if worst < -REVERSAL * scale:
        share = float((descent < -REVERSAL * scale).mean())
        raise Rejected(
            "wrong direction",
            f"{what}: the loss rises towards the target at {share:.0%} of the points "
            f"(slope up to {-worst:.3g}, largest slope {scale:.3g})",
        )


def require_pull(descent: Array, scale: float, share: float, what: str) -> None:
    """Where the prediction is wrong the loss pulls with at least `share` of its largest slope."""
    weakest = float(descent.min())
    if weakest < share * scale:
        raise Rejected(
            "no gradient",
            f"{what}: slope {weakest:.3g} at its weakest, under {share:g} of the largest "
            f"({scale:.3g})",
        )


def require_vanishing(descent: Array, scale: float, what: str) -> None:
    """Where the prediction is right the slope has faded: against its largest, and no larger than
    where the prediction is as wrong as that.

    Args:
        descent: `(N,)`, from the wrong end to the right one.
    """
    wrong_end, right_end = abs(float(descent[0])), abs(float(descent[-1]))
    if right_end > VANISHING * scale or right_end > EVEN * wrong_end:
        raise Rejected(
            "does not vanish",
            f"{what}: slope {right_end:.3g} where right; at most {VANISHING:g} of the largest "
            f"({scale:.3g}) and no more than where wrong ({wrong_end:.3g}) may remain",
        )


def require_between(value: float, low: float, high: float, what: str) -> None:
    """A slope is of a size that a learning rate can work with."""
    if not value >= low:
        raise Rejected("gradient too small", f"{what} is {value:.3g}, under {low:g}")
    if not value <= high:
        raise Rejected("gradient too large", f"{what} is {value:.3g}, over {high:g}")
