"""mmdet's reduction rules, for losses of our own."""

import torch
from torch import Tensor

REDUCTIONS = ("none", "mean", "sum")
# what mmdet adds to avg_factor: the machine epsilon of float32, whatever the loss's dtype
_AVG_EPS = torch.finfo(torch.float32).eps


def chosen_reduction(default: str, override: str | None) -> str:
    """The reduction of one call.

    Raises:
        ValueError: ``override`` is not one of none, mean, sum.
    """
    if override is None:
        return default
    return checked_reduction(override)


def checked_reduction(reduction: str) -> str:
    """``reduction`` itself.

    Raises:
        ValueError: it is not one of none, mean, sum.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction {reduction!r} is not one of {', '.join(REDUCTIONS)}")
    return reduction


def weighted_reduction(
    loss: Tensor,
    weight: Tensor | None,
    reduction: str,
    avg_factor: float | Tensor | None,
) -> Tensor:
    """Weight a loss elementwise and reduce it.

    Args:
        loss: (N,) or (N, C).
        weight: broadcastable to ``loss``, or None.
        reduction: ``none`` returns the weighted elements.
        avg_factor: divisor of the sum in place of the number of elements; only with ``mean``
            (ignored with ``none``).

    Raises:
        ValueError: ``avg_factor`` together with ``sum``.
    """
    if weight is not None:
        loss = loss * weight
    if reduction == "none":
        return loss
    if avg_factor is not None:
        if reduction == "sum":
            raise ValueError('avg_factor can not be used with reduction="sum"')
        return loss.sum() / (avg_factor + _AVG_EPS)
    return loss.sum() if reduction == "sum" or loss.numel() == 0 else loss.mean()
