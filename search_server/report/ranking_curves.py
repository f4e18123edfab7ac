"""What a ranking loss looks like: one object against one background, and its box sliding off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from search_server.report.paths import GAPS, SHIFTS, Curve

if TYPE_CHECKING:
    import torch

    from losses import RankingBranch

_APART = 8.0  # logits: no loss here tells such a background from one that is not there


def rank_curves(branch: RankingBranch) -> tuple[Curve, Curve]:
    """The loss of an object with a perfect box beside one background, over their logits' gap.

    Returns:
        The slope on the object's logit, and the same with that on the background's.
    """
    import torch

    values, slopes = [], []
    for gap in GAPS:
        logits = torch.tensor([gap, 0.0], dtype=torch.float64, requires_grad=True)
        value = _rank_loss(branch, logits, torch.ones((), dtype=torch.float64))
        value = value * (1.0 if branch.loss_weight is None else branch.loss_weight)
        (slope,) = torch.autograd.grad(value, logits)
        values.append(float(value.detach()))
        slopes.append(slope.numpy())
    value_array, slope_array = np.array(values), np.array(slopes)
    return (
        Curve(GAPS, value_array, slope_array[:, 0]),
        Curve(GAPS, value_array, slope_array[:, 1]),
    )


def box_curve(branch: RankingBranch, std: float) -> Curve:
    """The loss of the one object, ranked first, while its box slides off the equal target.

    The slope is what reaches the box, PAP's gradient scale and the box weight included; the weight
    with which aLRP and RankSort balance their parts while they train is taken as 1.

    Args:
        std: scale of the centre's delta, for an overlap of deltas.
    """
    import torch

    x = torch.tensor(SHIFTS, dtype=torch.float64, requires_grad=True)
    if branch.loss == "pap":
        overlap = _overlap(x, branch.overlap or "giou", std)
        logits = torch.tensor([0.0, -_APART], dtype=torch.float64)
        value = torch.stack([_rank_loss(branch, logits, own) for own in overlap])
        value = value * (1.0 if branch.loss_weight is None else branch.loss_weight)
        scale = branch.box_gradient_scale or 1.0
    else:
        giou = branch.box_loss == "GIoULoss"
        weight = 1.0 if branch.box_weight is None else branch.box_weight
        value, scale = weight * (1 - (_giou(x) if giou else _iou(x))), 1.0
    (slope,) = torch.autograd.grad(value.sum(), x)
    return Curve(SHIFTS, value.detach().numpy(), scale * slope.numpy())


def _rank_loss(branch: RankingBranch, logits: torch.Tensor, overlap: torch.Tensor) -> torch.Tensor:
    """The ranking part of a loss for an object of some overlap and a background, shape ()."""
    import torch

    from losses import alrp_loss, ap_loss, pap_loss, rank_sort_loss

    targets = torch.tensor([1, 0])
    if branch.loss == "pap":
        assert branch.functions is not None
        ious = torch.stack([overlap, torch.zeros_like(overlap)])
        points = torch.tensor(branch.functions.rows(), dtype=logits.dtype)
        return pap_loss(logits, ious, targets, points)
    assert branch.delta is not None
    if branch.loss == "ap":
        return ap_loss(logits, targets, branch.delta)
    if branch.loss == "alrp":
        return alrp_loss(logits, targets, (1 - overlap.detach())[None], branch.delta)[0]
    quality = torch.stack([overlap.detach(), torch.zeros_like(overlap)])
    ranking, sorting = rank_sort_loss(logits, quality, branch.delta)
    return ranking + sorting


def _overlap(x: torch.Tensor, kind: str, std: float) -> torch.Tensor:
    """Overlap in [0, 1] of two equal squares that are `x` widths apart, as PAP measures it."""
    if kind == "giou":
        return (_giou(x) + 1) / 2
    return _iou(x) if kind == "iou" else (1 - x / std).clamp(0, 1)


def _iou(x: torch.Tensor) -> torch.Tensor:
    shared = (1 - x).clamp(min=0)
    return shared / (2 - shared)


def _giou(x: torch.Tensor) -> torch.Tensor:
    shared = (1 - x).clamp(min=0)
    around = 1 + x
    return _iou(x) - (around - (2 - shared)) / around
