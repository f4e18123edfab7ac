"""Hand-made losses with their numbers on a grid."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

from numpy.random import Generator

from losses import CATALOG, LossDefinition, StockBranch
from search_server.table.spec import Tuned

_AXES = ("gamma", "alpha", "cls_weight", "bbox_weight")


def grid_points(tuned: Tuned, rng: Generator) -> Iterator[LossDefinition]:
    """The points of a grid, in its order; where the spec wants fewer, a random choice of them."""
    base = CATALOG[tuned.loss]
    axes = {name: getattr(tuned, name) or (None,) for name in _AXES}
    points = list(itertools.product(*axes.values()))
    for place in sorted(rng.permutation(len(points))[: tuned.count]):
        numbers = dict(zip(axes, points[place], strict=True))
        shown = " ".join(f"{k}={v:g}" for k, v in numbers.items() if v is not None)
        yield replace(_with_numbers(base, numbers), name=f"{base.name} {shown}")


def _with_numbers(base: LossDefinition, numbers: Mapping[str, float | None]) -> LossDefinition:
    """A definition of stock losses with other numbers; None leaves one as it is."""
    assert isinstance(base.cls, StockBranch)
    assert isinstance(base.bbox, StockBranch)
    config = base.cls.config
    for name in ("gamma", "alpha"):
        if numbers[name] is not None:
            config[name] = numbers[name]
    weights = {"cls": numbers["cls_weight"], "bbox": numbers["bbox_weight"]}
    cls = StockBranch(json.dumps(config, sort_keys=True), base.cls.loss_weight)
    if weights["cls"] is not None:
        cls = replace(cls, loss_weight=weights["cls"])
    bbox = base.bbox
    if weights["bbox"] is not None:
        bbox = replace(bbox, loss_weight=weights["bbox"])
    return replace(base, cls=cls, bbox=bbox)
