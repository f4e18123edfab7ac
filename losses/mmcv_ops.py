"""A stand-in for mmcv's compiled ops: torchvision's where it has them, a clear error elsewhere.

mmdet imports ``mmcv.ops``, which loads the compiled module ``mmcv._ext``; `mmcv-lite` has none.
Importing this module puts a replacement at that name, unless compiled mmcv is installed.
It must happen before the first import of ``mmdet.models``.
"""

import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor

from losses.errors import MissingOpError

EXTENSION_NAME = "mmcv._ext"


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Indices of the kept boxes, best score first.

    Args:
        boxes: (N, 4) xyxy in pixels.
        scores: (N,).
        iou_threshold: a box is dropped when its IoU with a better one is greater.
        offset: 1 counts the last pixel as part of the box (width ``x2 - x1 + 1``).
    """
    boxes = _wide(boxes)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torchvision.ops.nms(boxes, scores.to(boxes.dtype), float(iou_threshold))


def _require_average(pool_mode: int) -> None:
    if pool_mode != 1:
        raise MissingOpError("roi_align_forward with pool_mode='max'")


def _roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``output`` (R, C, H, W) from ``input`` (N, C, h, w) and ``rois`` (R, 5) index + xyxy."""
    _require_average(pool_mode)
    features = _wide(input)
    output.copy_(
        torch.ops.torchvision.roi_align(
            features,
            rois.to(features.dtype),
            float(spatial_scale),
            aligned_height,
            aligned_width,
            int(sampling_ratio),
            bool(aligned),
        )
    )


def _roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``grad_input`` (N, C, h, w) from ``grad_output`` (R, C, H, W)."""
    _require_average(pool_mode)
    grad = _wide(grad_output)
    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            grad,
            rois.to(grad.dtype),
            float(spatial_scale),
            aligned_height,
            aligned_width,
            *grad_input.shape,
            int(sampling_ratio),
            bool(aligned),
        )
    )


def _focal_parts(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    logits = _wide(input)
    hit = target.unsqueeze(1) == torch.arange(input.size(1), device=input.device)
    log_sigmoid = torch.nn.functional.logsigmoid
    return logits.sigmoid(), hit, log_sigmoid(logits), log_sigmoid(-logits)


def _class_weight(weight: Tensor | None, target: Tensor) -> Tensor | float:
    if weight is None or weight.numel() == 0:
        return 1.0
    inside = target < weight.numel()
    return torch.where(inside, weight[target.clamp(max=weight.numel() - 1)], 1.0).unsqueeze(1)


def _sigmoid_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Fill ``output`` (N, C) with the focal loss of logits ``input`` and labels ``target`` (N,).

    mmdet calls this op on CUDA tensors only; its own Python form serves the CPU.
    """
    p, hit, log_p, log_not_p = _focal_parts(input, target)
    positive = -alpha * (1 - p) ** gamma * log_p
    negative = -(1 - alpha) * p**gamma * log_not_p
    output.copy_(torch.where(hit, positive, negative) * _class_weight(weight, target))


def _sigmoid_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Fill ``grad_input`` (N, C) with the derivative of the forward op by ``input``."""
    p, hit, log_p, log_not_p = _focal_parts(input, target)
    positive = -alpha * (1 - p) ** gamma * (1 - p - gamma * p * log_p)
    negative = -(1 - alpha) * p**gamma * (gamma * (1 - p) * log_not_p - p)
    grad_input.copy_(torch.where(hit, positive, negative) * _class_weight(weight, target))


SUBSTITUTE_OPS: dict[str, Callable[..., Any]] = {
    "nms": _nms,
    "roi_align_forward": _roi_align_forward,
    "roi_align_backward": _roi_align_backward,
    "sigmoid_focal_loss_forward": _sigmoid_focal_loss_forward,
    "sigmoid_focal_loss_backward": _sigmoid_focal_loss_backward,
}


def _missing_op(name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        raise MissingOpError(name)

    call.__name__ = name
    return call


class _StandInModule(types.ModuleType):
    """Has every op: mmcv asks ``hasattr`` for each one it knows while it is imported."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        op = SUBSTITUTE_OPS.get(name) or _missing_op(name)
        setattr(self, name, op)
        return op


class _StandInLoader:
    """mmengine takes ops as present when ``pkgutil.find_loader('mmcv._ext')`` is not None."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _StandInModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        return None


def _compiled_spec() -> importlib.machinery.ModuleSpec | None:
    mmcv = importlib.util.find_spec("mmcv")
    if mmcv is None or mmcv.submodule_search_locations is None:
        return None
    # not importlib.util.find_spec(EXTENSION_NAME): that would import mmcv, which takes seconds
    return importlib.machinery.PathFinder.find_spec(
        EXTENSION_NAME, list(mmcv.submodule_search_locations)
    )


def mmcv_kind() -> str:
    """``compiled``, ``stand-in`` (this module's ops over mmcv-lite) or ``missing`` (no mmcv)."""
    if isinstance(sys.modules.get(EXTENSION_NAME), _StandInModule):
        return "stand-in"
    if importlib.util.find_spec("mmcv") is None:
        return "missing"
    return "compiled" if _compiled_spec() is not None else "stand-in"


def install_stand_in() -> bool:
    """Make ``mmcv._ext`` importable; says whether the stand-in is in place.

    Does nothing when compiled mmcv is installed or the name is already taken. An import of
    mmdet's models that failed before for want of ops can be repeated afterwards.
    """
    present = sys.modules.get(EXTENSION_NAME)
    if present is not None:
        return isinstance(present, _StandInModule)
    if _compiled_spec() is not None:
        return False
    loader = _StandInLoader()
    spec = importlib.machinery.ModuleSpec(EXTENSION_NAME, loader, origin=__name__)  # type: ignore[arg-type]
    sys.modules[EXTENSION_NAME] = importlib.util.module_from_spec(spec)
    return True


STAND_IN_ACTIVE = install_stand_in()
