"""What watches a trial: curves, divergence and the clock. Nothing here steers the training."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.hooks import Hook

FITNESS = "coco/bbox_mAP"
MAX_POINTS = 100


class Diverged(Exception):  # noqa: N818 - an event
    """A loss, a gradient or a weight is no longer finite; the message says which and when."""


class CurveRecorder(Hook):
    """Records the losses of a training, averaged between points.

    Args:
        steps: of the whole training; there are at most `MAX_POINTS` points.
    """

    priority = "NORMAL"

    def __init__(self, steps: int) -> None:
        self._every = -(-steps // MAX_POINTS)
        self._steps = steps
        self._window: list[dict[str, float]] = []
        self._points: list[dict[str, float]] = []

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Takes the losses of one step."""
        losses = {name: value.item() for name, value in outputs.items() if "loss" in name}
        self._window.append(losses)
        step = batch_idx + 1
        if step % self._every == 0 or step == self._steps:
            self._close_window(step)

    def state(self) -> dict[str, Any]:
        """What `load` needs to record on: plain data."""
        return {"window": self._window, "points": self._points}

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from where another recorder of as many steps was."""
        self._window, self._points = list(state["window"]), list(state["points"])

    def _close_window(self, step: int) -> None:
        names = set.intersection(*(set(losses) for losses in self._window))
        number = len(self._window)
        point = {name: sum(part[name] for part in self._window) / number for name in names}
        self._points.append({"step": float(step), **point})
        self._window = []

    @property
    def curves(self) -> dict[str, list[float]]:
        """ "step" and every loss that is part of all points, lists of one length."""
        if not self._points:
            return {}
        everywhere = set.intersection(*(set(point) for point in self._points))
        names = ["step", *sorted(everywhere - {"step"})]
        return {name: [point[name] for point in self._points] for name in names}


class FiniteGuard(Hook):
    """Ends the training at the first loss, gradient or weight that is not finite.

    Losses are looked at where the model returns them, before the backward pass; gradients as the
    optimiser takes them: clipped, and unscaled in mixed precision, whose scaler is right to meet
    infinities and skips these steps itself; weights before every evaluation.

    Raises:
        Diverged: out of the training loop.
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._step = 0

    def before_train(self, runner: Any) -> None:
        """Attaches to the model and its optimisers."""
        runner.model.register_forward_hook(self._look_at_losses)
        wrapper = runner.optim_wrapper
        single = hasattr(wrapper, "optimizer")
        for part in [wrapper] if single else [part for _, part in wrapper.items()]:
            part.optimizer.register_step_pre_hook(self._look_at_gradients)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Counts, for the message."""
        self._step = batch_idx + 1

    def before_val(self, runner: Any) -> None:
        """Looks at the weights that are about to be evaluated."""
        for name, value in runner.model.state_dict().items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise Diverged(f"{name} is not finite after step {self._step}")

    def _look_at_losses(self, model: Any, inputs: Any, output: Any) -> None:
        if not model.training or not isinstance(output, Mapping):
            return
        for name, value in output.items():
            if "loss" not in name:
                continue
            for part in value if isinstance(value, list | tuple) else [value]:
                if not bool(torch.isfinite(part.detach()).all()):
                    raise Diverged(f"{name} is not finite at step {self._step}")

    def _look_at_gradients(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        gradients = [
            parameter.grad.detach()
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        gradients = [grad for grad in gradients if grad.numel()]
        if not (_finite_norms(gradients, 2.0) or _finite_norms(gradients, float("inf"))):
            raise Diverged(f"a gradient is not finite at step {self._step}")


def _finite_norms(gradients: list[torch.Tensor], order: float) -> bool:
    """Whether all norms are finite.

    The infinity norm is finite exactly when all of a tensor is. The Euclidean norm is too, unless
    its squares overflow, and takes a seventh of the time.
    """
    norms = list(torch._foreach_norm(gradients, order)) if gradients else []
    return not norms or bool(torch.isfinite(torch.stack(norms)).all())


class ScoreKeeper(Hook):
    """Keeps what the evaluations found.

    Attributes:
        scores: of the last evaluation that was not at a rung: names, as ``coco/bbox_mAP``, to
            values; empty before it. Without what the data has nothing for, such as objects of a
            size, where COCO says -1.
        rungs: AP by step, of the evaluations at rungs.
    """

    priority = "NORMAL"

    def __init__(self) -> None:
        self.scores: dict[str, float] = {}
        self.rungs: dict[int, float] = {}

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Takes the metrics."""
        self.scores = {
            name: float(value)
            for name, value in (metrics or {}).items()
            if not (name.startswith("coco/") and value < 0)
        }

    def keep_rung(self, step: int) -> None:
        """Files the evaluation that has just ended as the one of a rung.

        Raises:
            KeyError: it found no AP.
        """
        self.rungs[step] = self.scores[FITNESS]
        self.scores = {}


class PhaseClock(Hook):
    """Measures the phases of a trial.

    Args:
        began: when it began, on the clock of `time.monotonic`.
    """

    priority = "LOWEST"

    def __init__(self, began: float) -> None:
        self._began = self._since = began
        self._phase = "setup"
        self._spent = {"setup": 0.0, "train": 0.0, "evaluate": 0.0, "": 0.0}

    def before_train(self, runner: Any) -> None:
        """The setup has ended."""
        self.enter("train")

    def before_val(self, runner: Any) -> None:
        """The training has ended, or waits at a rung."""
        self.enter("evaluate")

    def after_val(self, runner: Any) -> None:
        """An evaluation has ended."""
        self.enter("train")

    def after_train(self, runner: Any) -> None:
        """What comes now belongs to no phase."""
        self.enter("")

    def enter(self, phase: str) -> None:
        """Now begins "setup", "train", "evaluate" or, as "", what belongs to no phase."""
        now = time.monotonic()
        self._spent[self._phase] += now - self._since
        self._phase, self._since = phase, now

    def seconds(self) -> dict[str, float]:
        """ "setup", "train", "evaluate" and "total" up to now; phases not reached are 0."""
        self.enter(self._phase)
        phases = {name: spent for name, spent in self._spent.items() if name}
        return {**phases, "total": self._since - self._began}
