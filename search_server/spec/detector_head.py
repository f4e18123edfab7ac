"""What a spec has to know of its detector's head before it can be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from losses import Family, LossesError, configs_dir, detector_family
from losses.families import box_heads, model_part
from search_server.spec.budgets import Misfit
from search_server.spec.places import Places


def detector_of(detector: str, places: Places, why: str) -> tuple[Any, Family]:
    """The config of the detector that a spec names, and its family.

    Args:
        detector: path of an mmdet config, or the name of a packaged one.
        places: which files may be named.
        why: what needs to know, for the error.

    Raises:
        Misfit: it cannot be read, or its losses cannot be replaced.
    """
    from workers import DetectorError, load_detector
    from workers.detector import parse_detector

    try:
        if detector.endswith(".py"):
            path = places.path(detector)
        else:
            path = configs_dir() / "detectors" / f"{detector}.py"
        config = parse_detector(load_detector(path))
        return config, detector_family(config)
    except (DetectorError, LossesError, OSError, ValueError) as error:
        raise Misfit("detector", detector, f"{why} has to know its head: {error}") from error


def box_weight(config: Mapping[str, Any], family: Family) -> float:
    """The weight that a detector gives a loss on decoded boxes now, else the family's default."""
    for head in box_heads(model_part(config)):
        loss = head.get("loss_bbox") or {}
        if "IoU" in str(loss.get("type")) and isinstance(loss.get("loss_weight"), int | float):
            return float(loss["loss_weight"])
    return family.decoded_box_weight
