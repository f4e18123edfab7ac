"""What a trial gives back: how good the detector is, and how the training went."""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import Any, Literal, get_args

Status = Literal["done", "paused", "diverged", "timeout", "out_of_memory", "failed"]
LOST: tuple[Status, ...] = ("timeout", "out_of_memory", "failed")  # these tell nothing of a loss

_DISTRIBUTIONS = (
    "lossforge",
    "torch",
    "torchvision",
    "mmdet",
    "mmengine",
    "mmcv",
    "mmcv-lite",
    "numpy",
    "pycocotools",
)


@dataclass(frozen=True)
class TrialResult:
    """The outcome of one trial; plain data without a NaN or an infinity in it.

    Attributes:
        status: "done"; "paused" (at the rung that the spec names); "diverged" (a loss, gradient or
            weight stopped being finite); "timeout"; "out_of_memory" (of the GPU or of the
            machine); "failed" (broken config, exception, process lost).
        reason: one line that says why it is not "done"; empty when it is.
        fitness: COCO box AP in [0, 1], in full precision; None unless "done".
        metrics: ap50, ap75, ap_s, ap_m, ap_l in [0, 1]; what the data cannot give is left out.
        curves: "step" and the loss's parts, lists of one length, at most about 100 points, each
            the mean since the point before.
        rungs: COCO box AP in [0, 1] by step, for every rung of the spec that was passed, whatever
            came of the trial afterwards; strings are the steps in JSON.
        seconds: wall clock of "setup", "train", "evaluate" (all evaluations) and "total"; "start"
            as well when a process had to be started for this trial. Of a trial that was paused and
            goes on: of this part alone.
        seed, steps: of the spec.
        versions: of the packages that decide the numbers, and the device.
        log: only for "failed" and "out_of_memory": the last of what the trial printed and where it
            failed, for those who want to know; at most 4,000 characters.
        batch_size: images per step where that was the spec's `smaller_batch`; None: the spec's
            own.
    """

    status: Status
    reason: str
    fitness: float | None
    seed: int
    steps: int
    metrics: dict[str, float] = field(default_factory=dict, hash=False)
    curves: dict[str, list[float]] = field(default_factory=dict, hash=False)
    seconds: dict[str, float] = field(default_factory=dict, hash=False)
    versions: dict[str, str] = field(default_factory=dict, hash=False)
    log: str = ""
    rungs: dict[int, float] = field(default_factory=dict, hash=False)
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise ValueError(f"status {self.status!r}; allowed: {', '.join(get_args(Status))}")
        precisions = [self.fitness] if self.fitness is not None else []
        precisions += self.rungs.values()
        numbers = [*precisions, *self.metrics.values(), *self.seconds.values()]
        numbers += [value for curve in self.curves.values() for value in curve]
        if not all(map(math.isfinite, numbers)):
            raise ValueError("a trial result holds finite numbers only")
        for precision in precisions:
            if not 0.0 <= precision <= 1.0:
                raise ValueError(f"fitness {precision!r}; an AP lies in [0, 1]")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; `from_json` gives an equal result back."""
        return {**asdict(self), "rungs": {str(step): ap for step, ap in self.rungs.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialResult:
        """The result that `to_json` wrote; fields of a later version are ignored."""
        known = {f.name for f in fields(cls)}
        values = {name: value for name, value in data.items() if name in known}
        rungs = {int(step): ap for step, ap in values.get("rungs", {}).items()}
        return cls(**{**values, "rungs": rungs})


@cache
def package_versions() -> Mapping[str, str]:
    """Installed versions of what decides a trial's numbers, and Python's own."""
    found = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def versions_on(device: str) -> dict[str, str]:
    """`package_versions` and the device: what a number of a trial can depend on besides its spec.

    Args:
        device: of a `TrialSpec`; "auto" is the GPU where there is one.
    """
    import torch  # a spec or a result alone does not need it

    on_gpu = device != "cpu" and torch.cuda.is_available()
    return {**package_versions(), "device": torch.cuda.get_device_name() if on_gpu else "cpu"}
