"""`train`: a trial as a pure function, on mmengine's Runner, in this process."""

from __future__ import annotations

import itertools
import os
import shutil
import time
import traceback
from functools import lru_cache
from pathlib import Path
from typing import Any

from workers.config import build_config  # isort: skip  - before anything of mmdet

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from workers.data import Split, load_coco
from workers.detector import one_line
from workers.errors import WorkersError
from workers.folders import WorkFolder
from workers.hooks import (
    FITNESS,
    CurveRecorder,
    Diverged,
    FiniteGuard,
    PhaseClock,
    ScoreKeeper,
)
from workers.isolation import LogTail, isolated
from workers.result import Status, TrialResult, package_versions
from workers.spec import TrialSpec
from workers.trial_loop import TrialLoop
from workers.warm_start import provide_weights

_COUNTER = itertools.count()
_METRICS = {
    name: f"{FITNESS}_{suffix}"
    for name, suffix in (
        ("ap50", "50"),
        ("ap75", "75"),
        ("ap_s", "s"),
        ("ap_m", "m"),
        ("ap_l", "l"),
    )
}


class TrialRunner(Runner):
    """mmengine's Runner without its paper work, and with a loop that measures at rungs.

    Collecting the environment and formatting the config take a second or more per run, and nobody
    reads what they write; neither touches the training.

    Attributes:
        rungs, keeper: of `TrialLoop`.
    """

    rungs: tuple[int, ...]
    keeper: ScoreKeeper

    def build_train_loop(self, loop: Any) -> TrialLoop:
        """The loop that the config of a trial asks for (`build_config`), as a `TrialLoop`."""
        settings = {name: value for name, value in loop.items() if name != "type"}
        own = {"runner": self, "dataloader": self._train_dataloader}
        return TrialLoop(rungs=self.rungs, keeper=self.keeper, **own, **settings)

    def _log_env(self, env_cfg: dict[str, Any]) -> None:
        pass

    def dump_config(self) -> None:
        """Writes nothing."""


def train(spec: TrialSpec, work_dir: Path | None = None) -> TrialResult:
    """Trains and evaluates what `spec` says.

    The same spec gives the same result bit for bit, on one machine and kind of device, whatever ran
    in this process before; on a GPU as far as its kernels are deterministic. Nothing is printed,
    no file is left, the process's global state is as before. It is global state all the same:
    one training at a time, in one thread.

    Args:
        spec: what to train; its time limit is `run_trial`'s business.
        work_dir: folder for mmengine's own files, removed at the end; None: one under the home
            folder.

    Returns:
        The result. An exception in the training is status "failed" with a reason, not an
        exception; only what ends a process (KeyboardInterrupt, SystemExit) passes through.
    """
    if work_dir is None:
        with WorkFolder() as folder:
            return train(spec, folder.path / "trial")
    clock, curves = PhaseClock(time.monotonic()), CurveRecorder(spec.steps)
    try:
        with isolated(spec.threads, spec.device) as log:
            return _train(spec, work_dir, clock, curves, log)
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)


def _train(
    spec: TrialSpec, work_dir: Path, clock: PhaseClock, curves: CurveRecorder, log: LogTail
) -> TrialResult:
    keeper = ScoreKeeper()
    status: Status = "done"
    reason = ""
    try:
        _check(spec)
        if spec.warm_start is not None:
            provide_weights(spec)
        runner = TrialRunner.from_cfg(private_config(build_config(spec), work_dir))
        runner.rungs, runner.keeper = spec.rungs, keeper
        for hook in (FiniteGuard(), curves, keeper, clock):
            runner.register_hook(hook)
        runner.train()
        if FITNESS not in keeper.scores:
            raise _nothing_to_find(spec.evaluate)
    except Diverged as event:
        status, reason = "diverged", str(event)
    except Exception as error:
        status, reason = "failed", one_line(error)
        traceback.print_exception(error, file=log)
    scores = keeper.scores if status == "done" else {}
    return TrialResult(
        status=status,
        reason=reason,
        fitness=scores.get(FITNESS),
        metrics={name: scores[key] for name, key in _METRICS.items() if key in scores},
        curves=curves.curves,
        seconds=clock.seconds(),
        seed=spec.seed,
        steps=spec.steps,
        versions={**package_versions(), "device": _device_name(spec.device)},
        log=log.text if status == "failed" else "",
        rungs=keeper.rungs,
    )


def _check(spec: TrialSpec) -> None:
    """What mmdet would not notice, or say in words of its own."""
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise WorkersError("device is 'cuda', but torch finds no GPU")
    for split in (spec.train, spec.evaluate):
        path = Path(split.annotations)
        modified = path.stat().st_mtime_ns if path.exists() else 0
        found, boxes = _content(path, modified)
        if found != spec.classes:
            raise WorkersError(
                f"{path} has the classes {', '.join(found)}; the trial expects"
                f" {', '.join(spec.classes)}, in this order"
            )
        if split is spec.evaluate and not boxes:
            raise _nothing_to_find(split)


@lru_cache(maxsize=8)
def _content(path: Path, modified: int) -> tuple[tuple[str, ...], int]:
    """The classes of an annotation file, and how many boxes there are to find."""
    content = load_coco(path)
    classes = tuple(category["name"] for category in content["categories"])
    return classes, sum(not each.get("iscrowd") for each in content["annotations"])


def _nothing_to_find(split: Split) -> WorkersError:
    return WorkersError(f"the split {split.annotations} has no boxes to find, so there is no AP")


def private_config(config: Config, work_dir: Path) -> Config:
    """With a name and a folder of its own, and quiet; none of it reaches a number."""
    config.experiment_name = f"trial-{os.getpid()}-{next(_COUNTER)}"
    config.work_dir = str(work_dir)
    config.log_level = "WARNING"
    return config


def _device_name(device: str) -> str:
    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "cpu"
