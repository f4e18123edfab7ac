"""aLRP loss: the classification part, with its error as gradient, and what its box part needs."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from losses.ranking.inputs import check_same_shape, graph_zero, result_dtype, where_true
from losses.ranking.order import Ranking
from losses.ranking.pieces import Relation, ramp


def alrp_loss(
    logits: Tensor,
    targets: Tensor,
    regression_losses: Tensor,
    delta: float = 1.0,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor]:
    """Classification part of the aLRP loss (arXiv 2009.13592, as released).

    Its value is one minus the mean precision (not interpolated) at the positives. Its gradient is
    the error of each positive, to which the regression losses of the positives ranked before it
    count as well; the negatives ranked before it share the same amount.

    Args:
        logits: any shape, floating point.
        targets: same shape; 1 positive, 0 negative, anything else is left out.
        regression_losses: (P,) box losses of the positives in the order of ``targets == 1``; no
            gradient goes to them.
        delta: "j before i" is ``clamp((s_j - s_i) / (2 delta) + 1/2, 0, 1)``; 0: 1 from equal on.
        eps: positives with at most this sum of negatives before them have no gradient.

    Returns:
        loss: scalar in [0, 1]; float64 for float64 logits, else float32. Without positives 0 with
            zero gradients; NaN with NaN gradients when the logit of a positive or negative, or a
            regression loss, is not finite.
        rank: (P,) rank of each positive among all, in the same order and dtype; no gradient.
        order: (P,) int64 positions of the positives from the lowest logit to the highest, ties by
            index.

    Raises:
        ValueError: shapes differ, or delta is negative.
    """
    check_same_shape(logits=logits, targets=targets)
    relation = ramp(delta)
    labels = targets.reshape(-1)
    positives = where_true(labels == 1)
    if regression_losses.shape != positives.shape:
        raise ValueError(
            f"regression_losses must be ({len(positives)},), one per positive,"
            f" got {tuple(regression_losses.shape)}"
        )
    if not len(positives):
        zero = graph_zero(logits)
        return zero, zero.new_zeros(0), positives
    results: tuple[Tensor, Tensor, Tensor] = _AlrpLoss.apply(
        logits.reshape(-1), labels, positives, regression_losses.detach(), relation, eps
    )
    return results


class _AlrpLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        targets: Tensor,
        positives: Tensor,
        regression_losses: Tensor,
        relation: Relation,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        box_losses = regression_losses.double()
        ranking = Ranking(logits, targets, positives, relation, box_losses)
        before = ranking.before
        rank = 1.0 - ranking.itself + ranking.among() + before
        passed = ranking.among(box_losses) - ranking.itself * box_losses
        error = torch.where(before > eps, (passed + before) / rank, 0.0)
        share = torch.where(before > eps, error / before, 0.0)
        ctx.save_for_backward(ranking.gradient(-error, share))
        loss = (before / rank).mean() + ranking.taint
        rank = rank.to(result_dtype(logits))
        ctx.mark_non_differentiable(rank, ranking.order)
        return loss.to(rank.dtype), rank, ranking.order

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0].to(gradient.dtype), None, None, None, None, None
