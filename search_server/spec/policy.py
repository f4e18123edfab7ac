"""The parts of a job spec for a search over parameters: its searcher and what it searches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from losses.ranking.functions import FUNCTIONS, MAX_CONTROL_POINTS
from losses.ranking_branch import OVERLAPS
from search_server.spec.budgets import Part
from search_server.spec.trees import NamedLoss

PAP = "pap"


class PolicySearcher(Part):
    """The policy search of Parameterized AP Loss; the defaults are the paper's schedule.

    Attributes:
        rounds: how often the policy is moved.
        samples: candidates in a round; they are trained side by side.
        sigma: spread in the first round, for parameters in [0, 1]; it falls linearly, to
            sigma / rounds in the last round.
        learning_rate: of Adam on the policy's mean, in logits; the peak of a rise and a fall.
        updates: steps of Adam after a round.
        warmup: steps of the rise.
        clip: how far one dimension's probability ratio may leave 1, in (0, 1).
    """

    type: Literal["policy"]
    rounds: int = Field(default=40, ge=1, le=100_000)
    samples: int = Field(default=8, ge=2, le=100_000)
    sigma: float = Field(default=0.2, gt=0, le=10)
    learning_rate: float = Field(default=0.01, gt=0, le=10)
    updates: int = Field(default=100, ge=1, le=100_000)
    warmup: int = Field(default=30, ge=0, le=100_000)
    clip: float = Field(default=0.1, gt=0, lt=1)

    @model_validator(mode="after")
    def _consistent(self) -> PolicySearcher:
        if self.warmup > self.updates:
            raise ValueError(f"warmup ({self.warmup}) must not be above updates ({self.updates})")
        return self

    @property
    def candidates(self) -> int:
        """All samples, and the final mean."""
        return self.rounds * self.samples + 1

    @property
    def population(self) -> int:
        """Candidates that are made without seeing one another."""
        return self.samples

    @property
    def named(self) -> tuple[NamedLoss, ...]:
        """No catalogue loss opens a policy search."""
        return ()


class PapSpec(Part):
    """A parameterized AP loss, searched by its control points and gradient scale.

    Attributes:
        points: inner control points of every function; two parameters each.
        functions: which of the five functions are searched; the others are the identity.
        gradient_scale: whether the scale of the boxes' gradient is searched, 0.1 to 10; else 1.
        overlap, num_topk: as in the loss definition.
        loss_weight: null: 1.
    """

    space: Literal["pap"]
    points: int = Field(default=4, ge=1, le=MAX_CONTROL_POINTS)
    functions: tuple[str, ...] = FUNCTIONS
    gradient_scale: bool = True
    overlap: str = "giou"
    num_topk: int = Field(default=100_000, ge=1, le=2**31 - 1)
    loss_weight: Annotated[float, Field(gt=0, le=1e6)] | None = None

    @field_validator("functions")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in FUNCTIONS]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is none of {', '.join(FUNCTIONS)}")
        if len(set(value)) != len(value):
            raise ValueError("it holds a function twice")
        return tuple(name for name in FUNCTIONS if name in value)

    @field_validator("overlap")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in OVERLAPS:
            raise ValueError(f"it must be one of {', '.join(OVERLAPS)}")
        return value

    @property
    def size(self) -> int:
        """Number of parameters."""
        return len(self.functions) * 2 * self.points + self.gradient_scale


def tag_by(field: str, tags: Mapping[str, str], other: str) -> Callable[[Any], str]:
    """What tells the members of a union apart: the tag by the value of a field, else `other`."""

    def tag(given: Any) -> str:
        found = given.get(field) if isinstance(given, dict) else getattr(given, field, None)
        return tags.get(found, other) if isinstance(found, str) else other

    return tag
