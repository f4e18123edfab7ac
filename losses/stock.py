"""mmdet's own losses: which head each one fits, and what it must be told there."""

from typing import Any

from losses.branches import StockBranch
from losses.errors import DefinitionError
from losses.families import Family, type_name

# losses of softmax heads, (N, C + 1) logits
SOFTMAX_LOSSES = ("CrossEntropyLoss", "SeesawLoss")
# losses of sigmoid heads, (N, C) logits; each takes use_sigmoid
SIGMOID_LOSSES = ("FocalLoss", "CrossEntropyLoss", "GHMC")
# FCOS's head passes no label weights
NEED_LABEL_WEIGHTS = ("GHMC",)
# losses on decoded boxes that take one weight a box or four
DECODED_LOSSES = ("IoULoss", "GIoULoss", "DIoULoss", "CIoULoss", "EIoULoss", "SIoULoss")
# losses on decoded boxes that weight each coordinate
DECODED_PER_SIDE_LOSSES = ("BoundedIoULoss",)
# losses on deltas, weighting each coordinate
DELTA_LOSSES = ("L1Loss", "SmoothL1Loss", "BalancedL1Loss", "MSELoss", "GHMR")

_ADVICE = {
    "QualityFocalLoss": "it wants (label, score) pairs, which this head does not pass; the named"
    " loss qfl-giou has it as an expression",
    "VarifocalLoss": "it wants IoU scores as labels, which this head does not pass; the named loss"
    " vfl-giou has it as an expression",
}


def stock_cls_config(branch: StockBranch, family: Family) -> dict[str, Any]:
    """The mmdet config of a stock classification loss, without ``loss_weight``.

    Raises:
        DefinitionError: the loss does not fit the family's heads.
    """
    sigmoid = family.cls_space == "binary_cls"
    fitting: tuple[str, ...] = SIGMOID_LOSSES if sigmoid else SOFTMAX_LOSSES
    if family.name == "fcos":
        fitting = tuple(name for name in fitting if name not in NEED_LABEL_WEIGHTS)
    config = branch.config
    name = type_name(config["type"])
    if name not in fitting:
        kind = "sigmoid" if sigmoid else "softmax"
        advice = _ADVICE.get(name, f"its {kind} head takes {', '.join(fitting)} or an expression")
        raise DefinitionError(f"{name} does not fit {family.name}: {advice}", "cls.loss.type")
    if name == "SeesawLoss":
        return config
    if config.setdefault("use_sigmoid", sigmoid) is not sigmoid:
        raise DefinitionError(
            f"must be {str(sigmoid).lower()} in {family.name}", "cls.loss.use_sigmoid"
        )
    return config


def stock_bbox_config(branch: StockBranch, family: Family) -> tuple[dict[str, Any], bool]:
    """The mmdet config of a stock box loss without ``loss_weight``, and if it takes decoded boxes.

    Raises:
        DefinitionError: the loss does not fit the family's heads.
    """
    config = branch.config
    name = type_name(config["type"])
    if name in DECODED_LOSSES:
        return config, True
    if family.always_decodes:
        raise DefinitionError(
            f"{name} does not fit {family.name}, whose box loss gets decoded boxes with one weight"
            f" each: it takes {', '.join(DECODED_LOSSES)} or an expression",
            "bbox.loss.type",
        )
    if name in DECODED_PER_SIDE_LOSSES:
        return config, True
    if name in DELTA_LOSSES:
        return config, False
    known = (*DECODED_LOSSES, *DECODED_PER_SIDE_LOSSES, *DELTA_LOSSES)
    raise DefinitionError(
        f"unknown box loss {name}; known are {', '.join(known)}", "bbox.loss.type"
    )
