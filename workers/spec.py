"""What a trial is asked to do: one detector, one loss definition, data, seed and budget."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from workers.data.split import Split
from workers.errors import TrialSpecError

DEVICES = ("auto", "cpu", "cuda")
MAX_SEED = 2**32 - 1  # NumPy's legacy generator, which data pipelines draw from, takes no more


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
            retry included; None: no limit. It may interrupt a trial and never steers one.

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

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        for name, low, high in (
            ("seed", 0, MAX_SEED),
            ("steps", 1, None),
            ("batch_size", 1, None),
            ("threads", 1, None),
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

    @property
    def key(self) -> str:
        """SHA-256 (hex) of all that steers the result: not the time limit, not the loss's name."""
        content = self.to_json()
        del content["time_limit"]
        content["definition"] = {k: v for k, v in self.definition.items() if k != "name"}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; `from_json` gives an equal spec back."""
        return {
            **{f.name: getattr(self, f.name) for f in fields(self)},
            "definition": dict(self.definition),
            "train": asdict(self.train),
            "evaluate": asdict(self.evaluate),
            "classes": list(self.classes),
        }

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
        try:
            return cls(**values)
        except TypeError as error:
            raise TrialSpecError("*", sorted(data), f"all required fields ({error})") from error
