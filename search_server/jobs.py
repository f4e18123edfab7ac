"""A job from its spec: checked and written once, opened again from its row as often as needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from losses import (
    Family,
    LossDefinition,
    LossesError,
    apply_loss,
    configs_dir,
    detector_family,
    space_role,
)
from losses.paths import detector_names
from losses.ranking_config import ranks
from search_server.calibration import Calibration, captured
from search_server.checked_data import check_classes, classes_of
from search_server.errors import SpecError
from search_server.funnel.confirm import rivals_of
from search_server.funnel.rungs import Halving
from search_server.funnel.stages import Stages, TrialKey
from search_server.leaderboard import trial_group
from search_server.problem import baseline_of, problem_of
from search_server.searchers import Problem, Searcher, make_searcher
from search_server.spec import ClsSpec, DataSpec, JobSpec
from search_server.spec.budgets import Misfit
from search_server.spec.policy import PAP
from search_server.spec.tuning import check_fit
from search_server.stage_seeds import confirm_seeds
from search_server.store import JobRecord, Store
from search_server.store.requests import Asked
from workers import DetectorError, Split, TrialSpec, load_detector, lossforge_home
from workers.data import DataError, digits, one_image_per_class
from workers.data.parcels import LARGEST, check_parcel
from workers.detector import parse_detector
from workers.warm_start import WarmStart

PACKAGED_DATA = "digits"


@dataclass(frozen=True)
class Job:
    """A job as the controller needs it: everything that follows from its row.

    Attributes:
        detector: text of the detector's config.
        splits: `search_train`, `search_val`, and what else the data set has.
    """

    id: str
    spec: JobSpec
    detector: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    problem: Problem
    searcher: Searcher
    stages: Stages
    baseline: LossDefinition

    @cached_property
    def simulation(self) -> Split:
        """The few images of the simulation; drawn when first asked for, because that reads the
        whole annotation file.

        Raises:
            DataError: `search_train` has gone, or has no image of some class.
        """
        simulate = self.spec.funnel.simulate
        assert simulate is not None
        folder, per_class = lossforge_home() / "subsets", simulate.images_per_class
        return one_image_per_class(self.splits["search_train"], folder, per_class, self.spec.seed)

    @cached_property
    def calibration(self) -> Calibration | None:
        """What calibrates the candidates, None where the spec asks for none; the baseline is run
        for it, once, when first asked for.

        Raises:
            CalibrationError: it cannot be run.
        """
        if not self.spec.calibrate:
            return None
        trial = self.trial(TrialKey(0, "proxy", self.spec.seed), self.baseline.to_json())
        roles = {branch: space_role(space) for branch, space in self.problem.spaces.items()}
        alone = replace(trial, processes=1)  # it looks at whole batches
        return Calibration(captured(alone, roles), self.problem.weights)

    def trial(self, key: TrialKey, definition: Mapping[str, Any]) -> TrialSpec:
        """The trial of a candidate's definition that a key names.

        Raises:
            KeyError: the data set has no split of the stage's name.
        """
        resources, funnel = self.spec.resources, self.spec.funnel
        smaller = resources.smaller_batch
        steps, batch_size = funnel.proxy.steps, funnel.proxy.batch_size
        train, evaluate = self.splits["search_train"], self.splits["search_val"]
        if key.stage == "simulate":
            assert funnel.simulate is not None
            steps, batch_size = funnel.simulate.steps, funnel.simulate.batch_size
            train = evaluate = self.simulation  # an over-fit test: does the detector fit these?
        elif key.stage != "proxy":
            evaluate = self.splits[key.stage]
            if funnel.confirm is not None:  # what is published is trained as it was confirmed
                steps = funnel.confirm.steps or steps
                batch_size = funnel.confirm.batch_size or batch_size
        return TrialSpec(
            detector=self.detector,
            definition=definition,
            train=train,
            evaluate=evaluate,
            seed=key.seed,
            steps=steps,
            batch_size=batch_size,
            classes=self.classes,
            device=resources.device,
            threads=resources.threads,
            precision=resources.precision,
            time_limit=self.spec.limits.trial_seconds,
            smaller_batch=smaller if smaller and smaller < batch_size else None,
            processes=resources.processes,
            rungs=funnel.proxy.rungs if key.stage == "proxy" else (),
            warm_start=self._warm_start() if key.stage == "proxy" else None,
        )

    def _warm_start(self) -> WarmStart | None:
        """What the proxy trials start from, the same for all of them."""
        warm = self.spec.funnel.proxy.warm_start
        if warm is None:
            return None
        return WarmStart(self.baseline.to_json(), self.spec.seed, warm.steps, warm.parts)


def create_job(
    store: Store, spec: JobSpec, source: object = "spec", request: Asked | None = None
) -> str:
    """Check all of a spec that can be checked before a trial, and write the job; returns its id.

    Args:
        source: name of the spec's file, for errors.
        request: who submits it through the service; see `Store.create_job`.

    Raises:
        SpecError: detector, data, spaces or losses do not exist or do not fit each other.
    """
    return write_job(store, prepare_job(spec, source), request)


def write_job(store: Store, job: Job, request: Asked | None = None) -> str:
    """Write a job that `prepare_job` has checked; returns its id."""
    spec = job.spec
    return store.create_job(
        spec.name, spec.to_json(), job.detector, job.classes, group_of(job), request
    )


def prepare_job(spec: JobSpec, source: object = "spec") -> Job:
    """A job that is not in a store, checked; its id is empty. Raises: see `create_job`."""
    detector = detector_text(spec, source)
    _check_data_is_named(spec, source)
    splits = splits_of(spec)
    if spec.funnel.confirm is not None and "confirm" not in splits:
        allowed = "the stage confirm measures on it; give the split, or leave funnel.confirm out"
        raise SpecError(source, "data.confirm", None, allowed)
    classes = _checked_classes(spec, splits, source)
    _check_sendable(spec, splits, source)
    job = _assembled("", spec, splits, detector, classes)
    if spec.funnel.simulate is not None:
        _ = job.simulation  # a class without an image is found now
    config = parse_detector(detector)
    try:
        family = detector_family(config)
    except LossesError as error:
        raise SpecError(source, "detector", spec.detector, str(error)) from error
    _check_spaces(spec, family, source)
    _check_parameters(job, config, family, source)
    _check_handmade(job, config, family, source)
    _check_calibration(job, config, source)
    confirm = spec.funnel.confirm
    rivals = [] if confirm is None else rivals_of(confirm)
    given = {
        "baseline": job.baseline,
        **{f"searcher.named.{n}": named for n, named in enumerate(job.problem.named)},
        **{f"funnel.confirm.rivals.{n}": rival for n, rival in enumerate(rivals)},
    }
    for field, definition in given.items():
        try:
            apply_loss(config, definition)
        except LossesError as error:
            raise SpecError(source, field, definition.name, str(error)) from error
    return job


def open_job(store: Store, job_id: str, splits: Mapping[str, Split] | None = None) -> Job:
    """The job in the store.

    Args:
        splits: what stands for its data, by name; None: its own, of which the embedded ones are
            written.

    Raises:
        JobError: there is none.
        DataError: the embedded data set cannot be written.
    """
    record: JobRecord = store.job(job_id)
    spec = JobSpec.from_json(record.spec)
    data = splits_of(spec) if splits is None else splits
    return _assembled(record.id, spec, data, record.detector, record.classes)


def group_of(job: Job) -> str:
    """What the proxy trials of jobs must have in common to be compared; see `trial_group`."""
    seed = job.spec.funnel.proxy.seeds[0]
    trial = job.trial(TrialKey(0, "proxy", seed), job.baseline.to_json())
    return trial_group(replace(trial, rungs=()))  # looking at a rung steers no training


def detector_text(spec: JobSpec, source: object = "spec") -> str:
    """The self-contained text of the detector's config.

    Raises:
        SpecError: there is no such config, or it is none.
    """
    given = spec.detector
    packaged = configs_dir() / "detectors"
    path = Path(given) if given.endswith(".py") else packaged / f"{given}.py"
    if not path.is_file():
        names = ", ".join(detector_names())
        allowed = f"give the path of an mmdet config, or one of {names}"
        raise SpecError(source, "detector", given, allowed)
    try:
        return load_detector(path)
    except DetectorError as error:
        raise SpecError(source, "detector", given, str(error)) from error


def _check_data_is_named(spec: JobSpec, source: object) -> None:
    """The digits are nobody's wish for a detector of COCO, but what a spec without data means."""
    if spec.detector.startswith("coco/") and "data" not in spec.model_fields_set:
        allowed = (
            f"{spec.detector} needs the splits to search on: search_train and search_val, "
            "which lossforge data split makes from an annotation file"
        )
        raise SpecError(source, "data", None, allowed)


def splits_of(spec: JobSpec) -> dict[str, Split]:
    """The job's splits by name. The embedded data set is written."""
    if spec.data == PACKAGED_DATA:
        return dict(digits().splits)
    assert isinstance(spec.data, DataSpec)
    return named_splits(spec.data)


def named_splits(data: DataSpec) -> dict[str, Split]:
    """The splits of a data set by name."""
    given = {name: getattr(data, name) for name in DataSpec.model_fields}
    return {
        name: Split(split.annotations, split.images)
        for name, split in given.items()
        if split is not None
    }


def _checked_classes(spec: JobSpec, splits: Mapping[str, Split], source: object) -> tuple[str, ...]:
    """The classes of `search_train`, which all splits must have."""
    try:
        classes = classes_of(splits["search_train"])
    except DataError as error:
        raise SpecError(source, "data.search_train", str(error), "see the message") from error
    if spec.data == PACKAGED_DATA:
        return classes
    for name, split in splits.items():
        try:
            check_classes(split, classes)
        except DataError as error:
            allowed = "it must be a split in COCO format with the classes of search_train"
            raise SpecError(source, f"data.{name}", str(error), allowed) from error
    return classes


def _check_sendable(spec: JobSpec, splits: Mapping[str, Split], source: object) -> None:
    """Splits that the nodes of a cluster are to be sent must be such that they can be."""
    if not spec.resources.send_data or spec.data == PACKAGED_DATA:
        return
    for name, split in splits.items():
        try:
            check_parcel(split)
        except DataError as error:
            allowed = (
                f"resources.send_data sends at most {LARGEST / 1e9:g} GB a split, with images in "
                "its folder; leave it out where all nodes have the data at these paths"
            )
            raise SpecError(source, f"data.{name}", str(error), allowed) from error


def _check_spaces(spec: JobSpec, family: Family, source: object) -> None:
    """A space must be of the kind that the detector's head can feed, alpha fit the space."""
    roles = {"cls": family.cls_space, "bbox": "box"}
    for branch, given in spec.searched.items():
        role = space_role(given.search_space)
        if role != roles[branch]:
            allowed = (
                f"the {branch} branch of this detector ({family.name}) takes {roles[branch]}, "
                "or a space of your own with its inputs"
            )
            raise SpecError(source, f"branches.{branch}.space", given.search_space.name, allowed)
    cls = spec.searched.get("cls")
    if not isinstance(cls, ClsSpec) or roles["cls"] != "multi_cls":
        return
    if "alpha" in cls.model_fields_set:
        allowed = "only sigmoid losses (binary_cls) have it; leave it out"
        raise SpecError(source, "branches.cls.alpha", cls.alpha, allowed)


def _check_parameters(job: Job, config: Any, family: Family, source: object) -> None:
    """The detector must have heads that take a parameterized AP loss."""
    parameters = job.problem.parameters
    if parameters is None:
        return
    if "rpn" in parameters.branches and not family.two_stage:
        allowed = f"this detector ({family.name}) has no region proposal network; leave rpn out"
        raise SpecError(source, "branches.rpn.space", PAP, allowed)
    try:
        apply_loss(config, parameters.definition(parameters.start(), "start"))
    except LossesError as error:
        raise SpecError(source, "branches.cls.space", PAP, str(error)) from error


def _check_handmade(job: Job, config: Any, family: Family, source: object) -> None:
    """The detector's heads must take every hand-made loss that is tuned."""
    handmade = job.problem.handmade
    if handmade is None:
        return
    for branch, space in handmade.branches.items():
        try:
            check_fit(f"branches.{branch}.losses", space.losses, family, branch)
        except Misfit as error:
            raise SpecError(source, error.field, error.value, error.allowed) from error
    for choices in handmade.published():
        try:
            apply_loss(config, handmade.definition(choices, "published"))
        except LossesError as error:
            raise SpecError(source, "branches", choices, str(error)) from error


def _check_calibration(job: Job, config: Any, source: object) -> None:
    """The baseline must have losses of the kind that searched ones can be matched to."""
    if not job.spec.calibrate:
        return
    try:
        ranking = ranks(apply_loss(config, job.baseline))
    except LossesError:
        return  # said of the baseline itself
    if ranking:
        allowed = (
            "the baseline's loss is a ranking, with which expressions cannot be matched; it must "
            "be false"
        )
        raise SpecError(source, "calibrate", True, allowed)


def _assembled(
    job_id: str,
    spec: JobSpec,
    splits: Mapping[str, Split],
    detector: str,
    classes: tuple[str, ...],
) -> Job:
    simulate, proxy = spec.funnel.simulate, spec.funnel.proxy
    problem = problem_of(spec)
    return Job(
        id=job_id,
        spec=spec,
        detector=detector,
        classes=tuple(classes),
        splits=splits,
        problem=problem,
        searcher=make_searcher(spec.searcher, problem),
        stages=Stages(
            population=spec.searcher.population,
            keep=None if simulate is None else simulate.keep,
            seed=spec.seed,
            proxy_seeds=proxy.seeds,
            halving=Halving(proxy.rungs, proxy.reduction, proxy.hopeless, spec.window, proxy.seeds),
            confirm_seeds=confirm_seeds(spec),
        ),
        baseline=baseline_of(spec),
    )
