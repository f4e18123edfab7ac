"""What the leaderboard says of a candidate, and of a group of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search_server.confirmation import RIVAL, Confirmation


@dataclass(frozen=True)
class Paired:
    """Candidate minus baseline over the seeds both have.

    Attributes:
        mean: mean difference in AP, in [-1, 1].
        deviation: sample standard deviation of the differences, None with one seed.
        seeds: how many seeds both have, at least 1.
    """

    mean: float
    deviation: float | None
    seeds: int


@dataclass(frozen=True)
class LeaderboardRow:
    """One candidate on the leaderboard.

    Attributes:
        rank: 1 for the best: the confirmed ones by their mean difference on `confirm`, then the
            others by fitness; None without either, or failed.
        cls, bbox: the loss of each branch for people; None where the detector keeps its own.
        rpn: the ranking loss of the region proposal network; None where it keeps its own.
        joint: whether `cls` is the loss of the boxes too, so that there is none in `bbox`.
        round: of a policy search, from 1; None for its baseline and final mean, and elsewhere.
        fitness: mean AP over the proxy seeds, in [0, 1]; a diverged seed counts as 0.
        deviation: sample standard deviation over the seeds, None with fewer than two.
        seeds: how many proxy trials the fitness comes from so far.
        difference: to the group's baseline; None for the baseline, and without a common seed.
        baseline: whether it is the row that the others are compared with.
        judged: its trials of `confirm` and `test`; None where it has none.
        front: whether no candidate of at most its size has a higher fitness: it is on the front of
            AP and size.
        reused: `JOB:candidate:stage:seed` of the trials whose results were taken over.
    """

    rank: int | None
    job: str
    index: int
    name: str | None
    origin: str
    cls: str | None
    bbox: str | None
    size: int
    stage: str
    state: str
    reason: str
    simulate_score: float | None
    fitness: float | None
    deviation: float | None
    seeds: int
    difference: Paired | None
    baseline: bool
    rpn: str | None = None
    joint: bool = False
    round: int | None = None
    judged: Confirmation | None = None
    front: bool = False
    reused: tuple[str, ...] = ()

    @property
    def confirmed(self) -> bool:
        """Whether fresh seeds on `confirm` have a say about it."""
        return self.judged is not None and self.judged.confirmed

    @property
    def rival(self) -> bool:
        """Whether it is a loss that the found ones have to beat, and was not searched."""
        return self.origin == RIVAL

    @property
    def id(self) -> str:
        """`JOB:INDEX`, as `show` and `export` take it."""
        return f"{self.job}:{self.index}"


@dataclass(frozen=True)
class LeaderboardGroup:
    """Candidates whose trials differ only in loss and seed, so that they can be compared.

    Attributes:
        key: the trial group (see `trial_group`), or a job's id where that is not known.
        spec: the job spec of the group's baseline, to say what was trained on what.
        total: how many candidates the group has.
        rows: the page, best first.
        baseline: the group's baseline, which may be on another page; None before it exists.
    """

    key: str
    spec: Mapping[str, Any]
    total: int
    rows: tuple[LeaderboardRow, ...]
    baseline: LeaderboardRow | None
