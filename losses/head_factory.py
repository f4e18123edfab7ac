"""Builds the IoU-aware form of any head that derives from one of mmdet's with a seam."""

from functools import cache
from typing import Any

from mmdet.registry import MODELS
from torch import nn

from losses.errors import UnsupportedHeadError
from losses.heads import (
    AnchorHeadIoUFeed,
    ATSSHeadIoUFeed,
    FCOSHeadIoUFeed,
    IoUFeed,
    RoIHeadIoUFeed,
)

# mmdet's seams, nearest base class first
_SEAMS: tuple[tuple[str, type[IoUFeed]], ...] = (
    ("BBoxHead", RoIHeadIoUFeed),
    ("FCOSHead", FCOSHeadIoUFeed),
    ("ATSSHead", ATSSHeadIoUFeed),
    ("RetinaHead", AnchorHeadIoUFeed),
    ("RetinaSepBNHead", AnchorHeadIoUFeed),
)


def class_with_seam(head: type, seams: tuple[tuple[str, type], ...], prefix: str) -> type:
    """The class that is ``head`` with the mixin of its nearest seam in front.

    Args:
        head: a head of mmdet, or one that derives from it.
        seams: registered base class and its mixin, nearest base class first.
        prefix: of the new class's name.

    Raises:
        UnsupportedHeadError: ``head`` derives from none of the base classes.
    """
    for seam, mixin in seams:
        if issubclass(head, MODELS.get(seam)):
            return type(f"{prefix}{head.__name__}", (mixin, head), {"__module__": __name__})
    raise UnsupportedHeadError(head.__name__, [seam for seam, _ in seams])


@cache
def iou_aware_class(head: type) -> type:
    """The class of heads that are ``head`` and give IoUs to their losses.

    Raises:
        UnsupportedHeadError: ``head`` derives from none of mmdet's heads that have a seam here.
    """
    return class_with_seam(head, _SEAMS, "IoUAware")


@MODELS.register_module(name="IoUAwareHead")
def build_iou_aware_head(head: str, iou_centerness: bool = False, **settings: Any) -> nn.Module:
    """A detection head that gives the IoUs of its positives to its losses.

    In a config: ``dict(type='IoUAwareHead', head='RetinaHead', ...)`` with the head's own settings.

    Args:
        head: registered name of the stock head.
        iou_centerness: the centerness target is the IoU (FCOS and ATSS).
        settings: the arguments of the stock head.

    Raises:
        UnsupportedHeadError: the head is unknown, has no seam, or has no centerness.
    """
    stock = MODELS.get(head)
    if stock is None:
        raise UnsupportedHeadError(head, [seam for seam, _ in _SEAMS], "not registered")
    built = iou_aware_class(stock)(**settings)
    if iou_centerness and not hasattr(built, "centerness_target"):
        raise UnsupportedHeadError(head, ["FCOSHead", "ATSSHead"], "it has no centerness")
    built.iou_centerness = iou_centerness
    return built
