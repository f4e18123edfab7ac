"""AP loss: one minus the interpolated average precision of a ranking, error-driven."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from losses.ranking.inputs import check_same_shape, graph_zero, result_dtype, where_true
from losses.ranking.order import Ranking
from losses.ranking.pieces import Relation, ramp


def ap_loss(logits: Tensor, targets: Tensor, delta: float = 1.0) -> Tensor:
    """AP loss (arXiv 1904.06373; with interpolated precision, as the aLRP release has it).

    The gradient is the ranking error itself, not a derivative of the value: each positive is
    raised by its error, and the negatives ranked before it are lowered by their shares of it.

    Args:
        logits: any shape, floating point.
        targets: same shape; 1 positive, 0 negative, anything else is left out.
        delta: "j before i" is ``clamp((s_j - s_i) / (2 delta) + 1/2, 0, 1)``; 0: 1 from equal on.

    Returns:
        Scalar in [0, 1]; float64 for float64 logits, else float32. Without positives 0 with zero
        gradients; NaN with NaN gradients when the logit of a positive or negative is not finite.

    Raises:
        ValueError: shapes differ, or delta is negative.
    """
    check_same_shape(logits=logits, targets=targets)
    relation = ramp(delta)
    labels = targets.reshape(-1)
    positives = where_true(labels == 1)
    if not len(positives):
        return graph_zero(logits)
    loss: Tensor = _ApLoss.apply(logits.reshape(-1), labels, positives, relation)
    return loss


class _ApLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, positives: Tensor, relation: Relation
    ) -> Tensor:
        ranking = Ranking(logits, targets, positives, relation)
        before = ranking.before
        miss = before / (1.0 - ranking.itself + ranking.among() + before)
        # interpolated: the best precision among the positives that are ranked no higher
        best = torch.empty_like(miss)
        best[ranking.order] = miss[ranking.order].cummin(0).values
        share = torch.where(before > 0.0, best / before, 0.0)
        ctx.save_for_backward(ranking.gradient(-best, share))
        return (best.mean() + ranking.taint).to(result_dtype(logits))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0].to(gradient.dtype), None, None, None
