"""`JobSpec`: detector, data, spaces and budgets of one search job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from search_server.spec.branches import BRANCHES, AnySearcher, Branches, BranchSpec
from search_server.spec.budgets import Funnel, Limits, Part, Resources, Seed
from search_server.spec.consistency import check, check_companions
from search_server.spec.data import PACKAGED, DataSpec, Text, resolved
from search_server.spec.places import places_of
from search_server.spec.policy import PapSpec, PolicySearcher
from search_server.spec.trees import Searcher
from search_server.spec.tuning import HandmadeSpec, TuningSearcher, spelt_out_tuning
from search_server.spec.whole_spaces import spelt_out

MOST_CANDIDATES = 10**8
Count = Annotated[int, Field(ge=1, le=MOST_CANDIDATES)]


class JobSpec(Part):
    """One search job. Where the results go, the store's URL, is no part of it.

    Attributes:
        name: name for people; the job's id is made from it.
        detector: path of an mmdet config, or the name of a packaged one (`digits/atss`).
        data: `digits`, the embedded data set, or splits in COCO format.
        search_space: `autoloss_zero` searches both branches in its spaces, and the classification
            space is that of the detector's head; with `branches`, those have to be of its spaces.
        mode: `joint` makes a candidate of new losses for every searched branch; `alternate` takes
            the branches in turn, one per generation, the others being those of the best parent.
        fixed: parts of the loss definition for branches that are not searched.
        iou_centerness: FCOS and ATSS: the centerness target is the IoU; for every candidate. A
            tuning chooses it: there it is the baseline's alone.
        baseline: `default` (the detector's own losses), a catalogue name, or a loss definition;
            its `iou_centerness` is the job's.
        calibrate: every searched expression gets a factor with which its gradient is as large as
            that of the baseline's loss, see docs/calibration.md. Searches of expressions only, and
            their default.
        candidates: how many candidates are made, the baseline not counted; 32, of a tuning 64,
            and where `limits.steps` is given more than it is likely to pay for. It follows from the
            searcher where that is `policy`, and so does the window.
        window: W, the k-th `ask` sees exactly the results of candidates 0 .. k-W. With a window
            as large as the population, the least that a simulation allows, the first candidate of
            a generation sees only the first of the generation before it, and the last one all of
            it: several small generations learn more than two large ones.
        seed: of the searcher, and of the simulation.
        target_gain: points of AP (x 100) over the baseline that the job is meant to find; it
            steers nothing, but a job whose `confirm` cannot detect it says so when it is
            submitted (see `lossforge noise`). null: none.
    """

    name: Annotated[str, Field(min_length=1, max_length=100)]
    detector: Text
    data: Literal["digits"] | DataSpec = "digits"
    search_space: Literal["autoloss_zero"] | None = None
    branches: Branches
    mode: Literal["joint", "alternate"] = "joint"
    fixed: dict[Literal["cls", "bbox"], dict[str, Any]] = Field(default_factory=dict)
    iou_centerness: bool = False
    baseline: str | dict[str, Any] = "default"
    searcher: AnySearcher = Searcher()
    calibrate: bool = Field(default_factory=lambda given: isinstance(given["searcher"], Searcher))
    funnel: Funnel = Funnel()
    limits: Limits = Limits()
    candidates: Count = Field(default_factory=lambda given: _following(given)[0])
    window: Count = Field(default_factory=lambda given: _following(given)[1])
    resources: Resources = Resources()
    seed: Seed = 0
    target_gain: Annotated[float, Field(gt=0, le=100)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _spelt_out(cls, data: Any, info: ValidationInfo) -> Any:
        places = places_of(info)
        return spelt_out_tuning(spelt_out(data, places), places)

    @field_validator("name")
    @classmethod
    def _printable(cls, value: str) -> str:
        if not value.isprintable() or not value.strip():
            raise ValueError("it must be printable text on one line")
        return value

    @field_validator("detector")
    @classmethod
    def _resolve(cls, value: str, info: ValidationInfo) -> str:
        if PACKAGED.fullmatch(value):
            return value
        if not value.endswith(".py"):
            raise ValueError(
                "it must be the path of an mmdet config (*.py), or a name like digits/atss"
            )
        return resolved(value, info)

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> JobSpec:
        check(self)
        if info.context is not None:  # as people write it, not as a store has it
            check_companions(self)
        return self

    @property
    def searched(self) -> dict[str, BranchSpec]:
        """The branches whose expressions are searched, by name, `cls` first."""
        pairs = ((branch, getattr(self.branches, branch)) for branch in BRANCHES)
        return {branch: given for branch, given in pairs if isinstance(given, BranchSpec)}

    @property
    def parameterized(self) -> dict[str, PapSpec]:
        """The branches whose parameters are searched, by name, `cls` first."""
        pairs = (("cls", self.branches.cls), ("rpn", self.branches.rpn))
        return {branch: given for branch, given in pairs if isinstance(given, PapSpec)}

    @property
    def handmade(self) -> dict[str, HandmadeSpec]:
        """The branches whose hand-made losses are tuned, by name, `cls` first."""
        pairs = ((branch, getattr(self.branches, branch)) for branch in BRANCHES)
        return {branch: given for branch, given in pairs if isinstance(given, HandmadeSpec)}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, as the store keeps it; paths are absolute."""
        # what verifies nothing has to be the default, which may change
        idle = {"funnel": {"verify"}} if self.parameterized or self.handmade else None
        return self.model_dump(mode="json", exclude=idle)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> JobSpec:
        """The spec that `to_json` gave."""
        return cls.model_validate(dict(data))


def _room(steps: int, funnel: Funnel) -> int:
    """More candidates than a budget of steps is likely to pay for, so that it decides, and not so
    many that trials which fail at once would go on for ever."""
    proxy, simulate = funnel.proxy, funnel.simulate
    least = proxy.rungs[0] if proxy.rungs else proxy.steps
    if simulate is not None:
        least = min(least, max(1, simulate.steps * simulate.batch_size // proxy.batch_size))
    return max(32, min(10 * steps // least, MOST_CANDIDATES))


def _following(given: Mapping[str, Any]) -> tuple[int, int]:
    """The candidates and the window of a spec that does not give them."""
    searcher, funnel, limits = given["searcher"], given["funnel"], given["limits"]
    if isinstance(searcher, PolicySearcher):
        return searcher.candidates, searcher.samples
    room = None if limits.steps is None else _room(limits.steps, funnel)
    if isinstance(searcher, TuningSearcher):
        return room or 64, 4 if funnel.simulate is None else searcher.population
    return room or 32, 16
