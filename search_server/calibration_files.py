"""Captures of the calibration as files under the home folder: a cache, never a source of truth."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from workers import TrialSpec, lossforge_home
from workers.calls import BranchCalls
from workers.result import package_versions

_FORMAT = 1  # part of a file's name: another one where what is captured changes
_BROKEN = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


def capture_file(trial: TrialSpec, roles: Mapping[str, str], batches: int) -> Path:
    """Where the capture of a detector's losses is kept; it need not be there.

    The name follows from what a capture depends on: the trial but for its budget and evaluation,
    the annotations' content and the versions of the packages.

    Raises:
        OSError: the annotations cannot be read.
    """
    content = {
        "format": _FORMAT,
        "trial": replace(trial, evaluate=trial.train, steps=1, rungs=(), pause_after=None).key,
        "roles": dict(sorted(roles.items())),
        "batches": batches,
        "annotations": hashlib.sha256(Path(trial.train.annotations).read_bytes()).hexdigest(),
        "versions": dict(package_versions()),
    }
    text = json.dumps(content, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:32]
    return lossforge_home() / "calibration" / f"{name}.npz"


def read_capture(path: Path, roles: Mapping[str, str]) -> dict[str, BranchCalls] | None:
    """The branches of a capture; None where there is no such file, or a broken one."""
    found = {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for branch in roles:
                calls: list[dict[str, np.ndarray]] = [
                    {} for _ in range(int(arrays[f"{branch}/calls"]))
                ]
                for name in arrays.files:
                    owner, _, rest = name.partition("/")
                    number, _, key = rest.partition("/")
                    if owner == branch and key:
                        calls[int(number)][key] = arrays[name]
                found[branch] = BranchCalls(float(arrays[f"{branch}/norm"]), tuple(calls))
    except _BROKEN:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # in use: `collect_garbage` leaves it
    return found


def write_capture(path: Path, branches: Mapping[str, BranchCalls]) -> None:
    """Writes a capture, as a whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    for branch, each in branches.items():
        arrays[f"{branch}/norm"] = np.asarray(each.norm)
        arrays[f"{branch}/calls"] = np.asarray(len(each.calls))
        for number, call in enumerate(each.calls):
            arrays.update({f"{branch}/{number}/{key}": value for key, value in call.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".npz")
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
