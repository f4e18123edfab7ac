"""bfloat16 arithmetic for the layers of a detector, as an mmengine hook; its losses stay float32.

This module imports nothing of this project, so that an export can carry it along.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any, cast

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import nn

_MARK = "runs_in_bfloat16"


@HOOKS.register_module()
class Bfloat16Layers(Hook):
    """Runs backbone, neck and heads in bfloat16 with channels last, on CPU and GPU.

    Weights, their gradients, the optimiser and all that comes after a head's layers (targets,
    losses, decoding, NMS) stay float32: a loss that is searched never sees a rounded sum. The
    layers' outputs are rounded to 8 bits of mantissa, so a training differs from one in float32 as
    two seeds differ.

    Unlike mmengine's `AmpOptimWrapper` it works without a GPU, and casts back before the losses.
    """

    priority = "VERY_HIGH"

    def before_run(self, runner: Any) -> None:
        """Wraps the layers of the runner's model, once; a copy made later (EMA) is wrapped too."""
        model = runner.model.module if hasattr(runner.model, "module") else runner.model
        model.to(memory_format=torch.channels_last)
        for part in _layers(model):
            forward = cast(MethodType, part.forward)
            if hasattr(forward, _MARK):
                continue  # trained, and now tested
            # bound, so that a copy of the module computes with the weights of the copy
            part.forward = MethodType(_in_bfloat16(forward.__func__), part)


def _layers(model: nn.Module) -> Iterator[nn.Module]:
    """The modules whose `forward` is made of layers alone."""
    roi_head = getattr(model, "roi_head", None)
    for owner, names in (
        (model, ("backbone", "neck", "rpn_head", "bbox_head")),
        (roi_head, ("bbox_head", "mask_head")),
    ):
        for name in names:
            part = getattr(owner, name, None)
            if isinstance(part, nn.ModuleList):
                yield from part
            elif isinstance(part, nn.Module):
                yield part


def _in_bfloat16(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def wrapped(part: nn.Module, *args: Any, **kwargs: Any) -> Any:
        device = "cuda" if _on_gpu(args) else "cpu"
        with torch.autocast(device, torch.bfloat16):
            found = forward(part, *args, **kwargs)
        return _float32(found)

    setattr(wrapped, _MARK, True)
    return wrapped


def _on_gpu(values: Any) -> bool:
    if isinstance(values, torch.Tensor):
        return values.is_cuda
    return isinstance(values, list | tuple) and any(map(_on_gpu, values))


def _float32(value: Any) -> Any:
    """Every bfloat16 tensor in nested lists and tuples as float32."""
    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype is torch.bfloat16 else value
    if isinstance(value, list | tuple):
        return type(value)(_float32(part) for part in value)
    return value
