"""Areas and IoU of paired boxes."""

import torch
from torch import Tensor

# smallest IoU of a positive: an expression may take its logarithm
MIN_IOU = 1e-7


def paired_areas(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Union, intersection and enclosing area of each pair of boxes.

    Args:
        pred: (N, 4) xyxy in pixels, ``x1 <= x2`` and ``y1 <= y2``.
        target: (N, 4), likewise.

    Returns:
        Three (N,) tensors in square pixels, differentiable in ``pred`` and ``target``.
    """
    overlap = (
        torch.minimum(pred[:, 2:], target[:, 2:]) - torch.maximum(pred[:, :2], target[:, :2])
    ).clamp(min=0)
    hull = (
        torch.maximum(pred[:, 2:], target[:, 2:]) - torch.minimum(pred[:, :2], target[:, :2])
    ).clamp(min=0)
    intersection = overlap.prod(dim=1)
    pred_area = (pred[:, 2:] - pred[:, :2]).prod(dim=1)
    target_area = (target[:, 2:] - target[:, :2]).prod(dim=1)
    return pred_area + target_area - intersection, intersection, hull.prod(dim=1)


@torch.no_grad()
def paired_ious(pred: Tensor, target: Tensor) -> Tensor:
    """IoU of each pair of boxes, without gradient.

    Args:
        pred: (N, 4) xyxy.
        target: (N, 4) xyxy.

    Returns:
        (N,) in [1e-7, 1], float32 or wider.
    """
    wide = torch.promote_types(pred.dtype, torch.float32)
    union, intersection, _ = paired_areas(pred.to(wide), target.to(wide))
    return (intersection / union.clamp(min=1e-6)).clamp(min=MIN_IOU)
