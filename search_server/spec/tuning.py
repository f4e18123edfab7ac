"""The parts of a job spec for a tuning of hand-made losses: its searcher, and the choices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from losses import Family
from search_server.handmade_losses import HANDMADE_LOSSES, usual_losses
from search_server.spec.budgets import Misfit, Part
from search_server.spec.data import PACKAGED
from search_server.spec.detector_head import box_weight, detector_of
from search_server.spec.places import Places
from search_server.spec.trees import NamedLoss

HANDMADE = "handmade"
TUNING = "tuning"
Range = tuple[
    Annotated[float, Field(ge=1e-3, le=1e3)],
    Annotated[float, Field(ge=1e-3, le=1e3)],
]


class TuningSearcher(Part):
    """The numbers of hand-made losses, tuned by a sampler of Optuna's.

    Attributes:
        sampler: `tpe` learns each group of choices that occur together, from stopped candidates
            too; `cmaes` learns from finished ones what all of them have in common, such as the
            weights and the learning rate, and draws the rest at random; `random` learns nothing.
        startup: candidates that are drawn at random after the published losses, before the
            sampler takes over.
        population: size of a cohort of the simulation, if there is one.
        centerness: choices for `iou_centerness`; null: both where the head has a centerness.
        learning_rate: range of the factor on the learning rate; null: it is not tuned.
    """

    type: Literal["tuning"]
    sampler: Literal["tpe", "random", "cmaes"] = "tpe"
    startup: int = Field(default=10, ge=1, le=100_000)
    population: int = Field(default=16, ge=1, le=100_000)
    centerness: Annotated[tuple[bool, ...], Field(min_length=1, max_length=2)] | None = None
    learning_rate: Range | None = (0.25, 4.0)

    @field_validator("centerness")
    @classmethod
    def _distinct(cls, value: tuple[bool, ...] | None) -> tuple[bool, ...] | None:
        if value is not None and len(set(value)) != len(value):
            raise ValueError("it holds a choice twice")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> TuningSearcher:
        _check_range("learning_rate", self.learning_rate)
        return self

    @property
    def named(self) -> tuple[NamedLoss, ...]:
        """The published losses open a tuning by themselves."""
        return ()


class HandmadeSpec(Part):
    """What is tuned of one branch.

    Attributes:
        losses: names of hand-made losses; null: those that detectors of this kind are trained with
            as published. The first is the one that the others are combined with at the start.
        loss_weight: usual weight, of box losses that of one on decoded boxes; null: the detector's.
        factor: range of the factor on the weight.
    """

    space: Literal["handmade"]
    losses: Annotated[tuple[str, ...], Field(min_length=1, max_length=100)] | None = None
    loss_weight: Annotated[float, Field(gt=0, le=1e6)] | None = None
    factor: Range = (0.1, 10.0)

    @field_validator("losses")
    @classmethod
    def _known(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        unknown = [name for name in value or () if name not in HANDMADE_LOSSES]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is none of {', '.join(HANDMADE_LOSSES)}")
        if value is not None and len(set(value)) != len(value):
            raise ValueError("it holds a loss twice")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> HandmadeSpec:
        _check_range("factor", self.factor)
        return self


def spelt_out_tuning(data: Any, places: Places) -> Any:
    """A spec with what a tuning takes from the detector's head, where the spec does not say it.

    The detector's config is read only where something is left open. What is stored is spelt out,
    so that a job means the same for ever.

    Args:
        data: a spec as it was written, anything; what is wrong with it is left to the fields.
        places: which files may be named.

    Raises:
        Misfit: the detector cannot be read, or a loss does not fit its head.
    """
    if not isinstance(data, Mapping):
        return data
    searcher, branches, detector = (data.get(n) for n in ("searcher", "branches", "detector"))
    if not isinstance(searcher, Mapping) or searcher.get("type") != TUNING:
        return data
    if not isinstance(branches, Mapping) or not isinstance(detector, str):
        return data
    if not detector.endswith(".py") and not PACKAGED.fullmatch(detector):
        return data
    tuned = {
        name: branches[name]
        for name in ("cls", "bbox")
        if isinstance(branches.get(name), Mapping) and branches[name].get("space") == HANDMADE
    }
    needed = [branch.get(field) for branch in tuned.values() for field in ("losses", "loss_weight")]
    if None not in (*needed, searcher.get("centerness")):
        return data
    config, family = detector_of(detector, places, "a tuning")
    weights = {"cls": 1.0, "bbox": box_weight(config, family)}
    filled: dict[str, Any] = {}
    for name, branch in tuned.items():
        given = branch.get("losses")
        losses = list(usual_losses(family, name)) if given is None else given
        check_fit(f"branches.{name}.losses", losses, family, name)
        weight = branch.get("loss_weight")
        weight = weights[name] if weight is None else weight
        filled[name] = {**branch, "losses": losses, "loss_weight": weight}
    centerness = searcher.get("centerness")
    if centerness is None:
        centerness = [False, True] if family.has_centerness else [False]
    return {
        **data,
        "branches": {**branches, **filled},
        "searcher": {**searcher, "centerness": centerness},
    }


def check_fit(field: str, losses: Any, family: Family, branch: str) -> None:
    """Refuse a hand-made loss that is none of a detector's heads.

    Raises:
        Misfit: names the field.
    """
    for name in losses if isinstance(losses, list | tuple) else ():
        loss = HANDMADE_LOSSES.get(name) if isinstance(name, str) else None
        if loss is not None and not loss.fits(family, branch):
            fitting = [each.name for each in HANDMADE_LOSSES.values() if each.fits(family, branch)]
            allowed = f"in this detector ({family.name}) it must be one of {', '.join(fitting)}"
            raise Misfit(field, name, allowed)


def _check_range(field: str, given: tuple[float, float] | None) -> None:
    if given is not None and given[0] > given[1]:
        raise ValueError(f"{field}: its first number must not be above its second")
