"""Warm starts: trials that begin with weights which one short training of the baseline left.

Trained from scratch for a few hundred steps, a detector's AP depends more on its initialisation
than on its loss. From shared weights of the backbone the seeds lie closer together and the losses
as far apart as before, so the same time tells more (docs/noise.md has the figures).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from workers.data.digest import content_digest
from workers.errors import TrialSpecError, WorkersError
from workers.home import lossforge_home
from workers.result import versions_on

if TYPE_CHECKING:
    from workers.spec import TrialSpec

PARTS = ("backbone", "neck", "heads")
_LARGEST_SEED = 2**32 - 1  # as `workers.spec.MAX_SEED`, which imports this module


@dataclass(frozen=True)
class WarmStart:
    """The training whose weights trials start from.

    Attributes:
        definition: its loss, a loss definition as JSON.
        seed: its seed; 0 to 2**32 - 1.
        steps: its length, at least 1.
        parts: what of its weights is taken: backbone, neck, heads (all that is left). The rest is
            initialised by the trial's own seed.

    Raises:
        TrialSpecError: a value is out of its range.
    """

    definition: Mapping[str, Any]
    seed: int
    steps: int
    parts: tuple[str, ...] = ("backbone",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        for name, low, high in (("seed", 0, _LARGEST_SEED), ("steps", 1, None)):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or value < low or (high is not None and value > high):
                allowed = f"a whole number from {low}" + (f" to {high}" if high else "")
                raise TrialSpecError(f"warm_start.{name}", value, allowed)
        if not self.parts or not set(self.parts) <= set(PARTS):
            raise TrialSpecError("warm_start.parts", self.parts, f"some of {', '.join(PARTS)}")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; `from_json` gives an equal one back."""
        return {**asdict(self), "definition": dict(self.definition), "parts": list(self.parts)}

    @classmethod
    def from_json(cls, data: Any) -> WarmStart:
        """What `to_json` wrote.

        Raises:
            TrialSpecError: it is no warm start.
        """
        fields = {"definition", "seed", "steps", "parts"}
        if not isinstance(data, Mapping) or set(data) != fields:
            raise TrialSpecError("warm_start", data, ", ".join(sorted(fields)))
        return cls(**data)


def training_of(spec: TrialSpec) -> TrialSpec:
    """The training that a trial's warm start asks for, as a trial.

    It depends on what the trials of a job share alone; what they are evaluated on is no part of it.
    """
    warm = spec.warm_start
    assert warm is not None
    return replace(
        spec,
        definition=warm.definition,
        seed=warm.seed,
        steps=warm.steps,
        evaluate=spec.train,
        warm_start=None,
        rungs=(),
        pause_after=None,
        checkpoint=None,
        time_limit=None,
        processes=1,
    )


def warm_start_path(spec: TrialSpec) -> Path:
    """Where the weights of a trial's warm start are kept on this machine; they need not be there.

    A file is a cache: trained again where it is missing, to the same weights. Its name follows from
    all that they depend on: the training, the annotations' content, the versions of the packages
    and the device.
    """
    assert spec.warm_start is not None
    content = {
        "training": training_of(spec).key,
        "parts": sorted(spec.warm_start.parts),
        "annotations": content_digest(spec.train.annotations),
        "versions": versions_on(spec.device),
    }
    name = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
    return lossforge_home() / "warm_starts" / f"{name}.pth"


def time_limit(spec: TrialSpec) -> float | None:
    """Seconds that a trial may take on this machine; the more where its warm start has to be
    trained first, by as much as that has more steps. None: no limit."""
    limit, warm = spec.time_limit, spec.warm_start
    if limit is None or warm is None:
        return limit
    return limit if warm_start_path(spec).exists() else limit * (1 + warm.steps / spec.steps)


def provide_weights(spec: TrialSpec) -> None:
    """Trains the weights that a trial starts from, if this machine has not got them.

    Of processes that need them at the same time one trains, and the others wait for it. Call it
    inside `isolated`: it trains in this process.

    Raises:
        WorkersError: the training's loss or weights are not finite, or the file cannot be written.
    """
    path = warm_start_path(spec)
    if _is_whole(path):
        with contextlib.suppress(OSError):
            os.utime(path)  # in use: `collect_garbage` leaves it
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (path.parent / f".{path.stem}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_whole(path):
                _train_and_save(spec, path)
    except OSError as error:
        raise WorkersError(f"the warm start {path} cannot be written: {error.strerror}") from error


def _is_whole(path: Path) -> bool:
    """Whether the weights are there, and not torn as a power cut may leave them."""
    try:
        with zipfile.ZipFile(path) as content:  # what torch writes; its index is at the end
            return bool(content.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _train_and_save(spec: TrialSpec, path: Path) -> None:
    import torch

    from workers.config import build_config  # imports mmdet; a spec alone does not need it
    from workers.hooks import Diverged, FiniteGuard, ScoreKeeper
    from workers.training import private_config
    from workers.trial_runner import TrialRunner

    assert spec.warm_start is not None
    config = build_config(training_of(spec))
    for name in ("dataloader", "evaluator", "cfg"):
        config.pop(f"val_{name}", None)
        config.pop(f"test_{name}", None)
    with TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        runner = TrialRunner.from_cfg(private_config(config, Path(folder)))
        runner.keeper = ScoreKeeper()
        runner.register_hook(FiniteGuard())
        try:
            runner.train()
        except Diverged as event:
            raise WorkersError(f"the training of the warm start diverged: {event}") from event
        weights = {
            name: value.detach().cpu()
            for name, value in runner.model.state_dict().items()
            if _part(name) in spec.warm_start.parts
        }
        fresh = Path(folder) / path.name
        with fresh.open("wb") as file:  # given a path, torch would write the file's name into it
            torch.save({"state_dict": weights, "meta": {}}, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)


def _part(name: str) -> str:
    """Which of `PARTS` a weight belongs to."""
    top = name.split(".", 1)[0]
    return top if top in ("backbone", "neck") else "heads"
