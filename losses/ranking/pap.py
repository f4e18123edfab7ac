"""Parameterized AP loss, exact and differentiable, by prefix sums."""

from collections.abc import Sequence

import torch
from torch import Tensor

from losses.ranking.inputs import (
    check_same_shape,
    graph_zero,
    result_dtype,
    unless_finite,
    where_true,
)
from losses.ranking.pieces import HALF_STEP, Relation, UnitFunction, unit_function
from losses.ranking.sums import relation_sums

# added to the number of positives before dividing by it (as released)
_COUNT_EPS = 1e-8

ControlPoints = Tensor | Sequence[Sequence[float]]


def pap_loss(
    logits: Tensor,
    ious: Tensor,
    targets: Tensor,
    control_points: ControlPoints,
    num_topk: int = 100_000,
) -> Tensor:
    """Parameterized AP loss (arXiv 2112.05138), as released.

    With positives i, the `num_topk` highest logits j that are not ignored, and
    ``x_ji = clamp((s_j - s_i) / 2 + 1/2, 0, 1)``, the mean over i of
    ``1 - I1(iou_i) + I3(iou_i) * sum_j H2(x_ji) (1 - I2(iou_j)) / sum_j H1(x_ji)``.
    Positives that are not among the highest stay as i. Equal logits are taken by index.

    Gradients are true derivatives, with H1 held fixed: to the logits through H2, to the IoUs
    through I1, I2, I3. A pair with ``|s_j - s_i|`` above 1 has none.

    Args:
        logits: any shape, floating point.
        ious: same shape, in [0, 1] (cut to that); 0 for negatives. Not detached.
        targets: same shape; 1 positive, -1 ignored, anything else negative.
        control_points: 5 rows for H2, I2, I3, I1, H1 of ``x_0, y_0, x_1, y_1, ...``, ends
            included, x rising from 0 to 1 (see `unit_function` for equal x); or 4 rows, and
            ``sign(s_j - s_i) / 2 + 1/2`` for H1. No gradient goes to them.
        num_topk: how many logits are ranked at most, at least 1.

    Returns:
        Scalar; float64 for float64 logits, else float32. Without positives 0 with zero gradients;
        NaN with NaN gradients when a logit that is not ignored is not finite, NaN when an IoU of
        a positive or ranked one is not. Where the sum over H1 is 0, which takes control points
        with H1(1/2) = 0, the quotient is 0 if its numerator is, else infinite.

    Raises:
        ValueError: shapes differ, no such control points, or `num_topk` is below 1.
    """
    check_same_shape(logits=logits, ious=ious, targets=targets)
    (h2, i2, i3, i1), h1 = _functions(control_points)
    if num_topk < 1:
        raise ValueError(f"num_topk must be at least 1, got {num_topk}")
    scores, overlaps, labels = logits.reshape(-1), ious.reshape(-1), targets.reshape(-1)
    positives = where_true(labels == 1)
    if not len(positives):
        return graph_zero(logits, ious)
    valid = where_true(labels != -1)
    candidates = scores.detach()[valid]
    taint = unless_finite(candidates)
    ranked = valid[rising_top(candidates, num_topk)]
    own, own_ious = scores[positives].double(), overlaps[positives].double()
    others, other_ious = scores[ranked].double(), overlaps[ranked].double()
    before = relation_sums(1.0 - i2(other_ious), others, own, h2.relation())
    among = relation_sums(torch.ones_like(others), others.detach(), own.detach(), h1)
    # H1 may be 0 at 1/2 and below, and then count nothing, not even the positive itself
    weighed = i3(own_ious) * before
    counted = (weighed != 0.0) | (among != 0.0)
    misranked = torch.where(counted, weighed / torch.where(counted, among, 1.0), 0.0)
    errors = 1.0 - i1(own_ious) + misranked
    loss = errors.sum() / (len(positives) + _COUNT_EPS)
    # a factor, so that the gradients are NaN as well
    return (loss * (1.0 + taint)).to(result_dtype(logits))


def rising_top(values: Tensor, count: int) -> Tensor:
    """Positions of the `count` highest values, or of all if fewer, from lowest to highest.

    Equal values are taken from the lowest position on.

    Args:
        values: (N,) floating point, any order.
        count: at least 1.
    """
    if count >= len(values):
        return values.sort().indices
    lowest = values.topk(count, sorted=False).values.min()
    above, level = values > lowest, values == lowest
    left = count - above.sum()
    kept = where_true(above | (level & (level.cumsum(0) <= left)))
    return kept[values[kept].sort().indices]


def _functions(control_points: ControlPoints) -> tuple[list[UnitFunction], Relation]:
    rows = control_points.tolist() if isinstance(control_points, Tensor) else control_points
    rows = [tuple(float(value) for value in row) for row in rows]
    if len(rows) not in (4, 5):
        raise ValueError(f"control points must have 4 or 5 rows, got {len(rows)}")
    functions = [unit_function(row) for row in rows]
    h2_to_i1, h1 = functions[:4], functions[4:]
    return h2_to_i1, h1[0].relation() if h1 else HALF_STEP
