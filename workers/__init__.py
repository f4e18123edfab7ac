"""Trials: train one detector with one loss definition, and say how good it is.

`train` is the pure function, `run_trial` supervises it in a child process that can be killed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workers.data.split import Split
from workers.errors import DetectorError, TrialCancelled, TrialSpecError, WorkersError
from workers.folders import Garbage, collect_garbage
from workers.home import lossforge_home
from workers.result import TrialResult
from workers.run import run_trial
from workers.spec import TrialSpec
from workers.worker import TrialWorker

if TYPE_CHECKING:
    from workers.config import build_config
    from workers.detector import load_detector
    from workers.training import train

_HEAVY = {  # import torch and mmdet, seconds that a command line does not have
    "build_config": "workers.config",
    "load_detector": "workers.detector",
    "train": "workers.training",
}


def __getattr__(name: str) -> Any:
    if name not in _HEAVY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HEAVY[name]), name)


__all__ = [
    "DetectorError",
    "Garbage",
    "Split",
    "TrialCancelled",
    "TrialResult",
    "TrialSpec",
    "TrialSpecError",
    "TrialWorker",
    "WorkersError",
    "build_config",
    "collect_garbage",
    "load_detector",
    "lossforge_home",
    "run_trial",
    "train",
]
