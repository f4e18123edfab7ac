"""Comparisons as the API answers with them."""

from __future__ import annotations

from pydantic import Field

from search_server.service.models.base import AP, Gain
from search_server.service.models.rows import FromRecord, P, PairedDifference, SeedSpread
from search_server.store.records import Origin, Stage


class ComparedLossItem(FromRecord):
    """A candidate that is compared."""

    id: str = Field(examples=["digits-atss-1:12"])
    job: str
    index: int = Field(ge=0)
    name: str | None
    origin: Origin
    cls: str | None
    bbox: str | None
    size: int = Field(ge=0)


class ComparedRowItem(FromRecord):
    """One candidate in one stage."""

    id: str = Field(examples=["digits-atss-1:12"])
    baseline: bool
    ap: SeedSpread | None = Field(description="over its seeds; null without any")
    by_seed: dict[int, AP]
    difference: PairedDifference | None = Field(
        description="to the baseline over common seeds; null for the baseline, without a common "
        "seed, and where the stage was trained otherwise"
    )
    p: P | None = Field(description="corrected (Holm) for the number of the others")
    shrunken: Gain | None = Field(description="the difference without the luck of the best")


class ComparedStageItem(FromRecord):
    """A stage that any of them has trials of."""

    stage: Stage
    rows: list[ComparedRowItem]


class ComparisonAnswer(FromRecord):
    """Candidates beside each other, from what has been trained."""

    baseline: str = Field(examples=["digits-atss-1:0"])
    losses: list[ComparedLossItem]
    stages: list[ComparedStageItem]
