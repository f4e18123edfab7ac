"""The parts of a job spec that say how hard to search: searcher, funnel, resources, limits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class Misfit(ValueError):  # noqa: N818 - pydantic wants a ValueError, people see a SpecError
    """A value that does not fit the rest of the spec; carries the field that is to blame."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        self.field = field
        self.value = value
        self.allowed = allowed
        super().__init__(f"{field}: {allowed}")


class Part(BaseModel):
    """Base of every part of a spec: immutable, strict about names, finite numbers only."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )


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
    """How often a mutation is of each kind; the three are weights, their sum is free."""

    subtree: Probability = 0.5
    point: Probability = 0.3
    hoist: Probability = 0.2

    @model_validator(mode="after")
    def _any(self) -> Mutation:
        if self.subtree + self.point + self.hoist <= 0:
            raise ValueError("at least one of subtree, point and hoist must be above 0")
        return self


class NamedPair(Part):
    """A named loss put together from two of the catalogue, a branch from each."""

    cls: str | None = None
    bbox: str | None = None

    def __str__(self) -> str:
        return " + ".join(filter(None, (self.cls, self.bbox)))


class Searcher(Part):
    """Who proposes expressions, and how. The searcher of parameters is in `spec.policy`.

    Attributes:
        population: candidates in a generation; also the size of a cohort of the simulation. See
            `window` for what a generation sees of the one before it.
        parents: the best P visible candidates become parents.
        named: losses of the catalogue that open the first generation, in this order: a name, or
            a mapping of branches to names.
        random, mutation, crossover: weights of the three ways to make a candidate after the
            first generation.
        mutate: weights of the kinds of mutation.
        depth: depth of what random growth makes.
    """

    type: Literal["evolution", "random"] = "evolution"
    population: int = Field(default=16, ge=1, le=100_000)
    parents: int = Field(default=4, ge=1, le=100_000)
    named: tuple[str | NamedPair, ...] = Field(default=(), max_length=1000)
    random: Probability = 0.2
    mutation: Probability = 0.5
    crossover: Probability = 0.3
    mutate: Mutation = Mutation()
    depth: Depth = Depth()

    @field_validator("type", mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        if value not in ("evolution", "random"):
            raise ValueError("it must be evolution, random or policy")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Searcher:
        if self.random + self.mutation + self.crossover <= 0:
            raise ValueError("at least one of random, mutation and crossover must be above 0")
        if len(self.named) > self.population:
            raise ValueError(
                f"{len(self.named)} named losses do not fit into a population of {self.population}"
            )
        if len(set(self.named)) != len(self.named):
            raise ValueError("named holds a name twice")
        return self


class Rejection(Part):
    """AutoLoss-Zero's two filters: loss rejection, and the gradient-equivalence check.

    Attributes:
        steps: of gradient descent on the predictions of five fixed samples.
        learning_rate: largest step at the start, in logits or in box deltas; it falls to 0.
        threshold: least gain of the metric, as a share of what is possible.
        digits: significant digits to which the gradient norms of equivalent losses agree; null:
            no check.
    """

    steps: int = Field(default=80, ge=10, le=10_000)
    learning_rate: float = Field(default=0.3, gt=0, le=100)
    threshold: float = Field(default=0.95, gt=0, le=1)
    digits: int | None = Field(default=2, ge=1, le=15)


class Verify(Part):
    """What a drawn expression has to pass before anything is trained with it.

    Attributes:
        max_draws: draws for one way to make a candidate, per branch.
        method: `convergence` is convergence property verification, `rejection` AutoLoss-Zero's
            two filters; null: `rejection` for the spaces of AutoLoss-Zero, else `convergence`.
        rejection: settings of the second.
    """

    max_draws: int = Field(default=50_000, ge=1, le=10_000_000)
    method: Literal["convergence", "rejection"] | None = None
    rejection: Rejection = Rejection()


class Simulate(Part):
    """Model optimisation simulation: fit a detector to a few images and evaluate on the same.

    Attributes:
        steps: optimiser steps.
        images_per_class: size of the verification set.
        batch_size: images a step.
        keep: how many of each cohort go on to the proxy task.
    """

    steps: int = Field(default=80, ge=1, le=10_000_000)
    images_per_class: int = Field(default=1, ge=1, le=10_000)
    batch_size: int = Field(default=4, ge=1, le=4096)
    keep: int = Field(default=4, ge=1, le=100_000)


class Proxy(Part):
    """The proxy task: train on `search_train`, evaluate on `search_val`, once per seed."""

    steps: int = Field(default=300, ge=1, le=100_000_000)
    batch_size: int = Field(default=8, ge=1, le=4096)
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1, max_length=100)

    @model_validator(mode="after")
    def _distinct(self) -> Proxy:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds holds a seed twice")
        return self


class Funnel(Part):
    """The stages of the funnel; `simulate: null` sends every verified candidate to the proxy."""

    verify: Verify = Verify()
    simulate: Simulate | None = Simulate()
    proxy: Proxy = Proxy()


class Resources(Part):
    """What one trial takes.

    Attributes:
        cpus, gpus: as Ray counts them; fractions of a GPU are allowed.
        memory_gb: memory that Ray reserves, GiB; null reserves none.
        device: where the trial trains.
        threads: CPU threads of torch. Part of what steers the result.
    """

    cpus: float = Field(default=1.0, gt=0, le=1024)
    gpus: float = Field(default=0.0, ge=0, le=64)
    memory_gb: float | None = Field(default=None, gt=0, le=4096)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=1, ge=1, le=256)


class Limits(Part):
    """Wall-clock limits. Only `job_hours` never steers a search.

    Attributes:
        trial_seconds: a trial that takes longer is killed; its candidate fails and cannot become a
            parent. So a limit that sound trials come near makes a search depend on the machine: it
            is meant for those that hang. null: no limit.
        job_hours: a job that runs longer is interrupted; resumed, it goes on as if nothing had
            happened. null: no limit.
    """

    trial_seconds: float | None = Field(default=None, gt=0, le=10_000_000)
    job_hours: float | None = Field(default=None, gt=0, le=100_000)
