"""Which loss a definition is, by float64 gradients at fixed predictions.

Two formulas are one loss when they push every prediction the same way, whatever they look like: a
constant more, terms in another order, one of mmdet's losses and the expression of it. Their
gradients at the probes agree up to rounding then. The size of a branch's gradient is kept apart, as
a number: a loss and its double point the same way, and are two losses unless a calibration makes
them equal. What is no gradient (a ranking loss, the learning rate) is compared as text, and so is
a loss whose gradient is zero or not finite at the probes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from losses import ExpressionBranch, LossDefinition, StockBranch, apply_loss
from losses.families import (
    RANKING_HEAD,
    Family,
    box_heads,
    detector_family,
    model_part,
    type_name,
)
from losses.ranking_branch import RankingBranch
from losses.stock import DECODED_LOSSES, DECODED_PER_SIDE_LOSSES
from primitives import Expression, Gradient, canonical
from search_server.fingerprints import Fingerprint, Vector, form_text
from search_server.funnel.samples import areas_with_slopes
from search_server.identity_probes import box_probes, delta_probes, score_probes

Array = NDArray[np.float64]

log = logging.getLogger(__name__)

NO_GRADIENT = 1e-10
"""Largest entry of a gradient that counts as none: rounding, not a direction."""
LEAST_BLOCK = 1e-6
"""Share of the gradient below which a block's own direction fades: rounding takes over there."""
FEWEST_ENTRIES = 5.0
"""Entries that a gradient must spread over, at least, to say which loss it is: of two losses that
are flat but at one probe, it would say that they are the same."""
SEEN_BLOCK = 1e-5
"""Share of the gradient from which on a block's entries count for that."""
# What mmdet's losses may be given for their gradients at the probes to say all about them, and the
# settings that change nothing when they have this value.
_GIVEN: Mapping[str, frozenset[str]] = {
    "FocalLoss": frozenset(("use_sigmoid", "gamma", "alpha")),
    "CrossEntropyLoss": frozenset(("use_sigmoid",)),
    "IoULoss": frozenset(("mode", "linear", "eps")),
    **{name: frozenset(("eps",)) for name in DECODED_LOSSES if name != "IoULoss"},
    "BoundedIoULoss": frozenset(("beta", "eps")),
    "L1Loss": frozenset(),
    "MSELoss": frozenset(),
    "SmoothL1Loss": frozenset(("beta",)),
    "BalancedL1Loss": frozenset(("alpha", "gamma", "beta")),
}
_NEUTRAL: Mapping[str, Any] = {
    "reduction": "mean",
    "activated": False,
    "use_mask": False,
    "class_weight": None,
    "ignore_index": None,
    "avg_non_ignore": False,
}


@dataclass(frozen=True)
class _Part:
    """What one branch adds to a fingerprint; `scale` is None where `form` is all."""

    form: Any
    vector: Vector
    scale: float | None


@dataclass(frozen=True)
class OwnLosses:
    """The losses that a detector's config brings along.

    Attributes:
        family: of the detector.
        cls, bbox: mmdet config of the branch's loss as JSON text; of different losses in the
            stages of a cascade, the list of them.
        decoded: whether the box loss gets boxes, not deltas.
        ranking: whether the head's loss ranks the scores of a batch; then it is all in `cls`.
        rpn_ranking: whether that of the region proposal network does: it stays where a definition
            has no classification loss, and goes where it has one.
    """

    family: Family
    cls: str
    bbox: str
    decoded: bool
    ranking: bool
    rpn_ranking: bool


def fingerprint(definition: LossDefinition, detector: str | None = None) -> Fingerprint:
    """The fingerprint of a loss definition.

    Args:
        detector: text of the detector's config; it says what a branch of None is, and what a
            weight of None is. Without it both are compared as what they are: not given.

    Raises:
        LossesError: the detector is of no known family.
    """
    own = None if detector is None else own_losses(detector)
    data = definition.to_json()
    form = {name: data[name] for name in data if name not in ("name", "cls", "bbox")}
    if own is not None and own.rpn_ranking and definition.cls is None:
        form["rpn"] = ["own", form.get("rpn")]
    vectors, scales = [], {}
    for name in ("cls", "bbox"):
        part = _part(definition, name, own)
        form[name] = part.form
        if part.scale is not None:
            vectors.append(part.vector)
            scales[name] = part.scale
    return Fingerprint(form_text(form), np.concatenate([np.zeros(0), *vectors]), scales)


@lru_cache(maxsize=16)
def own_losses(detector: str) -> OwnLosses:
    """The losses in the text of a detector's config.

    Raises:
        LossesError: the detector is of no known family.
        DetectorError: the text is no config.
    """
    from workers.detector import parse_detector

    config = apply_loss(parse_detector(detector), LossDefinition("own"))
    family = detector_family(config)
    heads = list(box_heads(model_part(config)))
    ranking = any(_ranks(head) for head in heads)
    rpn_ranking = _ranks(model_part(config).get("rpn_head") or {})
    decoded = family.always_decodes or bool(heads[0].get("reg_decoded_bbox", False))
    if ranking:
        whole = json.dumps([dict(head) for head in heads], sort_keys=True, default=str)
        return OwnLosses(family, whole, "", decoded, ranking, rpn_ranking)
    cls, bbox = (
        [json.dumps(h[key], sort_keys=True) for h in heads] for key in ("loss_cls", "loss_bbox")
    )
    return OwnLosses(family, _joined(cls), _joined(bbox), decoded, ranking, rpn_ranking)


def _ranks(head: Mapping[str, Any]) -> bool:
    return type_name(head.get("type")) == RANKING_HEAD


def _joined(texts: list[str]) -> str:
    """One text where the stages of a cascade agree, else the list of them."""
    return texts[0] if len(set(texts)) == 1 else f"[{','.join(texts)}]"


def _part(definition: LossDefinition, name: str, own: OwnLosses | None) -> _Part:
    branch = definition.branch(name)
    family = None if own is None else own.family
    if branch is None:
        return _own_part(definition, name, own)
    if isinstance(branch, RankingBranch):
        return _text({**branch.to_json(), "loss_weight": branch.config["loss_weight"]})
    if isinstance(branch, StockBranch):
        return _stock_part(name, branch.config, branch.loss_weight, family)
    return _expression_part(name, branch, family)


def _own_part(definition: LossDefinition, name: str, own: OwnLosses | None) -> _Part:
    """The part of a branch that keeps the detector's loss."""
    if isinstance(definition.cls, RankingBranch) and definition.cls.has_box_loss:
        return _text("in cls")
    if own is None or own.ranking:
        return _text("own" if own is None else [own.cls, definition.cls is None])
    text = own.cls if name == "cls" else own.bbox
    config = json.loads(text)
    if not isinstance(config, dict):
        return _text(config)
    weight = config.pop("loss_weight", 1.0)
    if name == "bbox" and own.decoded is not _takes_boxes(config):
        return _text([config, weight, own.decoded])
    return _stock_part(name, config, weight, own.family)


def _stock_part(
    name: str, config: dict[str, Any], weight: float | None, family: Family | None
) -> _Part:
    """The part of one of mmdet's losses; `config` is without its weight."""
    kind = type_name(config["type"])
    shown: list[Any] = [config, weight]
    left = {key for key in config if key not in _GIVEN.get(kind, ()) and key != "type"}
    if kind not in _GIVEN or any(
        key not in _NEUTRAL or config[key] != _NEUTRAL[key] for key in left
    ):
        return _text(shown)
    plain = {key: value for key, value in config.items() if key not in left} | {"type": kind}
    if name == "cls":
        if kind == "CrossEntropyLoss" and "use_sigmoid" not in plain:
            if family is None:
                return _text(shown)
            plain["use_sigmoid"] = family.cls_space == "binary_cls"
        softmax = not plain.setdefault("use_sigmoid", True)
        what = "softmax" if softmax else "sigmoid"
    else:
        what = "boxes" if _takes_boxes(plain) else "deltas"
    gradient = _stock_gradient(what, json.dumps(plain, sort_keys=True))
    return _numbers(what, gradient, weight, family, shown)


def _takes_boxes(config: Mapping[str, Any]) -> bool:
    return type_name(config["type"]) in (*DECODED_LOSSES, *DECODED_PER_SIDE_LOSSES)


def _expression_part(name: str, branch: ExpressionBranch, family: Family | None) -> _Part:
    what = {"multi_cls": "softmax", "binary_cls": "sigmoid", "box": "boxes"}[branch.role]
    data = branch.to_json()
    known = {"type", "space", "expression", "loss_weight", "alpha", "scale"}
    assert data.keys() <= known, "a new field of a branch is part of what the loss is"
    gradient = _expression_gradient(what, branch.expression, branch.alpha)
    if gradient is None:
        return _text({**data, "expression": str(canonical(branch.expression))})
    return _numbers(what, gradient, branch.loss_weight, family, data, branch.scale)


def _numbers(
    what: str,
    gradient: Array | None,
    weight: float | None,
    family: Family | None,
    shown: Any,
    factor: float = 1.0,
) -> _Part:
    """A part from a gradient at the probes of `what`; from text where there is none."""
    form: Any = what
    if weight is None:
        weight = 1.0
        if what == "boxes" and family is None:
            form = [what, "weight of the head"]
        elif what == "boxes" and family is not None:
            weight = family.decoded_box_weight
    found = None if gradient is None else directions(gradient, _blocks(what))
    if found is None or not weight:
        return _text(shown)
    vector, size = found
    return _Part(form, vector, size * weight * factor)


def _text(form: Any) -> _Part:
    return _Part({"text": form}, np.zeros(0), None)


def directions(gradient: Array, blocks: tuple[slice, ...]) -> tuple[Vector, float] | None:
    """What is left of a gradient without its size, and its size.

    Args:
        gradient: `(N, D)` by the predictions.
        blocks: rows that are brought to one size; how large a block was beside the others is
            appended as a logarithm.

    Returns:
        `(N * D + blocks,)` and the root of the mean square; None where the gradient is not finite,
        is zero, or is so but for very few entries.
    """
    largest = float(np.abs(gradient).max())
    if not np.isfinite(largest) or largest <= NO_GRADIENT:
        return None
    unit = gradient / largest
    size = float(np.sqrt(np.mean(unit * unit)))
    parts, shares, entries = [], [], 0.0
    for block in blocks:
        rows = unit[block] / size
        squares = rows * rows
        share = float(np.sqrt(np.mean(squares)))
        if share >= SEEN_BLOCK:
            entries += float(squares.sum() ** 2 / (squares * squares).sum())
        share = max(share, LEAST_BLOCK)
        parts.append((rows / share).ravel())
        shares.append(np.log(share))
    if entries < FEWEST_ENTRIES:
        return None
    return np.concatenate([*parts, shares]), size * largest


def _blocks(what: str) -> tuple[slice, ...]:
    if what in ("softmax", "sigmoid"):
        return score_probes(what == "softmax").blocks
    return box_probes().blocks if what == "boxes" else delta_probes().blocks


@lru_cache(maxsize=1_000)  # 3 KB each
def _expression_gradient(what: str, expression: Expression, alpha: float | None) -> Array | None:
    """`(N, D)` by logits, or by corners in sides of the target; None where it is not finite."""
    with np.errstate(all="ignore"):
        if what == "boxes":
            probes = box_probes()
            areas, slopes = areas_with_slopes(probes.pred, probes.target)
            value, found = Gradient(expression, ("U", "I", "E"))(areas)
            parts = [slope[:, None] * slopes[name] for name, slope in found.items()]
            gradient = np.sum(parts, axis=0) if parts else np.zeros_like(probes.pred)
            gradient = gradient * probes.sides[:, None]
        else:
            inputs = _score_inputs(what == "softmax")
            # on the loss, not on its gradient: an expression may mix the classes of a row
            weight = 1.0 if alpha is None else alpha * inputs["PY"] + (1 - alpha) * inputs["NY"]
            value, found = Gradient(expression, ("X",))(inputs, weight)
            gradient = found.get("X", np.zeros_like(inputs["X"]))
    return gradient if np.isfinite(value).all() and np.isfinite(gradient).all() else None


@lru_cache(maxsize=2)
def _score_inputs(softmax: bool) -> dict[str, Array]:
    """The inputs of classification expressions, as `losses.expression_losses` makes them."""
    probes = score_probes(softmax)
    hot = (probes.labels[:, None] == np.arange(probes.logits.shape[1])).astype(np.float64)
    if softmax:
        ious = np.where(probes.positives, probes.ious, 1.0)[:, None]
        return {"X": probes.logits, "Y": hot, "Z": np.broadcast_to(ious, hot.shape)}
    inputs = {"X": probes.logits, "PY": hot, "NY": 1.0 - hot}
    return {**inputs, "Q": hot * probes.ious[:, None]}


@lru_cache(maxsize=1_000)
def _stock_gradient(what: str, config: str) -> Array | None:
    """The same of one of mmdet's losses, through its own module.

    None for settings that mmdet refuses as well: what is wrong with them, a training will say.
    """
    try:
        gradient = _through_module(what, json.loads(config))
    except Exception:  # whatever mmdet raises
        log.debug("no gradient of %s", config, exc_info=True)
        return None
    return gradient if np.isfinite(gradient).all() else None


def _through_module(what: str, config: dict[str, Any]) -> Array:
    import torch
    from mmdet.registry import MODELS

    module = MODELS.build(config)
    if what in ("softmax", "sigmoid"):
        scores = score_probes(what == "softmax")
        moved = torch.tensor(scores.logits, requires_grad=True)
        loss = module(moved, torch.tensor(scores.labels), reduction_override="none")
        sides: Any = 1.0
    else:
        boxes = box_probes() if what == "boxes" else delta_probes()
        moved = torch.tensor(boxes.pred, requires_grad=True)
        loss = module(moved, torch.tensor(boxes.target), reduction_override="none")
        sides = boxes.sides[:, None]
    (found,) = torch.autograd.grad(loss.sum(), moved)
    gradient: Array = found.numpy() * sides
    return gradient
