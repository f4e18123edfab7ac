"""What a loss does to predictions, measured a second way: for the check of `identity`.

`identity` derives expressions with the formulas of `primitives`, and reads definitions itself. Here
the definition is put into the detector, the loss modules are built from the config as a training
builds them, and autograd derives them in float64, at other predictions.
"""

from __future__ import annotations

import copy
import hashlib
import json
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from losses import LossDefinition, apply_loss
from losses.families import (
    IOU_AWARE_HEAD,
    RANKING_HEAD,
    box_heads,
    detector_family,
    model_part,
    type_name,
)
from losses.stock import DELTA_LOSSES
from search_server.fingerprints import Fingerprint
from search_server.identity import directions
from search_server.identity_probes import CLASSES, box_probes, delta_probes, score_probes
from workers.detector import parse_detector

SEED = 4711
"""Of the probes; not the one that decides which losses are one."""
STATEFUL = ("GHMC", "GHMR", "SeesawLoss")  # what they do depends on what they saw before


def measured(definition: LossDefinition, detector: str) -> Fingerprint:
    """What a definition is in a detector: gradients of its loss modules, all else as text.

    Args:
        detector: text of the detector's config.

    Raises:
        LossesError: the loss does not fit the detector.
    """
    config = copy.deepcopy(dict(apply_loss(_parsed(detector), definition)))
    family = detector_family(config)
    vectors, scales = [np.zeros(0)], {}
    heads = list(box_heads(model_part(config)))
    for number, head in enumerate(heads):
        if family.always_decodes:
            head.pop("reg_decoded_bbox", None)  # it is not read there
        else:
            head.setdefault("reg_decoded_bbox", False)
        if type_name(head["type"]) == IOU_AWARE_HEAD and not head.get("iou_centerness"):
            head["type"] = head.pop("head")  # it lends IoUs to losses that ask for them, no more
        if type_name(head["type"]) == RANKING_HEAD:
            continue
        softmax = family.cls_space == "multi_cls"
        for name in ("loss_cls", "loss_bbox"):
            if type_name(head[name]["type"]) in STATEFUL:
                continue
            found = _scores(head[name], softmax) if name == "loss_cls" else _boxes(head[name])
            if found is not None:
                vectors.append(found[0])
                scales[f"{name}.{number}"] = found[1]
                head[name] = "measured"
    config.pop("custom_imports", None)
    text = json.dumps(config, sort_keys=True, default=str)
    return Fingerprint(hashlib.sha256(text.encode()).hexdigest(), np.concatenate(vectors), scales)


@lru_cache(maxsize=32)
def _parsed(detector: str) -> Config:
    return parse_detector(detector)


def _scores(config: Any, softmax: bool) -> tuple[np.ndarray, float] | None:
    """Direction and size of a classification loss's gradient by the logits."""
    module = MODELS.build(config)
    probes = score_probes(softmax, SEED)
    logits = torch.tensor(probes.logits, requires_grad=True)
    extra = {}
    if getattr(module, "wants_ious", False):
        extra["pos_ious"] = torch.tensor(probes.ious[probes.labels < CLASSES])
    loss = module(logits, torch.tensor(probes.labels), reduction_override="none", **extra)
    return directions(_gradient(loss, logits), probes.blocks)


def _boxes(config: Any) -> tuple[np.ndarray, float] | None:
    """The same of a box loss, by corners in sides of the target, or by deltas."""
    module = MODELS.build(config)
    deltas = type_name(config["type"]) in DELTA_LOSSES
    probes = delta_probes(SEED) if deltas else box_probes(SEED)
    pred = torch.tensor(probes.pred, requires_grad=True)
    loss = module(pred, torch.tensor(probes.target), reduction_override="none")
    return directions(_gradient(loss, pred) * probes.sides[:, None], probes.blocks)


def _gradient(loss: Any, by: Any) -> np.ndarray:
    if not loss.requires_grad:
        return np.zeros(by.shape)
    (found,) = torch.autograd.grad(loss.sum(), by, allow_unused=True)
    return np.zeros(by.shape) if found is None else found.numpy()
