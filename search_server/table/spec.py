"""What a table of losses is to hold, and the one budget that all of its trials have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from losses import CATALOG
from search_server.errors import SpecError
from search_server.spec.budgets import Misfit, Part, Seed
from search_server.spec.data import Text
from search_server.spec.loading import MAX_BYTES, explained, read_yaml

Count = Annotated[int, Field(ge=0, le=10_000)]
Positive = Annotated[float, Field(gt=0, le=1e6)]


class Simulation(Part):
    """The simulation trial of every loss: fit a few images, evaluate on the same.

    Attributes:
        seed: of the trial and of the choice of images.
    """

    steps: int = Field(default=80, ge=1, le=10_000_000)
    images_per_class: int = Field(default=1, ge=1, le=10_000)
    batch_size: int = Field(default=4, ge=1, le=4096)
    seed: Seed = 0


class Warm(Part):
    """The weights that all trials of a group start from: the detector trained with its own losses.

    Attributes:
        parts: what of the weights is taken; the rest is initialised by the trial's seed.
    """

    steps: int = Field(ge=1, le=10_000_000)
    seed: Seed = 99
    parts: tuple[Literal["backbone", "neck", "heads"], ...] = ("backbone", "neck")


class Rejects(Part):
    """How many losses that verification rejects, for each condition and branch.

    Attributes:
        random: from random growth.
        mutation: from mutations of hand-made losses.
    """

    random: Count = 2
    mutation: Count = 2


class Tuned(Part):
    """A grid of a hand-made loss's numbers.

    Attributes:
        loss: a name of the catalogue with stock losses.
        gamma, alpha: of a focal loss; empty: as they are.
        cls_weight, bbox_weight: loss weights; empty: the defaults of the head.
        count: how many points of the grid, drawn without replacement; null: all.
    """

    loss: str
    gamma: tuple[Positive, ...] = ()
    alpha: tuple[Positive, ...] = ()
    cls_weight: tuple[Positive, ...] = ()
    bbox_weight: tuple[Positive, ...] = ()
    count: Count | None = None

    @model_validator(mode="after")
    def _known(self) -> Tuned:
        if self.loss not in CATALOG:
            raise Misfit("loss", self.loss, f"it must be one of {', '.join(CATALOG)}")
        return self


class Subspace(Part):
    """A closed sub-space: all pairs of so many classification and box expressions.

    The hand-made ones that verification accepts come first, then accepted ones from mutation and
    random growth in turn.
    """

    cls: Count = 18
    bbox: Count = 10


class Group(Part):
    """The losses of one detector.

    Attributes:
        detector: name of a packaged detector, or the path of an mmdet config.
        bbox_weight: of every box expression; null: the head's default.
        subspace: None: there is none.
        pairs: pairs of hand-made expressions, where there is no sub-space that has them all.
        random, evolved: pairs of accepted expressions from random growth; from mutation and
            crossover of the hand-made ones.
        named: catalogue losses as they are.
    """

    detector: Text
    bbox_weight: Positive | None = None
    subspace: Subspace | None = None
    pairs: Count = 0
    random: Count = 0
    evolved: Count = 0
    rejects: Rejects = Rejects()
    named: tuple[str, ...] = ()
    tuned: tuple[Tuned, ...] = ()

    @model_validator(mode="after")
    def _known(self) -> Group:
        for index, name in enumerate(self.named):
            if name not in CATALOG:
                raise Misfit(f"named.{index}", name, f"it must be one of {', '.join(CATALOG)}")
        return self


class TableSpec(Part):
    """A table: losses by detector, and the fixed budget.

    Attributes:
        steps, batch_size, rungs, seeds, precision: of the trials on `search_train`, evaluated on
            `search_val` at every rung and at the end.
        calibrate: matches the gradient norm of expressions to the detector's own losses.
        max_draws: of random growth, per space; mutation draws a tenth of it.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    data: Literal["digits"] = "digits"
    steps: int = Field(default=300, ge=1, le=10_000_000)
    batch_size: int = Field(default=8, ge=1, le=4096)
    rungs: tuple[int, ...] = ()
    seeds: tuple[Seed, ...] = Field(default=(0, 1), min_length=1, max_length=100)
    precision: Literal["float32", "bfloat16"] = "float32"
    warm_start: Warm | None = None
    simulate: Simulation = Simulation()
    calibrate: bool = True
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    trial_seconds: float | None = Field(default=None, gt=0, le=10_000_000)
    max_draws: int = Field(default=100_000, ge=1, le=10_000_000)
    groups: dict[str, Group] = Field(min_length=1)

    @model_validator(mode="after")
    def _ordered(self) -> TableSpec:
        inside = all(0 < rung < self.steps for rung in self.rungs)
        if not inside or list(self.rungs) != sorted(set(self.rungs)):
            raise Misfit("rungs", self.rungs, f"ascending steps between 1 and {self.steps - 1}")
        if len(set(self.seeds)) != len(self.seeds):
            raise Misfit("seeds", self.seeds, "each seed once")
        return self


def load_table_spec(path: Path) -> TableSpec:
    """The spec in a YAML file.

    Raises:
        SpecError: cannot be read, is no YAML, or is no such spec.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SpecError(path, "", reason, "give the spec of a table, a YAML file") from error
    if len(content) > MAX_BYTES:
        raise SpecError(path, "", f"{len(content)} bytes", f"at most {MAX_BYTES} are read")
    data = read_yaml(content, path)
    if not isinstance(data, dict):
        raise SpecError(path, "", data, "the spec of a table is a mapping of fields")
    try:
        return TableSpec.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise explained(details[0], path, len(details) - 1) from None
