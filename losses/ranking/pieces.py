"""Piecewise linear functions: of an IoU in [0, 1], and of the difference of two logits."""

import functools
import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

# a segment shorter than this is a jump: its slope would cost the prefix sums their digits, and
# no logits come that close but equal ones
SHORTEST_SEGMENT = 1e-9


@dataclass(frozen=True)
class Relation:
    """A function h of a difference of logits: constant at both ends, linear in pieces between.

    Piece 0 is ``d < thresholds[0]``, piece k is ``thresholds[k-1] < d <= thresholds[k]``, the last
    piece is what is above all thresholds; ``d == thresholds[0]`` belongs to the second piece. In
    piece k, ``h(d) = intercepts[k] + slopes[k] * d``.

    Attributes:
        thresholds: m differences, not falling.
        intercepts: m + 1 values.
        slopes: m + 1 values; the first and the last are 0.
    """

    thresholds: tuple[float, ...]
    intercepts: tuple[float, ...]
    slopes: tuple[float, ...]


@dataclass(frozen=True)
class UnitFunction:
    """A function on [0, 1], linear in segments; left-continuous where it jumps.

    Attributes:
        knots: m + 1 rising x, from 0 to 1.
        starts: value at the left end of each of the m segments.
        slopes: slope of each segment.
    """

    knots: tuple[float, ...]
    starts: tuple[float, ...]
    slopes: tuple[float, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """Values at x, any shape, float64; x is cut to [0, 1], NaN stays NaN.

        Differentiable in x: at a knot the slope is that of the segment to its left, at 0 and below
        that of the first segment, above 1 that of the last (an IoU of 1 + 1e-7 keeps its gradient).
        """
        x = x + (x.clamp(0.0, 1.0) - x).detach()
        table = x.new_tensor([self.knots[:-1], self.starts, self.slopes])
        if len(self.slopes) == 1:
            knot, start, slope = table.unbind()
        else:
            # the number of inner knots strictly below x
            segment = torch.bucketize(x.detach(), table[0, 1:], right=False)
            knot, start, slope = table[0, segment], table[1, segment], table[2, segment]
        return start + slope * (x - knot)

    def relation(self) -> Relation:
        """The relation ``h(d) = f(clamp(d / 2 + 1/2, 0, 1))``."""
        low, high = self.starts[0], self._end()
        inner = [
            start + slope * (0.5 - knot)
            for knot, start, slope in zip(self.knots, self.starts, self.slopes, strict=False)
        ]
        return Relation(
            thresholds=tuple(2.0 * knot - 1.0 for knot in self.knots),
            intercepts=(low, *inner, high),
            slopes=(0.0, *(slope / 2.0 for slope in self.slopes), 0.0),
        )

    def _end(self) -> float:
        return self.starts[-1] + self.slopes[-1] * (1.0 - self.knots[-2])


@functools.lru_cache(maxsize=256)
def unit_function(row: tuple[float, ...]) -> UnitFunction:
    """The function through control points ``x_0, y_0, x_1, y_1, ...``.

    The first x is 0, the last is 1, and none is below the one before it. Where several control
    points have one x the function jumps, and takes there the value of the first of them; but at
    x = 0 it starts with the last of the points there. (So does the released implementation.)
    Between points closer than ``SHORTEST_SEGMENT`` it is constant.

    Raises:
        ValueError: not such a row of finite numbers.
    """
    if len(row) < 4 or len(row) % 2:
        raise ValueError(f"control points must be x, y pairs, at least 2, got {len(row)} numbers")
    if not all(math.isfinite(value) for value in row):
        raise ValueError(f"control points must be finite, got {list(row)}")
    xs, ys = row[0::2], row[1::2]
    if xs[0] != 0.0 or xs[-1] != 1.0 or any(b < a for a, b in itertools.pairwise(xs)):
        raise ValueError(f"x of control points must rise from 0 to 1, got {list(xs)}")
    knots, starts, slopes = [], [], []
    for (x, y), (next_x, next_y) in itertools.pairwise(zip(xs, ys, strict=True)):
        if next_x == x:
            continue
        steep = next_x - x < SHORTEST_SEGMENT
        knots.append(x)
        # f(0) is the value at the left end of the first segment
        starts.append(next_y if steep and len(knots) > 1 else y)
        slopes.append(0.0 if steep else (next_y - y) / (next_x - x))
    return UnitFunction((*knots, 1.0), tuple(starts), tuple(slopes))


def ramp(delta: float) -> Relation:
    """``clamp(d / (2 delta) + 1/2, 0, 1)``; for delta = 0 the step that is 1 from d = 0 on.

    Raises:
        ValueError: delta is negative or not finite.
    """
    if not (math.isfinite(delta) and delta >= 0.0):
        raise ValueError(f"delta must be a finite number of at least 0, got {delta!r}")
    if delta == 0.0:
        return Relation((0.0,), (0.0, 1.0), (0.0, 0.0))
    return Relation((-delta, delta), (0.0, 0.5, 1.0), (0.0, 0.5 / delta, 0.0))


# sign(d) / 2 + 1/2
HALF_STEP = Relation((0.0, 0.0), (0.0, 0.5, 1.0), (0.0, 0.0, 0.0))
