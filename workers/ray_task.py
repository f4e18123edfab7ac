"""A trial as a Ray task: ``ray.remote(num_cpus=1)(remote_trial).remote(spec.to_json())``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from workers.run import run_trial
from workers.spec import TrialSpec
from workers.worker import TrialWorker


def remote_trial(spec_json: Mapping[str, Any]) -> dict[str, Any]:
    """Trains one spec in this process's own `TrialWorker`, which the next task uses again.

    Ray gives GPUs to tasks through CUDA_VISIBLE_DEVICES; the worker follows it. A cancelled task
    (``ray.cancel(ref, force=True)``) ends Ray's process and with it the child.

    Args:
        spec_json: `TrialSpec.to_json`.

    Returns:
        `TrialResult.to_json`.
    """
    return run_trial(TrialSpec.from_json(spec_json), _worker(os.getpid())).to_json()


@cache
def _worker(pid: int) -> TrialWorker:
    """This process's worker; by process id, since a fork must not share its parent's child."""
    return TrialWorker()
