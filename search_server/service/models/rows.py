"""Candidates as the leaderboard shows them, as the API answers with them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from search_server.service.board import BoardPage, BoardRow
from search_server.service.cursors import encoded
from search_server.service.models.base import AP, Answer, Gain, Shown
from search_server.store.records import CandidateState, Origin, Stage

P = Annotated[float, Field(ge=0, le=1, description="p value, two-sided", examples=[0.012])]


class FromRecord(Answer):
    """An answer with the fields of a record."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


class PairedDifference(FromRecord):
    """Candidate minus baseline over the seeds that both have, APs in [0, 1]."""

    mean: Gain
    deviation: float | None = Field(description="sample standard deviation; null with one seed")
    low: float | None = Field(description="lower end of the 95% interval (Student's t)")
    high: float | None
    wins: int = Field(ge=0, description="seeds in which it was better")
    ties: int = Field(ge=0)
    count: int = Field(ge=1, description="common seeds")
    p: P | None = None


class ProxyDifference(FromRecord):
    """Candidate minus baseline over the seeds of the proxy task that both have."""

    mean: Gain
    deviation: float | None
    seeds: int = Field(ge=1)


class SeedSpread(FromRecord):
    """Mean and spread over seeds, APs in [0, 1]."""

    mean: AP
    deviation: float | None
    seeds: list[int]
    low: AP
    high: AP


class StageReading(FromRecord):
    """One candidate's trials of a stage that judges."""

    ap: SeedSpread
    difference: PairedDifference | None = Field(
        description="to the baseline, paired by seed; null for the baseline itself"
    )
    by_seed: dict[int, AP] = Field(examples=[{"101": 0.52, "102": 0.51}])


class Judged(FromRecord):
    """What is known of a candidate from seeds that chose nothing."""

    confirm: StageReading | None
    test: StageReading | None
    gain: Gain | None = Field(description="mean difference on confirm; 0 for the baseline")
    p: P | None = Field(description="of the difference on confirm, corrected (Holm) for `family`")
    family: int = Field(ge=0, description="how many of the job were confirmed")
    shrunken: Gain | None = Field(description="the gain without the luck of the best")
    reused: list[str]


class LeaderboardItem(FromRecord):
    """One candidate on the leaderboard."""

    id: str = Field(examples=["digits-atss-1:12"])
    job: str = Field(examples=["digits-atss-1"])
    index: int = Field(ge=0, examples=[12])
    detector: str = Field(examples=["digits/atss"])
    name: str | None
    origin: Origin
    cls: str | None = Field(
        description="loss of the classification branch; null: the detector's own",
        examples=["Mul(Add(Q,Sig(X)),Sub(Softplus(X),Mul(Q,X)))"],
    )
    bbox: str | None = Field(description="loss of the boxes", examples=["Sub(1,Div(I,U))"])
    rpn: str | None = Field(description="ranking loss of the region proposal network")
    joint: bool = Field(description="whether `cls` is the loss of the boxes too")
    size: int = Field(ge=0, description="nodes of all its expressions")
    stage: Stage = Field(description="the furthest stage of the funnel that it reached by itself")
    state: CandidateState
    reason: Shown
    simulate_score: AP | None
    fitness: AP | None = Field(description="mean AP over the proxy seeds")
    deviation: float | None
    seeds: int = Field(ge=0, description="proxy trials that the fitness comes from")
    difference: ProxyDifference | None = Field(description="to its job's baseline")
    baseline: bool
    confirmed: bool
    rival: bool
    round: int | None = Field(description="of a policy search")
    judged: Judged | None
    front: bool = Field(description="on its job's front of AP and size")
    reused: list[str] = Field(description="JOB:candidate:stage:seed of results taken over")


class LeaderboardPage(Answer):
    """A page of candidates."""

    rows: list[LeaderboardItem]
    next: str | None = Field(description="cursor of the next page; null on the last")


def row_fields(each: BoardRow) -> dict[str, Any]:
    """The fields of an item."""
    row = each.row
    fields = {
        name: getattr(row, name) for name in LeaderboardItem.model_fields if name != "detector"
    }
    return {**fields, "detector": each.detector}


def leaderboard_item(each: BoardRow) -> LeaderboardItem:
    """A row as an item."""
    return LeaderboardItem.model_validate(row_fields(each))


def leaderboard_page(page: BoardPage, order: str) -> LeaderboardPage:
    """A page; `order` stands in its cursor, which is good for no other."""
    end = None if page.next is None else encoded(order, *page.next)
    return LeaderboardPage(rows=[leaderboard_item(row) for row in page.rows], next=end)
