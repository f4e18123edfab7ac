"""What a tuning searches: hand-made losses, their numbers and weights, and the learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from numpy.random import Generator

from losses import LossDefinition, RankingBranch
from losses.branches import Branch
from search_server.handmade_losses import HANDMADE_LOSSES, HandmadeLoss

DIGITS = 4  # significant ones that are kept of every number: people are to read them

Choices = dict[str, Any]


class Chooser(Protocol):
    """What names and numbers are asked of; an Optuna trial is one."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number in a range."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of several."""


@dataclass(frozen=True)
class HandmadeBranch:
    """The losses of one branch that a tuning chooses from.

    Attributes:
        losses: names in `HANDMADE_LOSSES`.
        weight: what the loss is multiplied by usually; of box losses, those on decoded boxes.
        factor: range of the factor on it, drawn in equal ratios.
    """

    losses: tuple[str, ...]
    weight: float = 1.0
    factor: tuple[float, float] = (0.1, 10.0)

    def usual_weight(self, loss: HandmadeLoss) -> float:
        """The weight of a loss before the factor."""
        return 1.0 if loss.role == "deltas" else self.weight


@dataclass(frozen=True)
class Handmade:
    """All that a tuning chooses. A loss's numbers are asked for only where it was chosen.

    Attributes:
        branches: by branch, `cls` first.
        template: what holds for a branch that is not tuned.
        centerness: choices for `iou_centerness`.
        learning_rate: range of the factor on the learning rate; None: it is not tuned.
    """

    branches: Mapping[str, HandmadeBranch]
    template: LossDefinition
    centerness: tuple[bool, ...] = (False,)
    learning_rate: tuple[float, float] | None = (0.25, 4.0)

    def choose(self, chooser: Chooser) -> Choices:
        """All choices of one candidate, by name."""
        found: Choices = {}
        whole = ranking = False
        for branch, space in self.branches.items():
            if not (branch == "bbox" and whole):
                name = found[branch] = chooser.suggest_categorical(branch, space.losses)
                loss = HANDMADE_LOSSES[name]
                for number in loss.numbers:
                    key = f"{name}.{number.name}"
                    found[key] = _rounded(
                        chooser.suggest_float(key, number.low, number.high, log=number.log)
                    )
                if branch == "cls":
                    whole, ranking = loss.is_whole, loss.role == "ranking"
            key = f"{branch}.weight"
            found[key] = _rounded(chooser.suggest_float(key, *space.factor, log=True))
        if self.learning_rate is not None:
            low, high = self.learning_rate
            found["learning_rate"] = _rounded(
                chooser.suggest_float("learning_rate", low, high, log=True)
            )
        if len(self.centerness) > 1 and not ranking:
            found["centerness"] = chooser.suggest_categorical("centerness", self.centerness)
        return found

    def definition(self, choices: Choices, name: str) -> LossDefinition:
        """The loss that choices stand for."""
        definition, ranking = replace(self.template, name=name), False
        for branch, space in self.branches.items():
            factor = choices[f"{branch}.weight"]
            if branch not in choices:  # the loss of the scores is the boxes' loss too
                assert isinstance(definition.cls, RankingBranch)
                definition = replace(definition, cls=replace(definition.cls, box_weight=factor))
                continue
            loss = HANDMADE_LOSSES[choices[branch]]
            numbers = {each.name: choices[f"{loss.name}.{each.name}"] for each in loss.numbers}
            weight = _rounded(space.usual_weight(loss) * factor)
            definition = definition.with_branch(branch, _weighted(loss.branch(numbers), weight))
            ranking = ranking or loss.role == "ranking"
            if branch == "cls" and loss.is_whole:
                definition = replace(definition, bbox=None)
        centerness = choices.get("centerness", self.centerness[0]) and not ranking
        return replace(
            definition,
            iou_centerness=centerness,
            learning_rate_scale=choices.get("learning_rate", 1.0),
        )

    def published(self) -> list[Choices]:
        """The losses as published, with their usual weights: the first of every branch with every
        one of the other, and the first of both with the other centerness."""
        firsts = {branch: space.losses[0] for branch, space in self.branches.items()}
        wanted = [firsts]
        for branch in reversed(list(self.branches)):
            wanted += [{**firsts, branch: name} for name in self.branches[branch].losses[1:]]
        found = [self.choose(_Published(names, self.centerness[0])) for names in wanted]
        found += [self.choose(_Published(firsts, other)) for other in self.centerness[1:]]
        return found

    def draw(self, rng: Generator) -> Choices:
        """Choices at random."""
        return self.choose(_Random(rng))


@dataclass(frozen=True)
class _Published:
    """Chooses the named losses with their published numbers, as near as the ranges allow."""

    losses: Mapping[str, str]
    centerness: bool

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """The published number; 1 for a factor."""
        loss, _, number = name.partition(".")
        own = HANDMADE_LOSSES[loss].published if loss in HANDMADE_LOSSES else {}
        return min(high, max(low, own.get(number, 1.0)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """The given one."""
        return self.centerness if name == "centerness" else self.losses[name]


@dataclass(frozen=True)
class _Random:
    """Chooses at random."""

    rng: Generator

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Uniform, or uniform in the logarithm."""
        share = self.rng.random()
        return low * (high / low) ** share if log else low + (high - low) * share

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Uniform."""
        return choices[int(self.rng.integers(len(choices)))]


def _weighted(branch: Branch, weight: float) -> Branch:
    return replace(branch, loss_weight=weight)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
