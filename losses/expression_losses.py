"""The losses that a detector computes from expressions: softmax, sigmoid and box form.

All three compute in float32, or in float64 when the prediction is float64: under mixed precision
the half-precision prediction is promoted first, since areas in pixels overflow float16.
"""

from collections.abc import Mapping
from typing import Any

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from losses.boxes import paired_areas
from losses.compiled import CompiledFunction
from losses.reduction import checked_reduction, chosen_reduction, weighted_reduction
from primitives.expression import Expression
from primitives.parser import parse
from primitives.spaces import SearchSpace, space_of
from primitives.torch_eval import to_torch

# added to union and enclosing area before an expression divides by them (CSE-AutoLoss)
_AREA_EPS = 1e-7

Space = str | Mapping[str, Any] | SearchSpace


def resolve_space(space: Space) -> SearchSpace:
    """A search space from its name, its JSON form, or itself.

    Raises:
        primitives.SpaceError: unknown name, or not a well-defined space.
    """
    if isinstance(space, Mapping):
        return SearchSpace.from_json(space)
    return space_of(space)


class ExpressionLoss(nn.Module):
    """What the expression losses share: the parsed expression, its weight and its reduction.

    Attributes:
        expression: the parsed expression.
        loss_weight: factor on the reduced loss.
        reduction: ``none``, ``mean`` or ``sum``.
        scale: factor beside ``loss_weight``: what calibration found.
    """

    space_name: str

    def __init__(
        self,
        expression: str | Expression,
        loss_weight: float = 1.0,
        reduction: str = "mean",
        space: Space | None = None,
        scale: float = 1.0,
        compile: bool = False,
    ) -> None:
        """
        Args:
            expression: text in prefix form, or a parsed expression.
            loss_weight: factor on the reduced loss.
            reduction: ``none``, ``mean`` or ``sum``.
            space: search space to parse text in; default the built-in space of this loss.
            scale: factor beside ``loss_weight``.
            compile: have torch.compile compile the expression at its first use.

        Raises:
            primitives.PrimitivesError: the text is not an expression of the space.
            ValueError: unknown reduction.
        """
        super().__init__()
        if isinstance(expression, str):
            expression = parse(expression, resolve_space(space or self.space_name))
        self.expression = expression
        self.loss_weight = float(loss_weight)
        self.reduction = checked_reduction(reduction)
        self.scale = float(scale)
        compute = to_torch(expression)
        self._compute = CompiledFunction(compute) if compile else compute

    def extra_repr(self) -> str:
        scale = "" if self.scale == 1.0 else f", scale={self.scale}"
        weight = f"loss_weight={self.loss_weight}{scale}"
        return f"{self.expression}, {weight}, reduction={self.reduction!r}"

    def _weighted(
        self, loss: Tensor, weight: Tensor | None, reduction: str, avg_factor: Any
    ) -> Tensor:
        factor = self.loss_weight * self.scale
        return factor * weighted_reduction(loss, weight, reduction, avg_factor)


class ClassificationExpressionLoss(ExpressionLoss):
    """An expression loss that may ask for the IoUs of the positives.

    Attributes:
        lent_ious: (P,) in the row order of the positives; what a call without ``pos_ious`` uses.
            A stock head calls its classification loss without IoUs, so an IoU-aware head sets
            this before the call and clears it after.
    """

    iou_input: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lent_ious: Tensor | None = None

    @property
    def wants_ious(self) -> bool:
        """Whether the expression reads the IoU input."""
        return self.iou_input in self.expression.inputs

    def _positive_ious(self, pos_ious: Tensor | None, positives: Tensor, scores: Tensor) -> Tensor:
        pos_ious = self.lent_ious if pos_ious is None else pos_ious
        if pos_ious is None:
            raise ValueError(
                f"the expression {self.expression} reads the IoU input {self.iou_input}, but the"
                " head passed no pos_ious; put the loss into the detector with"
                " losses.apply_loss, which chooses a head type that does (IoUAwareHead)"
            )
        count = int(positives.sum())
        if pos_ious.shape != (count,):
            raise ValueError(
                f"pos_ious has shape {tuple(pos_ious.shape)}, but {count} rows are positive"
            )
        return pos_ious.detach().to(scores.dtype)


@MODELS.register_module()
class SoftmaxExpressionLoss(ClassificationExpressionLoss):
    """Classification loss of a softmax head: an expression in logits X, one-hot Y and IoU Z.

    X and Y are (N, C + 1), background last; Z is 1 but for the rows of positives, which hold the
    IoU of the decoded prediction with its target in every column (CSE-AutoLoss).
    """

    space_name = "multi_cls"
    iou_input = "Z"

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        pos_ious: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """
        Args:
            cls_score: (N, C + 1) logits.
            label: (N,) in [0, C]; C is background.
            weight: (N,) per row.
            avg_factor: divisor of the sum, with reduction ``mean``.
            reduction_override: replaces the reduction for this call.
            pos_ious: (P,) in (0, 1], IoU of each row with ``label < C``, in row order; needed
                when the expression reads Z. No gradient flows through it.

        Returns:
            A scalar, or (N,) with reduction ``none``.

        Raises:
            ValueError: Z is read and no IoUs are there, or their number is wrong.
        """
        reduction = chosen_reduction(self.reduction, reduction_override)
        scores = _promoted(cls_score)
        if scores.numel() == 0:
            return _empty_loss(scores, reduction, scores.shape[:1])
        inputs = {"X": scores}
        if "Y" in self.expression.inputs:
            inputs["Y"] = _one_hot(label, scores.size(1), scores.dtype)
        if self.wants_ious:
            positives = (label >= 0) & (label < scores.size(1) - 1)
            ious = torch.ones_like(scores)
            ious[positives] = self._positive_ious(pos_ious, positives, scores).unsqueeze(1)
            inputs["Z"] = ious
        loss = self._compute(**inputs)
        if weight is not None:
            weight = weight.to(loss.dtype)
        return self._weighted(loss, weight, reduction, avg_factor)


@MODELS.register_module()
class SigmoidExpressionLoss(ClassificationExpressionLoss):
    """Classification loss of a sigmoid head: an expression in logits X, IoU Q and labels PY, NY.

    All are (N, C). PY is the one-hot label (all 0 in background rows), NY is 1 - PY, Q is PY
    times the IoU of the decoded prediction with its target (CSE-AutoLoss).
    """

    space_name = "binary_cls"
    iou_input = "Q"

    def __init__(
        self,
        expression: str | Expression,
        use_sigmoid: bool = True,
        alpha: float | None = 0.25,
        loss_weight: float = 1.0,
        reduction: str = "mean",
        space: Space | None = None,
        scale: float = 1.0,
        compile: bool = False,
    ) -> None:
        """
        Args:
            expression: text in prefix form, or a parsed expression.
            use_sigmoid: True; dense heads read it from the configuration to have C channels.
            alpha: in [0, 1]; elements with PY = 1 are weighted by it, others by ``1 - alpha``.
                None: no such weighting.
            loss_weight: factor on the reduced loss.
            reduction: ``none``, ``mean`` or ``sum``.
            space: search space to parse text in; default ``binary_cls``.
            scale: factor beside ``loss_weight``.
            compile: have torch.compile compile the expression at its first use.

        Raises:
            primitives.PrimitivesError: the text is not an expression of the space.
            ValueError: ``use_sigmoid`` is False, alpha out of range, or unknown reduction.
        """
        super().__init__(expression, loss_weight, reduction, space, scale, compile)
        if not use_sigmoid:
            raise ValueError("SigmoidExpressionLoss needs use_sigmoid=True")
        if alpha is not None and not 0 <= alpha <= 1:
            raise ValueError(f"alpha {alpha} is not in [0, 1]")
        self.use_sigmoid = use_sigmoid
        self.alpha = alpha

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        pos_ious: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """
        Args:
            cls_score: (N, C) logits.
            label: (N,) in [0, C]; C is background.
            weight: (N,) per row or (N, C) per element.
            avg_factor: divisor of the sum, with reduction ``mean``.
            reduction_override: replaces the reduction for this call.
            pos_ious: (P,) in (0, 1], IoU of each row with ``label < C``, in row order; needed
                when the expression reads Q. No gradient flows through it.

        Returns:
            A scalar, or (N, C) with reduction ``none``.

        Raises:
            ValueError: Q is read and no IoUs are there, or their number is wrong.
        """
        reduction = chosen_reduction(self.reduction, reduction_override)
        scores = _promoted(cls_score)
        if scores.numel() == 0:
            return _empty_loss(scores, reduction, scores.shape)
        hot = _one_hot(label, scores.size(1), scores.dtype)
        inputs = {"X": scores, "PY": hot, "NY": 1 - hot}
        if self.wants_ious:
            positives = (label >= 0) & (label < scores.size(1))
            row_ious = torch.zeros_like(scores[:, 0])
            row_ious[positives] = self._positive_ious(pos_ious, positives, scores)
            inputs["Q"] = hot * row_ious.unsqueeze(1)
        loss = self._compute(**{name: inputs[name] for name in self.expression.inputs})
        if self.alpha is not None:
            loss = loss * (self.alpha * hot + (1 - self.alpha) * (1 - hot))
        if weight is not None:
            weight = weight.to(loss.dtype)
            if weight.dim() == 1:
                weight = weight.unsqueeze(1)
        return self._weighted(loss, weight, reduction, avg_factor)


@MODELS.register_module()
class BoxExpressionLoss(ExpressionLoss):
    """Box loss: an expression in the areas U (union), I (intersection) and E (enclosing box).

    Areas are in square pixels, one value a box; 1e-7 is added to U and E (CSE-AutoLoss). The
    boxes must be decoded: a head needs ``reg_decoded_bbox=True``.
    """

    space_name = "box"

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        **_: Any,
    ) -> Tensor:
        """
        Args:
            pred: (N, 4) decoded boxes, xyxy in pixels.
            target: (N, 4) likewise.
            weight: (N,) per box, or (N, 4), of which the mean over coordinates counts. Boxes of
                weight 0 are left out: dense heads pass meaningless pairs there, where an
                expression may not be finite.
            avg_factor: divisor of the sum, with reduction ``mean``.
            reduction_override: replaces the reduction for this call.

        Returns:
            A scalar, or (N,) with reduction ``none``.
        """
        reduction = chosen_reduction(self.reduction, reduction_override)
        pred, target = _promoted(pred), _promoted(target)
        if weight is not None:
            weight = weight.to(pred.dtype)
            weight = weight.mean(dim=-1) if weight.dim() > 1 else weight
        if pred.numel() == 0:
            return _empty_loss(pred, reduction, pred.shape[:1])
        counted = None if weight is None else weight != 0
        if counted is None or bool(counted.all()):
            loss = self._per_box(pred, target)
        else:
            loss = pred.sum(dim=1) * 0
            if bool(counted.any()):
                loss = loss.masked_scatter(counted, self._per_box(pred[counted], target[counted]))
        return self._weighted(loss, weight, reduction, avg_factor)

    def _per_box(self, pred: Tensor, target: Tensor) -> Tensor:
        union, intersection, enclosing = paired_areas(pred, target)
        areas = {"U": union + _AREA_EPS, "I": intersection, "E": enclosing + _AREA_EPS}
        return self._compute(**{name: areas[name] for name in self.expression.inputs})


def _promoted(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _one_hot(label: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """(N, classes); a label outside [0, classes) gives a row of zeros."""
    return (label.unsqueeze(1) == torch.arange(classes, device=label.device)).to(dtype)


def _empty_loss(scores: Tensor, reduction: str, shape: torch.Size) -> Tensor:
    """Zero that depends on ``scores``, so that every parameter gets a gradient."""
    return scores.reshape(-1)[:0].reshape(shape) if reduction == "none" else scores.sum() * 0
