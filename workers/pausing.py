"""Pauses: what a training is at a rung, kept in a file, so that another process can go on.

A file holds all that steers what comes: the model's tensors (buffers that its state_dict leaves
out and gradients that are being accumulated too), optimiser, schedulers, hooks that take part in
checkpoints (EMA), the generators, the place in the data, and the records so far. A training that
goes on from it gives what one that never paused gives, bit for bit on one machine and one kind of
device, as far as its kernels are deterministic. (`TrialLoop` says how the data are gone on with.)

A file is a cache. Torn, of another trial, of other package versions, or of a training whose data
turn out to come in another order: it is not used, and the trial trains from the start, to the
same result. A detector that remembers things outside its tensors (`workers.memory`) gets no file.

Files are read with ``weights_only``: plain data and tensors, no code.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from workers.detector import one_line
from workers.generators import generator_states, set_generator_states
from workers.joining import rank_here
from workers.memory import differences, memory_of
from workers.spec import TrialSpec

_FORMAT = 1


class UnusableCheckpoint(Exception):  # noqa: N818 - an event
    """A checkpoint that looked usable is not."""


@dataclass(frozen=True)
class Resumption:
    """A checkpoint that was read, and what to do with it.

    Attributes:
        content: what the file holds.
        step: optimiser steps done, at least 1.
        records: what `keep` was given: the curves and scores so far.
    """

    content: dict[str, Any]

    @property
    def step(self) -> int:
        step: int = self.content["step"]
        return step

    @property
    def records(self) -> Mapping[str, Any]:
        records: Mapping[str, Any] = self.content["records"]
        return records

    @contextlib.contextmanager
    def usable(self) -> Iterator[None]:
        """Turns what goes wrong inside into `UnusableCheckpoint`."""
        try:
            yield
        except Exception as error:
            raise UnusableCheckpoint(str(error)) from error

    def restore(self, runner: Any) -> None:
        """Gives a runner that is built, and has not trained, the tensors of the one that paused.

        Hooks get mmengine's ``after_load_checkpoint``; `runner` has to say that it resumes.

        Raises:
            UnusableCheckpoint: they do not fit.
        """
        content = self.content
        with self.usable(), torch.no_grad():
            runner.call_hook("after_load_checkpoint", checkpoint=content)
            runner.model.load_state_dict(content["state_dict"])
            for name, value in _other_buffers(runner.model).items():
                value.copy_(content["buffers"][name])
            for name, parameter in runner.model.named_parameters():
                if name in content["gradients"]:
                    gradient = content["gradients"][name]
                    parameter.grad = gradient.to(parameter.device)
            runner.optim_wrapper.load_state_dict(content["optimizer"])
            for name, schedulers in _schedulers(runner).items():
                states = content["schedulers"][name]
                for scheduler, state in zip(schedulers, states, strict=True):
                    scheduler.load_state_dict(state)

    def set_generators(self, batches: str) -> None:
        """Sets the generators, the last thing before the next step.

        Args:
            batches: `BatchLog.digest` of the steps before.

        Raises:
            UnusableCheckpoint: these are not the batches of the training that paused.
        """
        with self.usable():
            if batches != self.content["batches"]:
                raise ValueError("the data come in another order")
            set_generator_states(self.content["generators"])


def keep(
    spec: TrialSpec, runner: Any, records: Mapping[str, Any], versions: Mapping[str, str]
) -> str:
    """Keeps a training that has just paused, where its spec says.

    Args:
        runner: whose `TrialLoop` has paused.
        records: plain data; comes back in `Resumption.records`.
        versions: of packages and device; a file of others is not used.

    Returns:
        Why nothing was kept, in one line; empty when something was.
    """
    path = _file(spec)
    if path is None:
        return "no folder for checkpoints was given"
    changed = differences(runner.train_loop.memory, memory_of(runner))
    if changed:
        return f"the detector remembers what no checkpoint holds: {changed[0]}"
    try:
        _write(path, _content(spec, runner, records, versions))
    except OSError as error:
        return f"{path} cannot be written: {error.strerror or error}"
    except Exception as error:  # of a hook of the user's, or what it adds cannot be pickled
        return f"nothing could be kept: {one_line(error)}"
    return ""


def _content(
    spec: TrialSpec, runner: Any, records: Mapping[str, Any], versions: Mapping[str, str]
) -> dict[str, Any]:
    loop = runner.train_loop
    content = {
        "format": _FORMAT,
        "key": spec.key,
        "versions": dict(versions),
        "step": loop.iter,
        "records": dict(records),
        "batches": loop.batches.digest,
        "generators": generator_states(),
        "state_dict": runner.model.state_dict(),
        "buffers": _other_buffers(runner.model),
        "gradients": {
            name: parameter.grad
            for name, parameter in runner.model.named_parameters()
            if parameter.grad is not None
        },
        "optimizer": runner.optim_wrapper.state_dict(),
        "schedulers": {
            name: [_plain_state(scheduler) for scheduler in schedulers]
            for name, schedulers in _schedulers(runner).items()
        },
    }
    runner.call_hook("before_save_checkpoint", checkpoint=content)
    return content


def find(spec: TrialSpec, versions: Mapping[str, str]) -> Resumption | None:
    """What `keep` left of this trial, not beyond the rung where it is to pause; None: nothing."""
    path = _file(spec)
    if path is None:
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # there is none, or whatever a torn or foreign file makes torch raise
        return None
    if not isinstance(content, dict):
        return None
    wanted = {"format": _FORMAT, "key": spec.key, "versions": dict(versions)}
    step = content.get("step")
    last = spec.steps - 1 if spec.pause_after is None else spec.pause_after
    fits = all(content.get(name) == value for name, value in wanted.items())
    if not fits or step not in spec.rungs or step > last:
        return None
    return Resumption(content)


def forget(spec: TrialSpec) -> None:
    """Removes what `keep` left of a trial, and what was being written when a process was killed."""
    path = spec.checkpoint_file
    if path is not None:
        with contextlib.suppress(OSError):
            for file in path.parent.glob(f"{path.stem}.*"):
                file.unlink(missing_ok=True)


def _file(spec: TrialSpec) -> Path | None:
    """Each process of a training has a file of its own: generators and order of its data."""
    path, rank = spec.checkpoint_file, rank_here()
    return path if path is None or not rank else path.with_suffix(f".rank{rank}{path.suffix}")


def _write(path: Path, content: dict[str, Any]) -> None:
    """Writes a file that is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f"{path.stem}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            try:
                torch.save(content, file)
            except RuntimeError as error:  # torch's words for a disk that is full
                raise OSError(str(error)) from error
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _other_buffers(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The buffers that the state_dict leaves out."""
    state = model.state_dict()
    return {name: value for name, value in model.named_buffers() if name not in state}


def _schedulers(runner: Any) -> dict[str, list[Any]]:
    """The schedulers by the name of their optimiser; "" where there is one alone."""
    found = runner.param_schedulers
    named = found if isinstance(found, dict) else {"": found}
    return {name: list(schedulers or []) for name, schedulers in named.items()}


def _plain_state(scheduler: Any) -> dict[str, Any]:
    """A scheduler's state without the functions that its class gives it anew."""
    return {name: value for name, value in scheduler.state_dict().items() if not callable(value)}
