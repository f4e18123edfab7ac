"""What every ranking loss does with its inputs and its result."""

import torch
from torch import Tensor


def check_same_shape(**tensors: Tensor) -> None:
    """
    Raises:
        ValueError: the tensors have not all the shape of the first.
    """
    (first, reference), *others = tensors.items()
    for name, tensor in others:
        if tensor.shape != reference.shape:
            raise ValueError(
                f"{name} must have the shape of {first}, {tuple(reference.shape)},"
                f" got {tuple(tensor.shape)}"
            )


def where_true(mask: Tensor) -> Tensor:
    """(K,) int64 positions of the true elements of a flat mask."""
    return mask.nonzero().squeeze(1)


def result_dtype(logits: Tensor) -> torch.dtype:
    """float64 for float64 logits, else float32."""
    return torch.promote_types(logits.dtype, torch.float32)


def graph_zero(*tensors: Tensor) -> Tensor:
    """0 that backpropagates zeros into the tensors, whatever their values."""
    zero = tensors[0].new_zeros((), dtype=result_dtype(tensors[0]))
    for tensor in tensors:
        # a product with 0 would be NaN where a value is not finite
        zero = zero + tensor.reshape(-1)[:0].sum().to(zero.dtype)
    return zero


def unless_finite(*tensors: Tensor) -> Tensor:
    """() float64: 0 when all values are finite, else NaN; without a synchronisation."""
    finite = torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all()
    zero = torch.zeros((), dtype=torch.float64, device=finite.device)
    return torch.where(finite, zero, torch.full_like(zero, torch.nan))
