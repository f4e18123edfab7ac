"""The part of a job spec that says what is searched in which branch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from losses import LossesError, space_role
from primitives import SPACES, PrimitivesError, SearchSpace
from search_server.spec.budgets import Part
from search_server.spec.policy import PAP, PapSpec, PolicySearcher, tag_by
from search_server.spec.trees import Searcher
from search_server.spec.tuning import HANDMADE, TUNING, HandmadeSpec, TuningSearcher

BRANCHES = ("cls", "bbox")
Weight = Annotated[float, Field(gt=0, le=1e6)]


class BranchSpec(Part):
    """What is searched in one branch.

    Attributes:
        space: name of a search space, or one defined here as a mapping.
        loss_weight: null: the right default for the head.
    """

    space: str | dict[str, Any]
    loss_weight: Weight | None = None

    @field_validator("space")
    @classmethod
    def _known(cls, value: str | dict[str, Any]) -> str | dict[str, Any]:
        if isinstance(value, str):
            if value == PAP:
                raise ValueError("pap is a loss of the boxes too: it is searched as cls, alone")
            if value not in SPACES:
                names = ", ".join([*SPACES, PAP, HANDMADE])
                raise ValueError(f"it must be one of {names}, or a mapping that defines one")
            return value
        try:
            space_role(SearchSpace.from_json(value))
        except (PrimitivesError, LossesError) as error:
            raise ValueError(f"it is no search space: {error}") from error
        return value

    @property
    def search_space(self) -> SearchSpace:
        """The space itself, whichever way it was given."""
        return (
            SPACES[self.space] if isinstance(self.space, str) else SearchSpace.from_json(self.space)
        )


class ClsSpec(BranchSpec):
    """The classification branch.

    Attributes:
        alpha: class balance of a sigmoid loss, in (0, 1); null: no weighting.
    """

    alpha: Annotated[float, Field(gt=0, lt=1)] | None = 0.25


# In errors the tags are no part of a field's name, for their brackets: see `loading`.
_EXPRESSION, _PAP = "[a space of expressions]", "[the space pap]"
_HANDMADE = "[the space handmade]"
_TREE, _POLICY = "[the searchers evolution and random]", "[the searcher policy]"
_TUNING = "[the searcher tuning]"
AnyCls = Annotated[
    Annotated[ClsSpec, Tag(_EXPRESSION)]
    | Annotated[PapSpec, Tag(_PAP)]
    | Annotated[HandmadeSpec, Tag(_HANDMADE)],
    Discriminator(tag_by("space", {PAP: _PAP, HANDMADE: _HANDMADE}, _EXPRESSION)),
]
AnyBox = Annotated[
    Annotated[BranchSpec, Tag(_EXPRESSION)] | Annotated[HandmadeSpec, Tag(_HANDMADE)],
    Discriminator(tag_by("space", {HANDMADE: _HANDMADE}, _EXPRESSION)),
]
AnySearcher = Annotated[
    Annotated[Searcher, Tag(_TREE)]
    | Annotated[PolicySearcher, Tag(_POLICY)]
    | Annotated[TuningSearcher, Tag(_TUNING)],
    Discriminator(tag_by("type", {"policy": _POLICY, TUNING: _TUNING}, _TREE)),
]


class Branches(Part):
    """The branches that are searched; one left out keeps what `fixed` or the detector says.

    Attributes:
        cls: with space `pap`, the loss of both branches.
        rpn: two-stage detectors, beside a `pap` as cls: the loss of the region proposal network.
    """

    cls: AnyCls | None = None
    bbox: AnyBox | None = None
    rpn: PapSpec | None = None

    @model_validator(mode="after")
    def _together(self) -> Branches:
        if self.cls is None and self.bbox is None:
            raise ValueError("at least one of cls and bbox must be searched")
        if not isinstance(self.cls, PapSpec):
            if self.rpn is not None:
                raise ValueError("rpn is searched together with a cls of space pap only")
        elif self.bbox is not None:
            raise ValueError("pap as cls is a loss of the boxes too: leave bbox out")
        elif self.cls.size + (0 if self.rpn is None else self.rpn.size) == 0:
            raise ValueError("there is nothing to search: no function and no gradient scale")
        return self
