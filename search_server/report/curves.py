"""Value and gradient of a detector's losses along one simple path each, as they are built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import nn

#: The path of the classification losses.
LOGITS = np.linspace(-6.0, 6.0, 121)
#: The path of the box losses, displacement in widths of the box; 0 is a kink of most of them.
SHIFTS = np.linspace(0.005, 1.5, 150)
BOX_SIDE = 32.0


@dataclass(frozen=True)
class Curve:
    """A loss along a path.

    Attributes:
        x: (n,) the path: a logit, or a displacement in box widths.
        value: (n,) the loss of one sample, its weight included.
        gradient: (n,) d value / d x.
    """

    x: np.ndarray
    value: np.ndarray
    gradient: np.ndarray


@dataclass(frozen=True)
class LossCurves:
    """What a detector's two losses look like.

    Attributes:
        positive: classification loss of an object over its own class's logit; the IoU is 1.
        negative: classification loss of background over the same logit.
        box: box loss of a square that slides off its equal target.
    """

    positive: Curve
    negative: Curve
    box: Curve


def loss_curves(detector: str, definition: Mapping[str, Any]) -> LossCurves:
    """Puts a loss definition into a detector, builds the two losses and measures them.

    Args:
        detector: text of an mmdet config.
        definition: a loss definition as plain JSON; null branches are the detector's own losses.
    """
    from losses import LossDefinition, apply_loss, detector_family  # isort: skip - before mmdet

    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope

    from losses.families import box_heads, model_part
    from workers.detector import parse_detector

    config = apply_loss(parse_detector(detector), LossDefinition.from_json(definition))
    head = next(box_heads(model_part(config)))
    with DefaultScope.overwrite_default_scope("mmdet"):
        import mmdet.models  # noqa: F401 - registers the losses

        cls_loss = MODELS.build(head["loss_cls"])
        box_loss = MODELS.build(head["loss_bbox"])
    decoded = detector_family(config).always_decodes or bool(head.get("reg_decoded_bbox"))
    stds = head.get("bbox_coder", {}).get("target_stds", (1.0, 1.0, 1.0, 1.0))
    return LossCurves(
        positive=_classification(cls_loss, label=0),
        negative=_classification(cls_loss, label=1),
        box=_box(box_loss, None if decoded else float(stds[0])),
    )


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
