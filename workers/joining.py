"""How the processes of one training find each other, and what they have in common."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmengine.config import Config


def join(config: Config) -> None:
    """Changes a config so that `Runner` trains with the other processes."""
    config.launcher = "pytorch"


def join_on_cpu(config: Config) -> None:
    """The same on the CPU, where a model belongs to no device by number."""
    join(config)
    config.model_wrapper_cfg = {
        "type": "MMDistributedDataParallel",
        "broadcast_buffers": False,
        "find_unused_parameters": bool(config.get("find_unused_parameters", False)),
        **(config.get("model_wrapper_cfg") or {}),
        "device_ids": None,
    }


def gathering(folder: Path) -> Any:
    """A hook that has evaluations gathered in a folder; mmengine would leave one where it runs."""
    from mmengine.hooks import Hook

    class Gathering(Hook):
        priority = "VERY_HIGH"

        def before_val(self, runner: Any) -> None:
            for number, metric in enumerate(runner.val_loop.evaluator.metrics):
                if metric.collect_device == "cpu" and metric.collect_dir is None:
                    metric.collect_dir = str(folder / str(number))

    return Gathering()


def mean_buffers() -> Any:
    """A hook that evaluates with the mean of all processes' buffers (batch norm's statistics), and
    then gives each its own back: evaluations at rungs must leave the training alone."""
    import torch
    from mmengine.dist import all_reduce_params
    from mmengine.hooks import Hook

    class MeanBuffers(Hook):
        priority = "VERY_HIGH"
        own: list[torch.Tensor]

        def _buffers(self, runner: Any) -> list[torch.Tensor]:
            return [each for each in runner.model.buffers() if each.is_floating_point()]

        def before_val(self, runner: Any) -> None:
            buffers = self._buffers(runner)
            self.own = [each.clone() for each in buffers]
            if buffers:
                all_reduce_params(buffers, op="mean")

        def after_val(self, runner: Any) -> None:
            for each, own in zip(self._buffers(runner), self.own, strict=True):
                each.copy_(own)

    return MeanBuffers()


def meet(meeting: Path, rank: int, processes: int, *, cpu: bool) -> None:
    """Joins this process to its group: by gloo on the CPU, by NCCL on the `rank`-th GPU that this
    process sees.

    Args:
        meeting: a file, in a folder of this group alone, through which they find each other.
    """
    import torch

    local = str(rank)  # all of them are on one machine
    os.environ.update(RANK=local, LOCAL_RANK=local, WORLD_SIZE=str(processes))
    if cpu and sys.platform == "linux":  # a machine's own name need not lead anywhere
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if not cpu:
        torch.cuda.set_device(rank)
    torch.distributed.init_process_group(
        "gloo" if cpu else "nccl",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=processes,
    )


def on_cpu(device: str) -> bool:
    """Whether trainings on a `TrialSpec`'s device are on the CPU here."""
    import torch

    return device == "cpu" or not torch.cuda.is_available()


def joined() -> bool:
    """Whether this process trains with others."""
    import torch

    return bool(torch.distributed.is_available() and torch.distributed.is_initialized())


def rank_here() -> int:
    """The number of this process in its group; 0 where it is alone."""
    import torch

    return int(torch.distributed.get_rank()) if joined() else 0


def agreed(value: int) -> bool:
    """Whether all processes of the group have the same number."""
    if not joined():
        return True
    import torch

    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, value)
    return len(set(found)) == 1
