"""Search spaces by one name for both branches: `search_space` of a spec, spelt out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from primitives import SPACES
from search_server.spec.data import PACKAGED
from search_server.spec.detector_head import detector_of
from search_server.spec.places import Places

AUTOLOSS_ZERO = "autoloss_zero"


def spelt_out(data: Any, places: Places) -> Any:
    """A spec with the branches that its `search_space` stands for, where it gives none itself.

    Which classification space it is depends on the detector's head, so the detector's config is
    read. What is stored is spelt out: it is read once, when the spec is.

    Args:
        data: a spec as it was written, anything; what is wrong with it is left to the fields.
        folder: that relative paths are meant from.

    Raises:
        Misfit: the detector cannot be read, or its losses cannot be replaced.
    """
    if not isinstance(data, Mapping) or data.get("search_space") != AUTOLOSS_ZERO:
        return data
    detector = data.get("detector")
    if data.get("branches") is not None or not isinstance(detector, str):
        return data
    if not detector.endswith(".py") and not PACKAGED.fullmatch(detector):
        return data
    _, family = detector_of(detector, places, "search_space")
    cls: dict[str, Any] = {"space": f"{AUTOLOSS_ZERO}_{family.cls_space}"}
    if cls["space"].endswith("binary_cls"):
        cls["alpha"] = None  # the expression is the whole loss
    return {**data, "branches": {"cls": cls, "bbox": {"space": f"{AUTOLOSS_ZERO}_box"}}}


def fits_whole_space(search_space: str, space: str | Mapping[str, Any]) -> bool:
    """Whether a branch's space belongs to a `search_space`."""
    return isinstance(space, str) and space in SPACES and space.startswith(f"{search_space}_")
