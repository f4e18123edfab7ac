"""What plots show, as the API answers with it: numbers, names and units, no drawing."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from search_server.service.models.base import AP, Gain
from search_server.service.models.rows import FromRecord, P
from search_server.store.records import Origin, Stage

Numbers = list[float | None]


class DotItem(FromRecord):
    """A candidate in a plot."""

    candidate: int = Field(ge=0)
    origin: Origin
    size: int = Field(ge=0, description="nodes of its expressions")
    fitness: AP


class BaselineBand(FromRecord):
    """The baseline's AP over its seeds."""

    mean: AP
    deviation: float | None
    seeds: list[int]
    low: AP
    high: AP


class ProgressPlotAnswer(FromRecord):
    """How a search went: x is the candidate's index, y its AP in [0, 1]."""

    x: Literal["candidate"] = "candidate"
    y: Literal["AP"] = "AP"
    dots: list[DotItem] = Field(description="candidates trained to the end; some, of many")
    trained: int = Field(ge=0, description="how many there are")
    best: list[DotItem] = Field(description="the best so far, each from its index on")
    baseline: BaselineBand | None


class FunnelPlotAnswer(FromRecord):
    """How far how many candidates came."""

    stages: dict[str, int] = Field(
        description="in order", examples=[{"drawn": 5200, "verified": 32, "trained": 30}]
    )
    origins: dict[str, dict[str, int]] = Field(
        description="origin -> stage -> count",
        examples=[{"mutation": {"drawn": 310, "verified": 21}}],
    )
    rejections: dict[str, int] = Field(
        description="why draws were rejected, the most frequent first",
        examples=[{"wrong direction": 229}],
    )


class ConfirmedItem(FromRecord):
    """A candidate that was confirmed, or a rival."""

    candidate: int = Field(ge=0)
    origin: Origin
    size: int = Field(ge=0)
    fitness: AP | None
    gain: Gain
    shrunken: Gain | None
    p: P | None


class FrontPlotAnswer(FromRecord):
    """AP against size: x is a loss's nodes, y its AP in [0, 1]."""

    x: Literal["nodes"] = "nodes"
    y: Literal["AP"] = "AP"
    dots: list[DotItem] = Field(description="candidates trained to the end; some, of many")
    trained: int = Field(ge=0, description="how many there are")
    front: list[DotItem] = Field(description="better than all that are no larger, by size")
    confirmed: list[ConfirmedItem] = Field(description="the largest gain first")


class SeriesItem(FromRecord):
    """The curves of one training run."""

    candidate: int = Field(ge=0)
    baseline: bool
    stage: Stage
    seed: int
    x: Numbers = Field(description="training steps")
    curves: dict[str, Numbers] = Field(description="name -> values at x; null: not finite")
    rungs: dict[int, AP] = Field(description="steps -> AP then, and at the end")


class CurvePlotAnswer(FromRecord):
    """Training curves of a candidate, then the baseline's of the same stages and seeds."""

    x: Literal["step"] = "step"
    names: list[str] = Field(examples=[["loss", "loss_bbox", "loss_cls"]])
    series: list[SeriesItem]
    trials: int = Field(ge=0, description="how many runs of the candidate have curves")


class AxisItem(FromRecord):
    """An axis of a grid."""

    name: str = Field(examples=["logit"])
    values: list[float]


class SurfaceItem(FromRecord):
    """A branch's expression over a grid, without its weights; rows go along y, columns along x."""

    branch: Literal["cls", "bbox"]
    role: Literal["multi_cls", "binary_cls", "box"]
    x: AxisItem
    y: AxisItem
    value: list[Numbers]
    gradient: list[Numbers] = Field(description="the derivative by what `by` names")
    by: str = Field(examples=["logit"])
    background: tuple[Numbers, Numbers] | None = Field(
        description="value and gradient for background, along x; null for a box loss"
    )


class SurfacePlotAnswer(FromRecord):
    """What a loss looks like."""

    surfaces: list[SurfaceItem]
    functions: dict[str, dict[str, list[tuple[float, float]]]] = Field(
        description="of a parameterized AP loss: branch -> function -> points"
    )
