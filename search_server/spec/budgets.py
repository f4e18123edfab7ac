"""The parts of a job spec that say how hard to search: funnel, resources, limits."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from search_server.spec.given_losses import definition_of, given_loss
from search_server.spec.places import places_of

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
            two filters, `none` lets every expression pass, as vanilla evolution does; null:
            `rejection` for the spaces of AutoLoss-Zero, else `convergence`.
        rejection: settings of the second.
    """

    max_draws: int = Field(default=50_000, ge=1, le=10_000_000)
    method: Literal["convergence", "rejection", "none"] | None = None
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


class WarmStart(Part):
    """Where the proxy trials start: at weights that the baseline left.

    The baseline is trained once with the job's seed, and each proxy trial begins with those parts
    of its weights; the rest is initialised by the trial's own seed. It keeps the luck of the
    first steps out of the comparison. The stages that judge start from scratch.

    Attributes:
        steps: of the baseline's training.
        parts: of the detector.
    """

    steps: int = Field(default=300, ge=1, le=100_000_000)
    parts: tuple[Literal["backbone", "neck", "heads"], ...] = Field(
        default=("backbone", "neck"), min_length=1
    )

    @model_validator(mode="after")
    def _distinct(self) -> WarmStart:
        if len(set(self.parts)) != len(self.parts):
            raise ValueError("parts holds a part twice")
        return self


class Proxy(Part):
    """The proxy task: train on `search_train`, evaluate on `search_val`, once per seed.

    Attributes:
        steps: optimiser steps.
        batch_size: images a step.
        rungs: steps, ascending and below `steps`, at which a candidate may be stopped: successive
            halving. It goes on only if it is neither hopeless nor beaten by its predecessors, the
            candidates that its searcher could see. The baseline is never stopped.
        reduction: at a rung the best 1 / reduction of the predecessors have to be reached, once
            there are at least `reduction` of them.
        hopeless: a candidate whose AP at a rung is below this share of the baseline's is stopped;
            0: none is.
        warm_start: shared weights to start from; null: from scratch, or from what the detector's
            config names.
    """

    steps: int = Field(default=300, ge=1, le=100_000_000)
    batch_size: int = Field(default=8, ge=1, le=4096)
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1, max_length=100)
    rungs: tuple[Annotated[int, Field(ge=1, le=100_000_000)], ...] = Field(
        default=(), max_length=20
    )
    reduction: int = Field(default=3, ge=2, le=1000)
    hopeless: float = Field(default=0.5, ge=0, le=1)
    warm_start: WarmStart | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Proxy:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds holds a seed twice")
        if list(self.rungs) != sorted(set(self.rungs)):
            raise ValueError("rungs must rise, each step once")
        if self.rungs and self.rungs[-1] >= self.steps:
            raise ValueError(f"rungs must be below steps ({self.steps}), got {self.rungs[-1]}")
        return self


class Confirm(Part):
    """The last stage: the best candidates, the baseline and the rivals, trained anew.

    All of them from the same seeds, which no earlier stage used, on `search_train`; the AP is that
    on the split `confirm`.

    Attributes:
        steps: optimiser steps; null: those of the proxy task.
        batch_size: images a step; null: that of the proxy task.
        top: how many candidates, the best by fitness; a policy search's final mean comes in
            addition.
        seeds: how many seeds.
        rivals: losses that the found ones have to beat beside the baseline: names of the
            catalogue, loss definitions, or paths of such; trained just as they are given.
    """

    steps: int | None = Field(default=None, ge=1, le=100_000_000)
    batch_size: int | None = Field(default=None, ge=1, le=4096)
    top: int = Field(default=3, ge=1, le=1000)
    seeds: int = Field(default=4, ge=1, le=100)
    rivals: tuple[str | dict[str, Any], ...] = Field(default=(), max_length=100)

    @field_validator("rivals", mode="before")
    @classmethod
    def _resolve(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, list | tuple):
            raise ValueError("it must be a list of losses")
        places = places_of(info)
        rivals: list[str | dict[str, Any]] = []
        keys: set[str] = set()
        for number, given in enumerate(value):
            field = f"funnel.confirm.rivals.{number}"
            try:
                rival = given_loss(given, places, f"rival-{number + 1}")
            except ValueError as error:
                raise Misfit(field, given, str(error)) from error
            key = definition_of(rival).key
            if key in keys:
                raise Misfit(field, given, "it must not be a rival before it")
            rivals.append(rival)
            keys.add(key)
        return rivals


class Funnel(Part):
    """The stages of the funnel.

    Attributes:
        simulate: null, the default: every verified candidate goes to the proxy task. The first rung
            there costs no more than a simulation and ranks better (docs/bench.md).
        confirm: null: the found losses stay unconfirmed.
    """

    verify: Verify = Verify()
    simulate: Simulate | None = None
    proxy: Proxy = Proxy()
    confirm: Confirm | None = None


class Resources(Part):
    """What one trial takes.

    Attributes:
        cpus, gpus: as Ray counts them. With a fraction of a GPU a trial can take as much of its
            memory, and is `out_of_memory` beyond.
        memory_gb: memory that Ray reserves, GiB; null reserves none.
        device: where the trial trains.
        threads: CPU threads of torch. Part of what steers the result.
        precision: arithmetic of the detector's layers; what comes after them, the loss first of
            all, is float32 either way (`workers.arithmetic.Bfloat16Layers`). Part of what steers
            the result: trials of two precisions are no rivals of each other.
        smaller_batch: images a step to try a trial again with, once, that has run out of memory,
            in the stages whose batch is larger; null: such a trial is lost. The row of the trial
            says that it was needed, for the AP is that of fewer images.
        processes: that train a trial together, each an equal part of every batch: on one GPU each,
            so `gpus` is as many, or on the CPU with `gpus` 0. Part of what steers the result.
        send_data: on a cluster, send the splits to nodes that do not have them at their paths, once
            a node; up to 2 GB each. False: they are there, on shared storage. The embedded digits
            are always sent.
    """

    cpus: float = Field(default=1.0, gt=0, le=1024)
    gpus: float = Field(default=0.0, ge=0, le=64)
    memory_gb: float | None = Field(default=None, gt=0, le=4096)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=1, ge=1, le=256)
    precision: Literal["float32", "bfloat16"] = "float32"
    smaller_batch: int | None = Field(default=None, ge=1, le=4095)
    send_data: bool = False
    processes: int = Field(default=1, ge=1, le=64)


class Limits(Part):
    """Budgets of a job. `job_hours` never steers a search.

    Attributes:
        steps: training steps of the proxy's batch size that all trials of the simulation and of
            the proxy task together may take; a step of the simulation counts by its share of
            images. No candidate is made that would not find room, whatever `candidates` says.
            Counted from the results alone, so the same on any machine. null: no limit.
        trial_seconds: a trial that takes longer is killed; its candidate fails and cannot become a
            parent. So a limit that sound trials come near makes a search depend on the machine: it
            is meant for those that hang. null: no limit.
        job_hours: a job that runs longer is interrupted; resumed, it goes on as if nothing had
            happened. null: no limit.
    """

    steps: int | None = Field(default=None, ge=1, le=10**12)
    trial_seconds: float | None = Field(default=None, gt=0, le=10_000_000)
    job_hours: float | None = Field(default=None, gt=0, le=100_000)
