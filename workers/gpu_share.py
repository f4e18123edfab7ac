"""A part of a GPU: what a trial that shares one may take of its memory.

A scheduler that deals out fractions of a GPU only counts them: nothing keeps one trial from taking
all of the memory, and its neighbours then fail for want of it. Held to its share, the trial that
takes too much fails itself.
"""

from __future__ import annotations

import os

GPU_SHARE = "LOSSFORGE_GPU_SHARE"  # environment: share of a GPU's memory, above 0 and up to 1


def share_of_gpu(gpus: float) -> dict[str, str]:
    """The environment of a trial that is given so many GPUs; nothing for whole ones, or none."""
    return {GPU_SHARE: f"{gpus:g}"} if 0 < gpus < 1 else {}


def hold_to_share() -> float | None:
    """Bounds what torch takes in this process of every GPU that it sees, as the environment says.

    Returns:
        The share; None where there is no bound, or no GPU.
    """
    given = os.environ.get(GPU_SHARE)
    if not given:
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    for device in range(torch.cuda.device_count()):
        torch.cuda.set_per_process_memory_fraction(float(given), device)
    return float(given)
