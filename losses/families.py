"""The six detector families whose losses can be replaced, and how one is recognised."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmdet.registry import MODELS

from losses.errors import UnsupportedHeadError

IOU_AWARE_HEAD = "IoUAwareHead"
RANKING_HEAD = "RankingHead"


@dataclass(frozen=True)
class Family:
    """What a loss has to know of a detector family.

    Attributes:
        name: faster, cascade, mask, fcos, atss or retinanet.
        cls_space: the space of its classification expressions: ``multi_cls`` for softmax heads,
            ``binary_cls`` for sigmoid heads.
        two_stage: the losses are those of the box heads on regions of interest.
        has_centerness: ``iou_centerness`` can be set.
        always_decodes: the box loss always gets decoded boxes and one weight a box; else
            ``reg_decoded_bbox`` chooses between boxes and deltas, with four weights a box.
        ranks: its heads have a form whose loss ranks all scores of a batch.
    """

    name: str
    cls_space: str
    two_stage: bool
    has_centerness: bool = False
    always_decodes: bool = False
    ranks: bool = True

    @property
    def decoded_box_weight(self) -> float:
        """Default weight of a box loss on decoded boxes."""
        return 10.0 if self.two_stage else 1.0


FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family("faster", "multi_cls", two_stage=True),
        Family("cascade", "multi_cls", two_stage=True, ranks=False),
        Family("mask", "multi_cls", two_stage=True),
        Family(
            "fcos",
            "binary_cls",
            two_stage=False,
            has_centerness=True,
            always_decodes=True,
            ranks=False,
        ),
        Family("atss", "binary_cls", two_stage=False, has_centerness=True, always_decodes=True),
        Family("retinanet", "binary_cls", two_stage=False),
    )
}

SUPPORTED_HEADS = (
    "BBoxHead and its ConvFC forms in StandardRoIHead or CascadeRoIHead"
    " (Faster, Mask, Cascade R-CNN)",
    "FCOSHead",
    "ATSSHead",
    "RetinaHead",
    "RetinaSepBNHead",
)

# where mmdet's heads compute their losses; a head of mmdet that overrides one is another method
_BOX_HEAD_SEAMS = ("loss", "loss_and_target", "get_targets")
_DENSE_HEAD_SEAMS = ("loss_by_feat", "loss_by_feat_single", "get_targets", "centerness_target")
_DENSE_FAMILIES = (
    ("FCOSHead", "fcos"),
    ("ATSSHead", "atss"),
    ("RetinaHead", "retinanet"),
    ("RetinaSepBNHead", "retinanet"),
)
# calls the box head's losses with its own weights and reductions
_FOREIGN_ROI_HEADS = ("PISARoIHead", "GridRoIHead")


def detector_family(config: Any) -> Family:
    """The family of a detector.

    Args:
        config: an mmengine Config, or its ``model`` part, as a mapping.

    Raises:
        UnsupportedHeadError: the detector belongs to none of the six families.
    """
    model = model_part(config)
    roi_head = model.get("roi_head")
    if isinstance(roi_head, Mapping):
        return _two_stage_family(roi_head)
    head = model.get("bbox_head")
    if not isinstance(head, Mapping):
        raise _unsupported(type_name(model.get("type")), "it has no box head that is known here")
    head_class = head_class_of(head)
    for base, family in _DENSE_FAMILIES:
        base_class = MODELS.get(base)
        if issubclass(head_class, base_class):
            _require_own_losses(head_class, base_class, _DENSE_HEAD_SEAMS)
            return FAMILIES[family]
    raise _unsupported(head_class.__name__)


def model_part(config: Any) -> Mapping[str, Any]:
    """The ``model`` mapping of a config; a mapping without ``model`` is taken as one itself.

    Raises:
        UnsupportedHeadError: neither.
    """
    model = config.get("model", config) if hasattr(config, "get") else None
    if not isinstance(model, Mapping) or "type" not in model:
        raise _unsupported("none", "the config has no model with a type")
    return model


def box_heads(model: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The configs of the heads whose losses are replaced: one, or one a stage of a cascade."""
    owner = model.get("roi_head", model)
    heads = owner["bbox_head"]
    yield from heads if isinstance(heads, list | tuple) else (heads,)


def stock_head_type(head: Mapping[str, Any]) -> Any:
    """The type of a head's config, seen through an IoU-aware or a ranking head."""
    if type_name(head.get("type")) in (IOU_AWARE_HEAD, RANKING_HEAD):
        return head.get("head")
    return head.get("type")


def rpn_head(model: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a two-stage detector's region proposal network.

    Raises:
        UnsupportedHeadError: it has none, or one with losses of its own.
    """
    head = model.get("rpn_head")
    if "roi_head" not in model or not isinstance(head, dict):
        raise UnsupportedHeadError(
            type_name(model.get("type")), ("RPNHead",), "it has no region proposal network"
        )
    head_class = head_class_of(head)
    base = MODELS.get("RPNHead")
    own = [] if issubclass(head_class, base) else ["losses"]
    if not own:
        own = _foreign_seams(head_class, base, _DENSE_HEAD_SEAMS)
    if own:
        raise UnsupportedHeadError(head_class.__name__, ("RPNHead",), f"it has its own {own[0]}")
    return head


def head_class_of(head: Mapping[str, Any]) -> type:
    """The class that a head's config builds.

    Raises:
        UnsupportedHeadError: no such class is registered.
    """
    kind = stock_head_type(head)
    if isinstance(kind, type):
        return kind
    try:
        found = MODELS.get(kind) if isinstance(kind, str) else None
    except RuntimeError:
        found = None
    if not isinstance(found, type):
        raise _unsupported(type_name(kind), "no such head is registered")
    return found


def type_name(kind: Any) -> str:
    """The bare name of a config's ``type``: of a class, ``mmdet.X`` or ``package.module.X``."""
    if isinstance(kind, str):
        return kind.rpartition(".")[2]
    return getattr(kind, "__name__", str(kind))


def _two_stage_family(roi_head: Mapping[str, Any]) -> Family:
    roi_class = head_class_of(roi_head)
    cascade = issubclass(roi_class, MODELS.get("CascadeRoIHead"))
    if roi_class.__name__ in _FOREIGN_ROI_HEADS or not (
        cascade or issubclass(roi_class, MODELS.get("StandardRoIHead"))
    ):
        raise _unsupported(roi_class.__name__)
    if roi_head.get("bbox_head") is None:
        raise _unsupported(roi_class.__name__, "it has no bbox_head")
    base = MODELS.get("BBoxHead")
    for head in box_heads({"roi_head": roi_head}):
        head_class = head_class_of(head)
        if not issubclass(head_class, base):
            raise _unsupported(head_class.__name__)
        _require_own_losses(head_class, base, _BOX_HEAD_SEAMS)
    if cascade:
        return FAMILIES["cascade"]
    return FAMILIES["faster" if roi_head.get("mask_head") is None else "mask"]


def _require_own_losses(head: type, base: type, seams: tuple[str, ...]) -> None:
    """A user's subclass may extend the losses; a method of mmdet that overrides them is another."""
    foreign = _foreign_seams(head, base, seams)
    if foreign:
        raise _unsupported(head.__name__, f"it has its own {foreign[0]}")


def _foreign_seams(head: type, base: type, seams: tuple[str, ...]) -> list[str]:
    return [
        name
        for owner in head.__mro__[: head.__mro__.index(base)]
        for name in seams
        if name in vars(owner) and owner.__module__.startswith("mmdet.")
    ]


def _unsupported(head: str, reason: str = "") -> UnsupportedHeadError:
    return UnsupportedHeadError(head, SUPPORTED_HEADS, reason)
