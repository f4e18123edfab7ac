"""Trains a detector for its own full schedule with a loss of one's choice, and saves it.

A trial of a search is `workers.train`; this is what a user does with what a search has found.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from losses import (
    LossDefinition,
    LossesError,
    apply_loss,
)
from losses.compile_config import compile_expressions
from search_server.coco_layout import find_splits
from search_server.config_options import change_config
from search_server.errors import JobError
from search_server.loss_choice import detector_path
from search_server.named_data import check_named_data
from workers import DetectorError, Split, TrialSpec, WorkersError, build_config, load_detector
from workers.config import put_bfloat16
from workers.data import DataError, check_split, digits, load_coco, read_classes
from workers.detector import one_line, parse_detector
from workers.hooks import Diverged, FiniteGuard, ScoreKeeper
from workers.schedule import scale_schedule

Say = Callable[[str], None]


@dataclass(frozen=True)
class Training:
    """What to train.

    Attributes:
        detector: path of an mmdet config, or the name of a packaged one.
        definition: the loss that goes in.
        data: `digits`, a folder in COCO layout, or None for the config's own data sets (the digits
            for `digits/...`).
        steps: optimiser steps; None for the config's own schedule.
        batch_size: images a step and process; None for the config's own. Only with `data`.
        seed: None leaves it to the config.
        options: changes of the config as ``key=value``, after all others; see `change_config`.
        processes: how many train together, at least 1.
        cpu: whether they train on the CPU whatever else there is.
        precision: of the layers, "float32" or "bfloat16"; see `workers.arithmetic`.
        compile_loss: whether torch.compile compiles the expressions of the loss.
    """

    detector: str
    definition: LossDefinition
    data: str | None = None
    steps: int | None = None
    batch_size: int | None = None
    seed: int | None = None
    options: tuple[str, ...] = ()
    processes: int = 1
    cpu: bool = False
    precision: str = "float32"
    compile_loss: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; `from_json` gives an equal training back."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**values, "definition": self.definition.to_json(), "options": list(self.options)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Training:
        """The training that `to_json` gave."""
        definition = LossDefinition.from_json(data["definition"])
        return cls(**{**data, "definition": definition, "options": tuple(data["options"])})


@dataclass(frozen=True)
class Trained:
    """How a training ended: APs by mmdet's names, in [0, 1], and where the files are."""

    fitness: float | None
    metrics: dict[str, float]
    seconds: float
    work_dir: Path
    checkpoint: Path | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; `from_json` gives an equal record back."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        saved = None if self.checkpoint is None else str(self.checkpoint)
        return {**values, "work_dir": str(self.work_dir), "checkpoint": saved}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Trained:
        """The record that `to_json` gave."""
        saved = None if data["checkpoint"] is None else Path(data["checkpoint"])
        return cls(**{**data, "work_dir": Path(data["work_dir"]), "checkpoint": saved})


def full_config(training: Training) -> Config:
    """The config that is trained.

    Raises:
        JobError, LossesError, WorkersError, DataError: detector, loss or data cannot be used.
    """
    config = _config(training)
    if training.precision == "bfloat16":
        put_bfloat16(config)
    if training.compile_loss and not compile_expressions(config.model):
        raise JobError("--compile-loss: this loss has no expression, which alone can be compiled")
    change_config(config, training.options)
    check_named_data(config)
    return config


def _config(training: Training) -> Config:
    path = detector_path(training.detector)
    if training.data is not None or _comes_with_digits(training.detector):
        return _config_on(training, path)
    config = apply_loss(parse_detector(load_detector(path)), training.definition)
    if training.batch_size is not None:
        raise JobError("--batch-size goes with --data; without, the config's own loader is used")
    if training.seed is not None:
        config.randomness = {**(config.get("randomness") or {}), "seed": training.seed}
    if training.steps is not None:
        _cut(config, training.steps)
    return config


def _comes_with_digits(detector: str) -> bool:
    """Whether it is a packaged detector for the digits; others name the data that they train on."""
    return detector.startswith("digits/") and not Path(detector).is_file()


def _config_on(training: Training, path: Path) -> Config:
    """The config with other data: the one a trial would train, and checkpoints."""
    text = load_detector(path)
    own = parse_detector(text)
    train, evaluate = _splits(training.data or "digits")
    classes = read_classes(train.annotations)
    for split in (train, evaluate):
        check_split(split, classes)
    batch = training.batch_size or (own.get("train_dataloader") or {}).get("batch_size") or 8
    spec = TrialSpec(
        detector=text,
        definition=training.definition.to_json(),
        train=train,
        evaluate=evaluate,
        seed=training.seed or 0,
        steps=training.steps or _own_steps(own, train, batch * training.processes),
        batch_size=batch,
        classes=classes,
        device="cpu" if training.cpu else "auto",
    )
    config = build_config(spec)
    hooks = dict(config.get("default_hooks") or {})
    save = {"type": "CheckpointHook", "by_epoch": False, "interval": spec.steps}
    config.default_hooks = {**hooks, "checkpoint": {**save, "max_keep_ckpts": 1}}
    config.visualizer = {"type": "Visualizer", "vis_backends": [{"type": "LocalVisBackend"}]}
    return config


def _splits(data: str) -> tuple[Split, Split]:
    if data == "digits":
        splits = digits().splits
        return splits["search_train"], splits["search_val"]
    return find_splits(Path(data))


def _own_steps(config: Config, train: Split, batch: int) -> int:
    """How many steps the config's own schedule is on this data."""
    schedule = config.get("train_cfg") or {}
    if schedule.get("max_iters"):
        return int(schedule["max_iters"])
    if schedule.get("max_epochs"):
        images = len(load_coco(train.annotations)["images"])
        return int(schedule["max_epochs"]) * math.ceil(images / batch)
    raise JobError("the config's train_cfg has no max_iters and no max_epochs; give --steps")


def _cut(config: Config, steps: int) -> None:
    """The config's own training, brought to a number of steps."""
    own = config.get("train_cfg") or {}
    config.param_scheduler = scale_schedule(config.get("param_scheduler"), own, steps)
    config.train_cfg = {"type": "IterBasedTrainLoop", "max_iters": steps, "val_interval": steps}
    hooks = dict(config.get("default_hooks") or {})
    save = {"type": "CheckpointHook", "by_epoch": False, "interval": steps, "max_keep_ckpts": 1}
    config.default_hooks = {**hooks, "checkpoint": save}
    config.log_processor = {"type": "LogProcessor", "by_epoch": False}


def train_fully(
    training: Training,
    work_dir: Path,
    say: Say,
    adapt: Callable[[Config], None] | None = None,
    hooks: Sequence[Hook] = (),
) -> Trained:
    """Trains, evaluates and saves, in this process.

    Args:
        say: takes a line of progress now and then.
        adapt: changes the config as its last change, in place.
        hooks: are registered beside our own.

    Raises:
        JobError: the training broke off; the message says why.
    """
    config = full_config(training)
    config.work_dir = str(work_dir.absolute())
    config.experiment_name = f"train-{time.time_ns()}"
    config.log_level = "ERROR"  # mmengine would list every initialised tensor
    if adapt is not None:
        adapt(config)
    keeper, began = ScoreKeeper(), time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # mmdet's about itself: nothing a user can mend
            warnings.filterwarnings("default", "the loss runs uncompiled")
            runner = Runner.from_cfg(config)
            for hook in (FiniteGuard(), keeper, _Teller(say), *hooks):
                runner.register_hook(hook)
            runner.train()
    except Diverged as event:
        raise JobError(f"the training diverged: {event}") from event
    except (LossesError, WorkersError, DataError, DetectorError):
        raise
    except Exception as error:
        raise JobError(f"the training broke off: {one_line(error)}") from error
    finally:
        logging.shutdown()
    saved = runner.message_hub.get_info("last_ckpt", None)
    return Trained(
        fitness=keeper.scores.get("coco/bbox_mAP"),
        metrics=keeper.scores,
        seconds=time.monotonic() - began,
        work_dir=work_dir,
        checkpoint=Path(saved) if saved else None,
    )


class _Teller(Hook):
    """Says now and then how far a training is."""

    priority = "LOW"
    EVERY = 10.0  # seconds

    def __init__(self, say: Say) -> None:
        self._say = say
        self._next = 0.0
        self._began = 0.0

    def before_train(self, runner: Any) -> None:
        """Starts the clock."""
        self._began = time.monotonic()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """A line at the first step, the last one, and every ten seconds."""
        now, done, steps = time.monotonic(), runner.iter + 1, runner.max_iters
        if now < self._next and done < steps:
            return
        self._next = now + self.EVERY
        losses = ", ".join(
            f"{name} {float(value.detach()):.3f}"
            for name, value in outputs.items()
            if "loss" in name
        )
        left = (now - self._began) / done * (steps - done)
        self._say(f"step {done}/{steps}: {losses}; {left / 60:.1f} min left")

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """A line per evaluation."""
        ap = (metrics or {}).get("coco/bbox_mAP")
        if ap is not None:
            self._say(f"evaluation at step {runner.iter}: AP {100 * ap:.2f}")
