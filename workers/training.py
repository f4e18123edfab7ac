"""`train`: a trial as a pure function, on mmengine's Runner, in this process."""

from __future__ import annotations

import itertools
import os
import shutil
import time
import traceback
from functools import lru_cache
from pathlib import Path

from workers.config import build_config  # isort: skip  - before anything of mmdet

import torch
from mmengine.config import Config

from workers.data import Split, load_coco
from workers.data_cache import data_kept
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
from workers.joining import agreed, gathering, join, join_on_cpu, joined, mean_buffers, on_cpu
from workers.out_of_memory import ran_out
from workers.pausing import Resumption, UnusableCheckpoint, find, forget, keep
from workers.ranks import train_together
from workers.result import LOST, Status, TrialResult, versions_on
from workers.spec import TrialSpec
from workers.trial_loop import Paused
from workers.trial_runner import TrialRunner
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


def train(spec: TrialSpec, work_dir: Path | None = None) -> TrialResult:
    """Trains and evaluates what `spec` says.

    The same spec gives the same result bit for bit, on one machine and kind of device, whatever ran
    in this process before, and whether it was paused in between; on a GPU as far as its kernels
    are deterministic. Nothing is printed, no file is left but the one of a pause, the process's
    global state is as before. It is global state all the same: one training at a time, in one
    thread.

    Args:
        spec: what to train; its time limit is `run_trial`'s business.
        work_dir: folder for mmengine's own files, removed at the end; None: one under the home
            folder.

    Raises:
        UnusableCheckpoint: in one of several processes, where all have to start anew.

    Returns:
        The result. An exception in the training is a status with a reason, not an exception; only
        what ends a process (KeyboardInterrupt, SystemExit) passes through.
    """
    if work_dir is None:
        with WorkFolder() as folder:
            return train(spec, folder.path / "trial")
    clock = PhaseClock(time.monotonic())
    try:
        with (
            isolated(spec.threads, spec.device) as log,
            data_kept((spec.train, spec.evaluate)),
        ):
            if spec.processes > 1 and not joined():
                result = train_together(spec, log)
            else:
                result = _train(spec, work_dir, clock, log)
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)
    if result.status != "paused":
        forget(spec)
    return result


def _train(spec: TrialSpec, work_dir: Path, clock: PhaseClock, log: LogTail) -> TrialResult:
    """Goes on from a checkpoint where there is one that can be used, else trains from the start."""
    versions = versions_on(spec.device)
    resumption = find(spec, versions)
    if not agreed(0 if resumption is None else resumption.step):
        raise UnusableCheckpoint("the processes of the training have none of the same step")
    try:
        return _attempt(spec, work_dir, clock, log, versions, resumption)
    except UnusableCheckpoint:
        if joined():  # the others go on with theirs
            raise
        return _attempt(spec, work_dir, clock, log, versions, None)


def _attempt(
    spec: TrialSpec,
    work_dir: Path,
    clock: PhaseClock,
    log: LogTail,
    versions: dict[str, str],
    resumption: Resumption | None,
) -> TrialResult:
    keeper, curves = ScoreKeeper(), CurveRecorder(spec.steps)
    status: Status = "done"
    reason = ""
    clock.enter("setup")
    try:
        _check(spec)
        if resumption is not None:
            with resumption.usable():
                curves.load(resumption.records["curves"])
                keeper.rungs.update(resumption.records["rungs"])
        if spec.warm_start is not None:
            provide_weights(spec)
        config = private_config(build_config(spec), work_dir)
        together = []
        if joined():
            (join_on_cpu if on_cpu(spec.device) else join)(config)
            together = [gathering(work_dir.parent / "gathered"), mean_buffers()]
        runner = TrialRunner.from_cfg(config)
        runner.rungs, runner.pause_after = spec.rungs, spec.pause_after
        runner.keeper, runner.resumption = keeper, resumption
        for hook in (*together, FiniteGuard(), curves, keeper, clock):
            runner.register_hook(hook)
        try:
            runner.train()
        except Paused:
            clock.enter("")
            status = "paused"
            records = {"curves": curves.state(), "rungs": dict(keeper.rungs)}
            lost = keep(spec, runner, records, versions)
            reason = f"paused after step {spec.pause_after}" + (f"; {lost}" if lost else "")
        if status == "done" and FITNESS not in keeper.scores:
            raise _nothing_to_find(spec.evaluate)
    except UnusableCheckpoint:
        raise
    except Diverged as event:
        status, reason = "diverged", str(event)
    except Exception as error:
        status, reason = "out_of_memory" if ran_out(error) else "failed", one_line(error)
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
        versions=versions,
        log=log.text if status in LOST else "",
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
