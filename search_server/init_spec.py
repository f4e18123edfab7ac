"""`lossforge init`: a commented job spec from a user's own detector and data set."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from losses import Family, LossesError, configs_dir, detector_family
from search_server.coco_layout import find_splits
from search_server.errors import SearchError, SpecError
from search_server.executors import local_slots
from search_server.init_searches import Facts, Search, misfit, search_text
from search_server.planning import Plan, plan, time_steps
from search_server.spec import JobSpec, parse_spec
from search_server.spec.data import PACKAGED
from search_server.spec.detector_head import box_weight
from workers import DetectorError, Split, load_detector
from workers.data import check_split, load_coco, read_classes
from workers.detector import parse_detector

DIGITS = "digits"
_FAMILY_WORDS = {
    "faster": "a Faster R-CNN",
    "cascade": "a Cascade R-CNN",
    "mask": "a Mask R-CNN",
    "fcos": "an FCOS",
    "atss": "an ATSS",
    "retinanet": "a RetinaNet",
}
_PURPOSE = {
    Search.cse: "better losses of",
    Search.pap: "a parameterized AP loss of",
    Search.autoloss_zero: "losses of",
    Search.tuning: "the best numbers of hand-made losses of",
}


@dataclass(frozen=True)
class Draft:
    """A spec as text, read back, and what it will take.

    Attributes:
        plan: None where nothing was timed.
    """

    text: str
    spec: JobSpec
    plan: Plan | None


def init(
    detector: str | Path,
    data: str | Path = DIGITS,
    *,
    train: Path | None = None,
    val: Path | None = None,
    images: Path | None = None,
    search: Search = Search.cse,
    timed: bool = True,
    slots: int | None = None,
) -> Draft:
    """Writes a job spec for a detector and a data set, and times ten real steps of it.

    Args:
        detector: path of an mmdet config, or the name of a packaged one (``digits/atss``).
        data: folder in COCO layout, or ``digits``.
        train, val, images: see `find_splits`.
        search: for expressions of CSE-AutoLoss's or AutoLoss-Zero's operators, for the parameters
            of a PAP loss, or for the numbers of hand-made losses.
        timed: train ten steps of each stage with the detector's own losses, for the plan.
        slots: trials at once that the plan reckons with; None: see `local_slots`.

    Raises:
        SpecError: the detector is none that can be searched for, or not by this search.
        LayoutError: the splits could not be found.
        DataError: an annotation file is not usable, or the splits have different classes.
        JobError: the ten steps did not come through.
    """
    where = str(detector) if _is_packaged(detector) else str(Path(detector).absolute())
    config = _detector(where)
    try:
        family = detector_family(config)
    except LossesError as error:
        raise SpecError("init", "detector", where, str(error)) from error
    if (reason := misfit(search, family)) is not None:
        raise SpecError("init", "detector", where, reason)
    splits = None if str(data) == DIGITS else find_splits(Path(data), train, val, images)
    if splits is not None:
        _check_classes(splits)
    text = _text(where, config, family, splits, search)
    spec = parse_spec(text, source="init")
    if not timed:
        return Draft(text, spec, None)
    taken = plan(spec, time_steps(spec, "init"), slots or local_slots(spec.resources))
    return Draft(_plan_comment(taken) + text, spec, taken)


def write(draft: Draft, path: Path) -> None:
    """Writes a draft to a new file.

    Raises:
        SearchError: the file exists, or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(draft.text)
    except FileExistsError:
        raise SearchError(f"{str(path)!a} exists and is left as it is; give another name") from None
    except OSError as error:
        raise SearchError(f"cannot write {str(path)!a}: {error.strerror}") from error


def plan_lines(taken: Plan) -> list[str]:
    """Trials and hours per stage, for people."""
    lines = [
        f"{stage.stage}: {stage.trials} trials of {stage.steps} steps, {_duration(stage.hours)}"
        for stage in taken.stages
    ]
    at_once = f"{taken.slots} at once" if taken.slots > 1 else "one at a time"
    return [*lines, f"together: {taken.trials} trials, {_duration(taken.hours)} with {at_once}"]


def _duration(hours: float) -> str:
    minutes = hours * 60
    return f"{hours:.1f} hours" if hours >= 1.5 else f"{max(1, math.ceil(minutes))} minutes"


def _plan_comment(taken: Plan) -> str:
    return "".join(f"# {line}\n" for line in ["Timed with ten real steps:", *plan_lines(taken)])


def _is_packaged(detector: str | Path) -> bool:
    return isinstance(detector, str) and bool(PACKAGED.fullmatch(detector))


def _detector(where: str) -> Any:
    path = configs_dir() / "detectors" / f"{where}.py" if _is_packaged(where) else Path(where)
    try:
        return parse_detector(load_detector(path))
    except DetectorError as error:
        raise SpecError("init", "detector", where, str(error)) from error


def _check_classes(splits: tuple[Split, Split]) -> None:
    """mmdet drops the boxes of unknown classes without a word, so the splits must agree."""
    classes = read_classes(splits[0].annotations)
    for split in splits:
        check_split(split, classes)


def _text(
    where: str, config: Any, family: Family, splits: tuple[Split, Split] | None, search: Search
) -> str:
    batch = _batch_size(config)
    facts = Facts(
        family=family,
        batch=batch,
        steps=400 if splits is None else _proxy_steps(splits[0], batch),
        box_weight=box_weight(config, family),
        embedded=splits is None,
    )
    name = _name(where) if search is Search.cse else f"{_name(where)}-{search}"
    return f"""\
# A search for {_PURPOSE[search]} {_FAMILY_WORDS[family.name]}.
name: {_scalar(name)}
detector: {_scalar(where)}
{_data_text(splits)}
{search_text(search, facts)}\
resources: {{cpus: 1, gpus: 0, threads: 1, device: auto}}   # of one trial
limits: {{trial_seconds: null, job_hours: null}}
seed: 0
"""


def _data_text(splits: tuple[Split, Split] | None) -> str:
    if splits is None:
        return "data: digits                   # the embedded data set"
    lines = ["data:"]
    for name, split in zip(("search_train", "search_val"), splits, strict=True):
        lines += [f"  {name}:", f"    annotations: {_scalar(split.annotations)}"]
        lines += [f"    images: {_scalar(split.images)}"]
    names = ", ".join(read_classes(splits[0].annotations))
    shown = names if len(names) <= 70 else names[:69] + "…"
    printable = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown)
    return "\n".join([f"# classes: {printable}", *lines])


def _scalar(text: str) -> str:
    """Text as YAML on one line; bare where that is unmistakable."""
    if re.fullmatch(r"[A-Za-z/][A-Za-z0-9_./-]*", text) and yaml.safe_load(text) == text:
        return text
    return yaml.safe_dump(text, default_style='"', width=math.inf).strip()


def _name(where: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", where.lower() if _is_packaged(where) else Path(where).stem)
    return name.strip("-")[:60] or "search"


def _batch_size(config: Mapping[str, Any]) -> int:
    """The user's own batch size where the config says one, else 8."""
    loader = config.get("train_dataloader") or {}
    size = loader.get("batch_size") or (loader.get("batch_sampler") or {}).get("batch_size")
    return size if isinstance(size, int) and 1 <= size <= 4096 else 8


def _proxy_steps(train: Split, batch: int) -> int:
    """Four epochs, between 300 and 5,000 steps: enough to tell losses apart, not to converge."""
    return min(5000, max(300, 4 * len(load_coco(train.annotations)["images"]) // batch))
