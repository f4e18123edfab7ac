"""The part of a job spec about who proposes expressions: random search and evolution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from search_server.spec.budgets import Part, Probability
from search_server.spec.given_losses import given_loss
from search_server.spec.places import places_of


class Depth(Part):
    """Depth of the trees that random growth makes, in levels; a single input has one."""

    min: int = Field(default=2, ge=1, le=16)
    max: int = Field(default=6, ge=1, le=16)

    @model_validator(mode="after")
    def _ordered(self) -> Depth:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) must not be above max ({self.max})")
        return self


class Mutation(Part):
    """How often a mutation is of each kind; the four are weights, their sum is free.

    Attributes:
        subtree: a part is replaced by a grown one.
        point: an operator or a leaf is replaced by another.
        hoist: a part is replaced by a part of itself.
        constant: the constants are moved a little, or one is put in.
    """

    subtree: Probability = 0.5
    point: Probability = 0.3
    hoist: Probability = 0.2
    constant: Probability = 0.0

    @model_validator(mode="after")
    def _any(self) -> Mutation:
        if self.subtree + self.point + self.hoist + self.constant <= 0:
            raise ValueError("at least one of subtree, point, hoist and constant must be above 0")
        return self


class NamedPair(Part):
    """A named loss put together from two of the catalogue, a branch from each."""

    cls: str | None = None
    bbox: str | None = None

    def __str__(self) -> str:
        return " + ".join(filter(None, (self.cls, self.bbox)))


# In errors the tags are no part of a field's name, for their brackets: see `loading`.
_NAME, _PAIR, _WHOLE = "[a name]", "[a pair of names]", "[a loss definition]"


def _form(given: Any) -> str:
    if isinstance(given, Mapping):
        return _WHOLE if "name" in given else _PAIR
    return _PAIR if isinstance(given, NamedPair) else _NAME


NamedLoss = Annotated[
    Annotated[str, Tag(_NAME)]
    | Annotated[NamedPair, Tag(_PAIR)]
    | Annotated[dict[str, Any], Tag(_WHOLE)],
    Discriminator(_form),
]


class Searcher(Part):
    """Who proposes expressions, and how. The searcher of parameters is in `spec.policy`, that of
    hand-made losses in `spec.tuning`.

    Attributes:
        population: candidates in a generation; also the size of a cohort of the simulation. See
            `window` for what a generation sees of the one before it.
        parents: P candidates become parents; which ones, `selection` says.
        named: losses that open the first generation, in this order: a name of the catalogue, a
            mapping of branches to names, a loss definition, or the path of one (`*.json`). Of a
            definition, focal, cross-entropy, GIoU and IoU losses of mmdet become the expressions
            that they are, with their numbers, so that they can be varied.
        selection: `truncation`: the parents are the best P of all visible candidates. `ageing`:
            the oldest leave, so that a lucky result is forgotten unless its offspring are as good:
            a parent is the best of `tournament` drawn from the youngest `population` visible
            ones. `niches`: the best P that are not within `radius` of a better one.
        tournament: candidates that a parent of `ageing` is the best of.
        radius: distance of structure up to which candidates share a niche: the share of differing
            pairs of a node and its argument, in [0, 1]; the values of constants do not count. One
            operator replaced in a tree of 25 nodes makes a distance of 0.2.
        tolerance: AP in [0, 1] up to which candidates are as good as each other, reckoned in steps
            from the best one; of those the smaller ranks first. 0: AP alone ranks.
        objectives: `fitness`, or `fitness_and_size`: fronts of Pareto rank first, on which no
            candidate has another that is both as good (in steps of `tolerance`) and smaller.
        refine: share of the search, its end, that moves the numbers of the best instead of
            changing structure: constants of expressions, alpha, learning rate, and the loss
            weights, save a box loss's that is left to the head. It is a share of `candidates`, or
            of `limits.steps`, whichever is used up first.
        sigma: spread of such a move in the logarithm; it falls to a quarter by the last candidate.
        inherit: whether offspring keep the weight and the alpha of their parent's branch instead
            of the spec's; always so where `refine` is above 0.
        random, mutation, crossover: weights of the three ways to make a candidate after the
            first generation.
        mutate: weights of the kinds of mutation.
        depth: depth of what random growth makes.
    """

    type: Literal["evolution", "random"] = "evolution"
    population: int = Field(default=16, ge=1, le=100_000)
    parents: int = Field(default=4, ge=1, le=100_000)
    named: tuple[NamedLoss, ...] = Field(default=(), max_length=1000)
    selection: Literal["truncation", "ageing", "niches"] = "truncation"
    tournament: int = Field(default=4, ge=1, le=100_000)
    radius: Probability = 0.25
    tolerance: Probability = 0.0
    objectives: Literal["fitness", "fitness_and_size"] = "fitness"
    refine: Probability = 0.0
    sigma: float = Field(default=0.3, gt=0, le=10)
    inherit: bool = False
    random: Probability = 0.2
    mutation: Probability = 0.5
    crossover: Probability = 0.3
    mutate: Mutation = Mutation()
    depth: Depth = Depth()

    @field_validator("type", mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        if value not in ("evolution", "random"):
            raise ValueError("it must be evolution, random, policy or tuning")
        return value

    @field_validator("named", mode="before")
    @classmethod
    def _resolve(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, list | tuple):
            return value
        places = places_of(info)
        return [
            given_loss(given, places, f"named-{number}") if _is_definition(given) else given
            for number, given in enumerate(value, 1)
        ]

    @model_validator(mode="after")
    def _consistent(self) -> Searcher:
        if self.random + self.mutation + self.crossover <= 0:
            raise ValueError("at least one of random, mutation and crossover must be above 0")
        if len(self.named) > self.population:
            raise ValueError(
                f"{len(self.named)} named losses do not fit into a population of {self.population}"
            )
        if any(loss in self.named[:place] for place, loss in enumerate(self.named)):
            raise ValueError("named holds a name twice")
        return self


def _is_definition(given: object) -> bool:
    """Whether something stands for a whole definition: its path, or the mapping itself."""
    if isinstance(given, str):
        return given.endswith(".json")
    if not isinstance(given, Mapping):
        return False
    return "name" in given or any(isinstance(value, Mapping) for value in given.values())
