"""What a trial is asked to do: one detector, one loss definition, data, seed and budget."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from workers.data.split import Split
from workers.errors import TrialSpecError
from workers.warm_start import WarmStart

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("float32", "bfloat16")
MAX_SEED = 2**32 - 1  # NumPy's legacy generator, which data pipelines draw from, takes no more
_LATER = (
    "precision",
    "rungs",
    "pause_after",
    "checkpoint",
    "warm_start",
    "smaller_batch",
    "processes",
)  # written only when they say something
_STEERS_NOTHING = ("time_limit", "pause_after", "checkpoint", "smaller_batch")


@dataclass(frozen=True)
class TrialSpec:
    """Everything that steers one trial; plain data that travels between machines.

    Attributes:
        detector: text of an mmdet config, self-contained (see `load_detector`).
        definition: a loss definition as JSON (`losses.LossDefinition.to_json`).
        train: what is trained on.
        evaluate: what the fitness is measured on.
        seed: of initialisation, batches and augmentation; 0 to 2**32 - 1.
        steps: optimiser steps, at least 1.
        batch_size: images per step, at least 1.
        classes: category names, in the order of the annotation file.
        device: "auto" (CUDA where there is one), "cpu" or "cuda".
        threads: CPU threads of torch, at least 1.
        time_limit: seconds of wall clock for the whole trial, the start of its process and a
            retry included; longer where a warm start has to be trained first, see
            `warm_start.time_limit`; None: no limit. It may interrupt a trial and never steers one.
            A trial that was paused has it anew when it goes on.
        precision: "float32", or "bfloat16" for the layers (`Bfloat16Layers`).
        rungs: steps, ascending, each from 1 to below `steps`, after which the AP on `evaluate` is
            measured too. It does not steer the training.
        pause_after: the one of `rungs` at which to stop for now; None: train to the end.
        checkpoint: absolute path of the folder where a pause keeps the training's state and a
            continuation finds it (see `workers.pausing`); None: nothing is kept. A cache, never a
            source of truth: without a usable file a trial trains from the start, to the same
            result.
        warm_start: the training whose weights this one starts from; None: from scratch, or from
            what the detector's config names.
        smaller_batch: images per step to try again with, once, from the first step on, where
            `batch_size` does not fit into memory; 1 to `batch_size` - 1. None: such a trial is
            "out_of_memory". A trial that needed it says so (`TrialResult.batch_size`), and is not
            the one that `key` names.
        processes: that train it together on one machine, each a part of every batch, on a GPU of
            its own or on the CPU; at least 1, and a divisor of the batch sizes.

    Raises:
        TrialSpecError: when a value is out of its range.
    """

    detector: str
    definition: Mapping[str, Any] = field(hash=False)
    train: Split
    evaluate: Split
    seed: int
    steps: int
    batch_size: int
    classes: tuple[str, ...]
    device: str = "auto"
    threads: int = 1
    time_limit: float | None = None
    precision: str = "float32"
    rungs: tuple[int, ...] = ()
    pause_after: int | None = None
    checkpoint: str | None = None
    warm_start: WarmStart | None = field(default=None, hash=False)
    smaller_batch: int | None = None
    processes: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        for name, low, high in (
            ("seed", 0, MAX_SEED),
            ("steps", 1, None),
            ("batch_size", 1, None),
            ("threads", 1, None),
            ("processes", 1, None),
        ):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or value < low or (high is not None and value > high):
                allowed = f"a whole number from {low}" + (f" to {high}" if high else "")
                raise TrialSpecError(name, value, allowed)
        if self.device not in DEVICES:
            raise TrialSpecError("device", self.device, ", ".join(DEVICES))
        if not self.classes or not all(isinstance(name, str) for name in self.classes):
            raise TrialSpecError("classes", self.classes, "at least one class name")
        limit = self.time_limit
        if limit is not None and not (
            isinstance(limit, int | float) and math.isfinite(limit) and limit > 0
        ):
            raise TrialSpecError("time_limit", limit, "seconds above 0, or none")
        if self.precision not in PRECISIONS:
            raise TrialSpecError("precision", self.precision, ", ".join(PRECISIONS))
        smaller = self.smaller_batch
        if smaller is not None and not (type(smaller) is int and 1 <= smaller < self.batch_size):
            allowed = f"a whole number from 1 to {self.batch_size - 1} (batch_size - 1), or none"
            raise TrialSpecError("smaller_batch", smaller, allowed)
        for batch in (self.batch_size, smaller or 0):
            if batch % self.processes:
                raise TrialSpecError(
                    "processes", self.processes, f"a divisor of the batch, {batch}"
                )
        self._check_pauses()

    def _check_pauses(self) -> None:
        rungs = self.rungs
        listed = isinstance(rungs, list | tuple)
        whole = listed and all(isinstance(r, int) and not isinstance(r, bool) for r in rungs)
        if not whole or list(rungs) != sorted(r for r in set(rungs) if 0 < r < self.steps):
            allowed = f"whole numbers from 1 to {self.steps - 1} (steps - 1), ascending"
            raise TrialSpecError("rungs", rungs, allowed)
        object.__setattr__(self, "rungs", tuple(rungs))
        if self.pause_after is not None and self.pause_after not in self.rungs:
            allowed = (
                f"one of the rungs ({', '.join(map(str, rungs)) or 'there are none'}), or none"
            )
            raise TrialSpecError("pause_after", self.pause_after, allowed)
        folder = self.checkpoint
        if folder is not None and not (isinstance(folder, str) and Path(folder).is_absolute()):
            raise TrialSpecError("checkpoint", folder, "absolute path of a folder, or none")

    @property
    def checkpoint_file(self) -> Path | None:
        """Where the state of this trial is kept at a pause; None: nowhere."""
        return None if self.checkpoint is None else Path(self.checkpoint) / f"{self.key}.pth"

    @property
    def key(self) -> str:
        """SHA-256 (hex) of what steers the result: no limit, pause or folder, no loss's name."""
        content = self.to_json()
        for name in _STEERS_NOTHING:
            content.pop(name, None)
        content["definition"] = {k: v for k, v in self.definition.items() if k != "name"}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; `from_json` gives an equal spec back.

        A field that is younger than the first specs is left out at its default, so that the keys
        of those stay what they are.
        """
        content = {
            **{f.name: getattr(self, f.name) for f in fields(self)},
            "definition": dict(self.definition),
            "train": asdict(self.train),
            "evaluate": asdict(self.evaluate),
            "classes": list(self.classes),
            "rungs": list(self.rungs),
            "warm_start": None if self.warm_start is None else self.warm_start.to_json(),
        }
        for name, default in _DEFAULTS.items():
            if getattr(self, name) == default:
                del content[name]
        return content

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialSpec:
        """The spec that `to_json` wrote.

        Raises:
            TrialSpecError: a field is unknown, missing or out of its range.
        """
        known = {f.name for f in fields(cls)}
        for name in data:
            if name not in known:
                raise TrialSpecError(name, data[name], ", ".join(sorted(known)))
        values = dict(data)
        for name in ("train", "evaluate"):
            split = values.get(name)
            if not isinstance(split, Mapping) or set(split) != {"annotations", "images"}:
                raise TrialSpecError(name, split, "annotations and images")
            values[name] = Split(**split)
        if values.get("warm_start") is not None:
            values["warm_start"] = WarmStart.from_json(values["warm_start"])
        try:
            return cls(**values)
        except TypeError as error:
            raise TrialSpecError("*", sorted(data), f"all required fields ({error})") from error


_DEFAULTS = {f.name: f.default for f in fields(TrialSpec) if f.name in _LATER}
