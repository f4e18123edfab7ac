"""Gradients by a factor, and rows of all processes of a training job."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _GradientTimes(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


def gradient_times(tensor: Tensor, factor: float) -> Tensor:
    """The tensor unchanged; what is backpropagated through it is multiplied by ``factor``."""
    return tensor if factor == 1.0 else _GradientTimes.apply(tensor, factor)


def process_count() -> int:
    """Number of processes that train together; 1 without ``torch.distributed``."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rows_of_all_processes(rows: Tensor) -> Tensor:
    """The rows of every process, in the order of the processes.

    Every process has to call it. Gradients reach a process's own rows only.

    Args:
        rows: (N, K); N may differ between processes, K and the dtype not.

    Returns:
        (sum of N, K); ``rows`` itself when there is one process.
    """
    count = process_count()
    if count == 1:
        return rows
    own = torch.tensor([len(rows)], device=rows.device)
    sizes = [torch.empty_like(own) for _ in range(count)]
    dist.all_gather(sizes, own)
    lengths = torch.cat(sizes).tolist()
    padded = rows.new_zeros(max(lengths), rows.size(1))
    padded[: len(rows)] = rows.detach()
    parts = [torch.empty_like(padded) for _ in range(count)]
    dist.all_gather(parts, padded)
    parts = [part[:length] for part, length in zip(parts, lengths, strict=True)]
    parts[dist.get_rank()] = rows
    return torch.cat(parts)


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum of a tensor over the processes, without gradient; each has to call it."""
    total = values.detach().clone()
    if process_count() > 1:
        dist.all_reduce(total)
    return total
