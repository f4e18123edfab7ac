"""Value and gradient of a detector's losses along one simple path each, as they are built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from search_server.report.paths import BOX_SIDE, LOGITS, SHIFTS, Curve
from search_server.report.ranking_curves import box_curve, rank_curves

if TYPE_CHECKING:
    import torch
    from torch import nn

    from losses import RankingBranch


@dataclass(frozen=True)
class LossCurves:
    """What a detector's two losses look like.

    Attributes:
        positive: classification loss of an object over its own class's logit; the IoU is 1. Of a
            ranking loss: the loss over the object's logit minus that of a single background.
        negative: classification loss of background over the same logit. Of a ranking loss: over
            the same difference, with the slope on the background's logit.
        box: box loss of a square that slides off its equal target.
        ranking: whether the classification loss is a ranking loss.
    """

    positive: Curve
    negative: Curve
    box: Curve
    ranking: bool = False


def loss_curves(detector: str, definition: Mapping[str, Any]) -> LossCurves:
    """Puts a loss definition into a detector, builds the two losses and measures them.

    Args:
        detector: text of an mmdet config.
        definition: a loss definition as plain JSON; null branches are the detector's own losses.
    """
    from losses import (  # isort: skip - before mmdet
        LossDefinition,
        RankingBranch,
        apply_loss,
        detector_family,
    )

    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope

    from losses.families import box_heads, model_part
    from workers.detector import parse_detector

    given = LossDefinition.from_json(definition)
    config = apply_loss(parse_detector(detector), given)
    head = next(box_heads(model_part(config)))
    stds = head.get("bbox_coder", {}).get("target_stds", (1.0, 1.0, 1.0, 1.0))
    ranking = given.cls if isinstance(given.cls, RankingBranch) else None
    if ranking is not None and ranking.has_box_loss:
        return ranking_curves(ranking, float(stds[0]))
    with DefaultScope.overwrite_default_scope("mmdet"):
        import mmdet.models  # noqa: F401 - registers the losses

        box_loss = MODELS.build(head["loss_bbox"])
    decoded = detector_family(config).always_decodes or bool(head.get("reg_decoded_bbox"))
    box = _box(box_loss, None if decoded else float(stds[0]))
    if ranking is not None:
        return LossCurves(*rank_curves(ranking), box, ranking=True)
    with DefaultScope.overwrite_default_scope("mmdet"):
        cls_loss = MODELS.build(head["loss_cls"])
    return LossCurves(
        positive=_classification(cls_loss, label=0),
        negative=_classification(cls_loss, label=1),
        box=box,
    )


def ranking_curves(branch: RankingBranch, std: float = 1.0) -> LossCurves:
    """The curves of a ranking loss that is the loss of the boxes too.

    Args:
        std: scale of the centre's delta, for an overlap of deltas.
    """
    return LossCurves(*rank_curves(branch), box_curve(branch, std), ranking=True)


def _classification(loss: nn.Module, label: int) -> Curve:
    """One class and background: label 0 is the object, 1 is background."""
    import torch

    x = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    sigmoid = bool(getattr(loss, "use_sigmoid", False))
    logits = x[:, None] if sigmoid else torch.stack([x, torch.zeros_like(x)], dim=1)
    labels = torch.full((len(LOGITS),), label, dtype=torch.long)
    arguments: dict[str, Any] = {"reduction_override": "none"}
    if getattr(loss, "wants_ious", False):
        positives = len(LOGITS) if label == 0 else 0
        arguments["pos_ious"] = torch.ones(positives, dtype=torch.float64)
    value = loss(logits, labels, **arguments).reshape(len(LOGITS), -1).sum(dim=1)
    return _curve(LOGITS, x, value)


def _box(loss: nn.Module, std: float | None) -> Curve:
    """``std``: scale of the centre's delta where the loss sees deltas; None: it sees boxes."""
    import torch

    x = torch.tensor(SHIFTS, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros_like(x)
    if std is None:
        square = torch.tensor([0.0, 0.0, BOX_SIDE, BOX_SIDE], dtype=torch.float64)
        target = square.expand(len(SHIFTS), 4)
        prediction = target + BOX_SIDE * torch.stack([x, zero, x, zero], dim=1)
    else:
        target = torch.zeros(len(SHIFTS), 4, dtype=torch.float64)
        prediction = torch.stack([x / std, zero, zero, zero], dim=1)
    value = loss(prediction, target, reduction_override="none")
    return _curve(SHIFTS, x, value.reshape(len(SHIFTS), -1).sum(dim=1))


def _curve(x: np.ndarray, leaf: torch.Tensor, value: torch.Tensor) -> Curve:
    import torch

    gradient = torch.zeros_like(leaf)
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return Curve(x, value.detach().numpy(), gradient.numpy())
