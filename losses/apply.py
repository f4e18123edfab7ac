"""Puts a loss definition into a detector: the only place where a loss enters a config."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from losses.branches import ExpressionBranch, StockBranch, space_json
from losses.definition import LossDefinition
from losses.errors import DefinitionError, UnsupportedHeadError
from losses.expression_losses import resolve_space
from losses.families import (
    IOU_AWARE_HEAD,
    Family,
    box_heads,
    detector_family,
    model_part,
    stock_head_type,
    type_name,
)
from losses.learning_rate import scale_learning_rate
from losses.plain import plain_config
from losses.ranking_branch import RankingBranch
from losses.ranking_config import (
    check_ranking,
    put_rpn_ranking,
    set_sampler,
    unwrap_ranking,
    wrap_ranking,
)
from losses.stock import stock_bbox_config, stock_cls_config
from primitives import parse

_PACKAGE = "losses"
_EXPRESSION_LOSSES = ("SoftmaxExpressionLoss", "SigmoidExpressionLoss")


def apply_loss(
    config: Config | Mapping[str, Any] | str | Path, definition: LossDefinition
) -> Config:
    """A copy of a detector's config that trains with a loss definition.

    A branch of None keeps the detector's own loss. A region proposal network keeps its losses but
    for a ranking loss that the definition has for it; one that an earlier definition put there is
    taken off by a definition with a classification loss. The copy is plain text: classes in a lazy
    config become their dotted names.

    A `learning_rate_scale` multiplies the optimiser's learning rate and the schedulers' absolute
    bounds; it is noted in the copy, so that the next definition starts from the detector's own.

    Under a ranking loss a head becomes a ``RankingHead``, and its sampler one that leaves nothing
    out; the sampler that was there is kept as ``replaced_sampler`` beside it, and is put back with
    the next loss that ranks nothing.

    Args:
        config: an mmdet 3.x config, text or lazy style, of Faster, Cascade or Mask R-CNN, FCOS,
            ATSS or RetinaNet; or the path of one.
        definition: what replaces its losses.

    Returns:
        A new config; ``custom_imports`` names this package first.

    Raises:
        UnsupportedHeadError: the detector is of no supported family, or has no centerness and
            the definition sets ``iou_centerness``.
        DefinitionError: a loss does not fit the family's heads, or the definition has a box loss
            and leaves a ranking loss there that is the loss of the boxes too, or it scales a
            learning rate that the config does not name.
    """
    if isinstance(config, str | Path):
        config = Config.fromfile(str(config))
    plain = plain_config(config)
    family = detector_family(plain)
    if definition.iou_centerness and not family.has_centerness:
        found = type_name(stock_head_type(next(box_heads(model_part(plain)))))
        raise UnsupportedHeadError(
            found, ("FCOSHead", "ATSSHead"), "iou_centerness is set, but it has no centerness"
        )
    check_ranking(definition, family)
    model = model_part(plain)
    ranking = [_put_losses(head, definition, family) for head in box_heads(model)]
    train_cfg = model.get("train_cfg")
    if family.two_stage and isinstance(train_cfg, dict):
        train_cfg = train_cfg.get("rcnn")
    set_sampler(train_cfg, any(ranking))
    put_rpn_ranking(model, definition)
    scale_learning_rate(plain, definition.learning_rate_scale)
    _import_first(plain)
    return Config(plain)


def _put_losses(head: dict[str, Any], definition: LossDefinition, family: Family) -> bool:
    """Whether the head's loss is a ranking now."""
    _unwrap(head)
    ranking = unwrap_ranking(head)
    if isinstance(definition.cls, RankingBranch):
        ranking = definition.cls.config
    elif definition.cls is not None:
        ranking = None
        head["loss_cls"] = _cls_config(definition.cls, family)
    if ranking is not None:
        _check_kept_ranking(ranking, definition)
    if definition.bbox is not None:
        assert not isinstance(definition.bbox, RankingBranch), "a definition refuses it"
        head["loss_bbox"], decoded = _bbox_config(definition.bbox, family)
        if family.name != "fcos":  # FCOS has no such setting: its box loss is on boxes
            head["reg_decoded_bbox"] = decoded
    if ranking is not None:
        wrap_ranking(head, ranking)
    elif definition.iou_centerness or _reads_ious(head.get("loss_cls"), family):
        _wrap(head, definition.iou_centerness)
    return ranking is not None


def _check_kept_ranking(ranking: Mapping[str, Any], definition: LossDefinition) -> None:
    """A definition without a classification loss has to fit the ranking loss that stays."""
    kept = type_name(ranking["type"])
    if definition.bbox is not None and kept != "APRankingLoss":
        raise DefinitionError(
            f"must be null: the detector keeps {kept}, which is the loss of the boxes too; give"
            " cls as well to replace it",
            "bbox",
        )
    if definition.iou_centerness:
        raise DefinitionError(
            f"does not go with {kept}, which the detector keeps", "iou_centerness"
        )


def _cls_config(branch: ExpressionBranch | StockBranch, family: Family) -> dict[str, Any]:
    weight = 1.0 if branch.loss_weight is None else branch.loss_weight
    if not isinstance(branch, ExpressionBranch):
        return {**stock_cls_config(branch, family), "loss_weight": weight}
    if branch.role != family.cls_space:
        raise DefinitionError(
            f"a {branch.role} expression does not fit {family.name}; its heads take"
            f" {family.cls_space} expressions",
            "cls.space",
        )
    if family.cls_space == "multi_cls":
        config: dict[str, Any] = {"type": "SoftmaxExpressionLoss"}
    else:
        # dense heads read use_sigmoid from here: without it they would build a background channel
        config = {
            "type": "SigmoidExpressionLoss",
            "use_sigmoid": True,
            "alpha": branch.alpha,
        }
    return {**config, **_expression_config(branch), "loss_weight": weight}


def _bbox_config(
    branch: ExpressionBranch | StockBranch, family: Family
) -> tuple[dict[str, Any], bool]:
    if isinstance(branch, ExpressionBranch):
        config, decoded = {"type": "BoxExpressionLoss", **_expression_config(branch)}, True
    else:
        config, decoded = stock_bbox_config(branch, family)
    weight = branch.loss_weight
    if weight is None:
        weight = family.decoded_box_weight if decoded else 1.0
    return {**config, "loss_weight": weight}, decoded


def expression_loss_config(branch: ExpressionBranch, name: str, family: Family) -> dict[str, Any]:
    """The config of the loss module that `apply_loss` gives the heads of a family for a branch.

    Args:
        branch: the loss.
        name: ``cls`` or ``bbox``.
        family: decides the default of the weight.

    Raises:
        DefinitionError: the loss does not fit the family's heads.
    """
    return _bbox_config(branch, family)[0] if name == "bbox" else _cls_config(branch, family)


def _expression_config(branch: ExpressionBranch) -> dict[str, Any]:
    space = space_json(branch.expression.space)
    config: dict[str, Any] = {"expression": str(branch.expression)}
    if branch.scale != 1.0:
        config["scale"] = branch.scale
    return config if isinstance(space, str) else {**config, "space": space}


def _reads_ious(loss: Mapping[str, Any] | None, family: Family) -> bool:
    """Also for an expression that the detector had before, and keeps."""
    if loss is None or type_name(loss.get("type")) not in _EXPRESSION_LOSSES:
        return False
    space = resolve_space(loss.get("space") or family.cls_space)
    return bool(parse(loss["expression"], space).inputs & {"Z", "Q"})


def _wrap(head: dict[str, Any], iou_centerness: bool) -> None:
    head["head"] = head["type"]
    head["type"] = IOU_AWARE_HEAD
    if iou_centerness:
        head["iou_centerness"] = True


def _unwrap(head: dict[str, Any]) -> None:
    if type_name(head["type"]) == IOU_AWARE_HEAD:
        head["type"] = head.pop("head")
        head.pop("iou_centerness", None)


def _import_first(config: dict[str, Any]) -> None:
    given = config.get("custom_imports") or {}
    imports = given.get("imports", [])
    imports = [imports] if isinstance(imports, str) else list(imports or [])
    config["custom_imports"] = {
        "imports": [_PACKAGE, *(name for name in imports if name != _PACKAGE)],
        "allow_failed_imports": given.get("allow_failed_imports", False),
    }
