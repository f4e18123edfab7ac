"""Rank & Sort loss: ranking and sorting error of the positives, each with its error as gradient."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from losses.ranking.dominance import LowerOverlaps
from losses.ranking.inputs import check_same_shape, graph_zero, result_dtype, where_true
from losses.ranking.order import Ranking
from losses.ranking.pieces import Relation, ramp


def rank_sort_loss(
    logits: Tensor, targets: Tensor, delta: float = 0.5, eps: float = 1e-10
) -> tuple[Tensor, Tensor]:
    """Rank & Sort loss (arXiv 2107.11669, as released).

    The ranking error of a positive is the share of negatives among what is ranked before it; its
    sorting error is how much higher the mean of 1 - IoU of the positives ranked before it is than
    that of those of them whose IoU is no lower. A positive is before itself by 1/2. The gradient
    is the error itself: each positive is raised by its errors; the negatives before it share its
    ranking error, and the positives before it with lower IoU its sorting error.

    Args:
        logits: any shape, floating point.
        targets: same shape; the IoU, above 0, of positives, 0 for negatives; what is below 0 is
            ignored.
        delta: "j before i" is ``clamp((s_j - s_i) / (2 delta) + 1/2, 0, 1)``; 0: 1 from equal on.
        eps: an error whose shares sum to at most this has no gradient.

    Returns:
        ranking_error, sorting_error: scalars, means over the positives, float64 for float64
        logits, else float32, each with its own gradient (in the release the first carries both,
        which is the same for their sum). Without positives 0 with zero gradients; NaN with NaN
        gradients when the logit of a positive or negative, or an IoU, is not finite.

    Raises:
        ValueError: shapes differ, or delta is negative.
    """
    check_same_shape(logits=logits, targets=targets)
    relation = ramp(delta)
    overlaps = targets.detach().reshape(-1)
    # NaN is a positive as well, so that it shows
    positives = where_true(~(overlaps <= 0.0))
    if not len(positives):
        zero = graph_zero(logits)
        return zero, graph_zero(logits)
    errors: tuple[Tensor, Tensor] = _RankSortLoss.apply(
        logits.reshape(-1), overlaps, positives, relation, eps
    )
    return errors


class _RankSortLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        targets: Tensor,
        positives: Tensor,
        relation: Relation,
        eps: float,
    ) -> tuple[Tensor, Tensor]:
        overlaps = targets[positives].double()
        ranking = Ranking(logits, targets, positives, relation, overlaps)
        before, among = ranking.before, ranking.among()
        ranking_error = before / (among + before)
        raised = torch.where(before > eps, ranking_error, 0.0)
        share = torch.where(before > eps, ranking_error / before, 0.0)
        to_ranking = ranking.gradient(-raised, share)

        lower = LowerOverlaps(logits[positives].double(), overlaps, relation)
        missorted = lower.sums(torch.ones_like(overlaps)).clamp(min=0.0)
        worse = ranking.among(1.0 - overlaps)
        worse_sorted = worse - lower.sums(1.0 - overlaps)
        sorting_error = worse / among - worse_sorted / (among - missorted)
        raised = torch.where(missorted > eps, sorting_error, 0.0)
        share = torch.where(missorted > eps, sorting_error / missorted, 0.0)
        to_sorting = ranking.gradient(lower.transposed(share) - raised, torch.zeros_like(share))

        ctx.save_for_backward(to_ranking, to_sorting)
        dtype = result_dtype(logits)
        return (
            (ranking_error.mean() + ranking.taint).to(dtype),
            (sorting_error.mean() + ranking.taint).to(dtype),
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        to_ranking, to_sorting = ctx.saved_tensors
        ranking, sorting = (grad.to(to_ranking.dtype) for grad in grads)
        return to_ranking * ranking + to_sorting * sorting, None, None, None, None
