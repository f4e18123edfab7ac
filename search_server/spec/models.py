"""`JobSpec`: detector, data, spaces and budgets of one search job."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from losses import CATALOG, DefinitionError, LossDefinition, LossesError, space_role
from primitives import SPACES, PrimitivesError, SearchSpace
from search_server.spec.budgets import (
    Funnel,
    Limits,
    Misfit,
    Part,
    Rejection,
    Resources,
    Seed,
    Verify,
)
from search_server.spec.policy import PAP, PapSpec, PolicySearcher, tag_by
from search_server.spec.trees import Searcher
from search_server.spec.tuning import (
    HANDMADE,
    TUNING,
    HandmadeSpec,
    TuningSearcher,
    spelt_out_tuning,
)
from search_server.spec.whole_spaces import AUTOLOSS_ZERO, fits_whole_space, spelt_out

BRANCHES = ("cls", "bbox")
Weight = Annotated[float, Field(gt=0, le=1e6)]
Text = Annotated[str, Field(min_length=1, max_length=4096)]
PACKAGED = re.compile(r"\A[a-z0-9_]+/[a-z0-9_]+\Z")


class SplitSpec(Part):
    """One split of a data set in COCO format: annotation file and image folder."""

    annotations: Text
    images: Text

    @field_validator("annotations", "images")
    @classmethod
    def _resolve(cls, value: str, info: ValidationInfo) -> str:
        return resolved(value, info)


class DataSpec(Part):
    """The splits of a data set; a search uses the first two."""

    search_train: SplitSpec
    search_val: SplitSpec
    confirm: SplitSpec | None = None
    test: SplitSpec | None = None


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
        candidates: how many candidates are made, the baseline not counted. It follows from the
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
    candidates: int = Field(default_factory=lambda given: _following(given)[0], ge=1, le=10**8)
    window: int = Field(default_factory=lambda given: _following(given)[1], ge=1, le=10**8)
    resources: Resources = Resources()
    limits: Limits = Limits()
    seed: Seed = 0
    target_gain: Annotated[float, Field(gt=0, le=100)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _spelt_out(cls, data: Any, info: ValidationInfo) -> Any:
        folder = (info.context or {}).get("folder")
        return spelt_out_tuning(spelt_out(data, folder), folder)

    @field_validator("name")
    @classmethod
    def _printable(cls, value: str) -> str:
        if not value.isprintable() or not value.strip():
            raise ValueError("it must be printable text on one line")
        return value

    @field_validator("detector")
    @classmethod
    def _resolve(cls, value: str, info: ValidationInfo) -> str:
        if PACKAGED.match(value):
            return value
        if not value.endswith(".py"):
            raise ValueError(
                "it must be the path of an mmdet config (*.py), or a name like digits/atss"
            )
        return resolved(value, info)

    @model_validator(mode="after")
    def _consistent(self) -> JobSpec:
        _check_kind(self)
        population, simulate = self.searcher.population, self.funnel.simulate
        for branch, given in self.searched.items():
            fitting = (space_role(given.search_space) == "box") == (branch == "bbox")
            if not fitting:
                raise Misfit(
                    f"branches.{branch}.space",
                    given.search_space.name,
                    "bbox takes box; cls takes multi_cls or binary_cls, or your own like these",
                )
            if self.search_space and not fits_whole_space(self.search_space, given.space):
                spaces = ", ".join(name for name in SPACES if name.startswith(AUTOLOSS_ZERO))
                allowed = f"with search_space {self.search_space} it must be one of {spaces}"
                raise Misfit(f"branches.{branch}.space", given.search_space.name, allowed)
        _check_rejection(self)
        for branch, fixed in self.fixed.items():
            if branch in self.searched or branch in self.handmade:
                raise Misfit(f"fixed.{branch}", fixed, f"branches.{branch} is searched already")
            check_definition(f"fixed.{branch}", {branch: fixed})
        if simulate is not None and self.window < population:
            raise Misfit(
                "window",
                self.window,
                f"it must be at least searcher.population ({population}), because a cohort of the "
                "simulation is decided as a whole",
            )
        if simulate is not None and simulate.keep > population:
            raise Misfit(
                "funnel.simulate.keep",
                simulate.keep,
                f"it must be at most searcher.population ({population})",
            )
        for index, named in enumerate(self.searcher.named):
            if isinstance(named, dict):
                continue  # a definition that was read already
            names = [named] if isinstance(named, str) else [named.cls, named.bbox]
            for name in names:
                if name is not None and name not in CATALOG:
                    allowed = f"it must be one of {', '.join(CATALOG)}"
                    raise Misfit(f"searcher.named.{index}", name, allowed)
        if self.baseline != "default":
            check_definition("baseline", self.baseline)
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


def _following(given: Mapping[str, Any]) -> tuple[int, int]:
    """The candidates and the window of a spec that does not give them."""
    searcher = given["searcher"]
    if isinstance(searcher, PolicySearcher):
        return searcher.candidates, searcher.samples
    if isinstance(searcher, TuningSearcher):
        return 64, 4 if given["funnel"].simulate is None else searcher.population
    return 32, 16


def _check_kind(spec: JobSpec) -> None:
    """A policy searches parameters, a tuning hand-made losses, the others search expressions; what
    another kind is told by other fields would do nothing.

    Raises:
        Misfit: names the field.
    """
    searcher = spec.searcher
    if isinstance(searcher, TuningSearcher):
        _check_tuning(spec)
        return
    for branch in spec.handmade:
        allowed = "handmade losses are tuned by the searcher `tuning`: set searcher.type"
        raise Misfit(f"branches.{branch}.space", HANDMADE, allowed)
    if not isinstance(searcher, PolicySearcher):
        if spec.parameterized:
            allowed = "pap is searched by the searcher `policy`: set searcher.type"
            raise Misfit("branches.cls.space", PAP, allowed)
        return
    for branch, given in spec.searched.items():
        allowed = "the searcher `policy` searches the parameters of space pap"
        raise Misfit(f"branches.{branch}.space", given.search_space.name, allowed)
    follow = f"{searcher.rounds} rounds of {searcher.samples} samples"
    idle: dict[str, tuple[object, object, str]] = {
        "search_space": (spec.search_space, None, "it is for expressions"),
        "mode": (spec.mode, "joint", "there are no generations that could alternate"),
        "fixed": (spec.fixed, {}, "pap is the loss of both branches"),
        "iou_centerness": (spec.iou_centerness, False, "a ranking loss has no centerness"),
        "funnel.simulate": (
            spec.funnel.simulate,
            None,
            "every sample of a round is trained, and its AP is the reward",
        ),
        "funnel.verify": (spec.funnel.verify, Verify(), "no expressions are drawn"),
        "calibrate": (spec.calibrate, False, "how strong a ranking loss is, is searched too"),
        "funnel.proxy.rungs": (
            list(spec.funnel.proxy.rungs),
            [],
            "every sample of a round is trained to its end, and its AP is the reward",
        ),
        "limits.steps": (spec.limits.steps, None, f"its budget are the {follow}"),
        "candidates": (
            spec.candidates,
            searcher.candidates,
            f"it follows from {follow} and the last mean; leave it out",
        ),
        "window": (spec.window, searcher.samples, f"it follows from {follow}; leave it out"),
    }
    _check_idle("policy", idle)


def _check_tuning(spec: JobSpec) -> None:
    """Raises: see `_check_kind`."""
    others = [(b, s.search_space.name) for b, s in spec.searched.items()]
    others += [(branch, PAP) for branch in spec.parameterized]
    for branch, space in others:
        allowed = "the searcher `tuning` tunes the losses of space handmade"
        raise Misfit(f"branches.{branch}.space", space, allowed)
    idle: dict[str, tuple[object, object, str]] = {
        "search_space": (spec.search_space, None, "it is for expressions"),
        "mode": (spec.mode, "joint", "there are no generations that could alternate"),
        "funnel.verify": (spec.funnel.verify, Verify(), "no expressions are drawn"),
        "calibrate": (spec.calibrate, False, "the weights of the losses are tuned"),
    }
    _check_idle(TUNING, idle)


def _check_idle(searcher: str, idle: Mapping[str, tuple[object, object, str]]) -> None:
    """Refuse fields that would do nothing: by field, what it is, what it must be, and why.

    Raises:
        Misfit: names the field.
    """
    for field, (found, wanted, why) in idle.items():
        if found != wanted:
            shown = {"None": "null", "False": "false"}.get(str(wanted), str(wanted))
            if isinstance(wanted, Verify):
                shown = "left out"
            allowed = f"with the searcher `{searcher}` it must be {shown}: {why}"
            raise Misfit(field, _plain(found), allowed)


def _check_rejection(spec: JobSpec) -> None:
    """Settings of the loss rejection do nothing where it is not asked for.

    Raises:
        Misfit: names the field.
    """
    verify = spec.funnel.verify
    spaces = (given.space for given in spec.searched.values())
    by_space = verify.method is None and any(fits_whole_space(AUTOLOSS_ZERO, s) for s in spaces)
    if verify.rejection != Rejection() and verify.method != "rejection" and not by_space:
        allowed = (
            "these expressions go through convergence property verification; leave it out, or set "
            "funnel.verify.method to rejection"
        )
        raise Misfit("funnel.verify.rejection", _plain(verify.rejection), allowed)


def _plain(value: object) -> object:
    """A value as it was written."""
    return value.model_dump(mode="json") if isinstance(value, Part) else value


def resolved(value: str, info: ValidationInfo) -> str:
    """An absolute path; a relative one is meant from the folder of the spec."""
    folder = (info.context or {}).get("folder")
    if "\0" in value:
        raise ValueError("it must be a path")
    path = Path(value)
    if path.is_absolute() or folder is None:
        return value
    return str((Path(folder) / path).absolute())


def check_definition(field: str, given: str | Mapping[str, Any]) -> None:
    """Refuse a name that the catalogue does not have, and a mapping that is no loss definition.

    Raises:
        Misfit: names the field.
    """
    if isinstance(given, str):
        if given not in CATALOG:
            raise Misfit(field, given, f"it must be `default`, or one of {', '.join(CATALOG)}")
        return
    try:
        LossDefinition.from_json({"name": field, **given})
    except DefinitionError as error:
        raise Misfit(field, given, f"it must be a loss definition: {error}") from error
