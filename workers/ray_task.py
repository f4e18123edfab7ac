"""A trial as a Ray task: ``ray.remote(num_cpus=1)(remote_trial).remote(spec.to_json())``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from workers.data import DataError, Split
from workers.data.digest import content_digest
from workers.data.parcels import unpack, unpacked
from workers.modules import add_user_modules
from workers.result import TrialResult
from workers.run import run_trial
from workers.spec import TrialSpec
from workers.worker import TrialWorker


@dataclass(frozen=True)
class Sent:
    """A split that can be fetched.

    Attributes:
        split: where the controller has it.
        content: `content_digest` of its annotation file.
        name: `parcels.digest`.
        parcel: Ray's reference to the parcel; fetched only where the split is not.
    """

    split: Split
    content: str
    name: str
    parcel: Any


def remote_trial(
    spec_json: Mapping[str, Any], sent: Sequence[Sent] | None = None
) -> dict[str, Any]:
    """Trains one spec in this process's own `TrialWorker`, which the next task uses again.

    Ray gives GPUs to tasks through CUDA_VISIBLE_DEVICES; the worker follows it. A cancelled task
    (``ray.cancel(ref, force=True)``) ends Ray's process and with it the child.

    Args:
        spec_json: `TrialSpec.to_json`.
        sent: splits that are fetched where this node does not have them at their paths; once a
            node. None: there is one machine alone, which has what there is.

    Returns:
        `TrialResult.to_json`.
    """
    add_user_modules()
    spec = TrialSpec.from_json(spec_json)
    try:
        here = spec
        if sent is not None:
            train, evaluate = _here(spec.train, sent), _here(spec.evaluate, sent)
            here = replace(spec, train=train, evaluate=evaluate)
    except DataError as error:
        return TrialResult("failed", str(error), None, spec.seed, spec.steps).to_json()
    return run_trial(here, _worker(os.getpid())).to_json()


def _here(split: Split, sent: Sequence[Sent]) -> Split:
    """The split where this node has it.

    Raises:
        DataError: it has not, and none was sent.
    """
    offered = next((each for each in sent if each.split == split), None)
    there = Path(split.images).is_dir()
    if offered is None:
        if not there and not Path(split.annotations).exists():
            raise DataError(
                split.annotations,
                "is not on this node of the cluster; data have to be at the same path on every "
                "node, or the spec says `resources: {send_data: true}`",
            )
        return split
    if there and content_digest(split.annotations) == offered.content:
        return split
    found = unpacked(offered.name)
    if found is not None:
        return found
    import ray

    return unpack(offered.name, ray.get(offered.parcel))


@cache
def _worker(pid: int) -> TrialWorker:
    """This process's worker; by process id, since a fork must not share its parent's child."""
    return TrialWorker()
