"""Expressions as functions over torch tensors: a flat list of steps, no generated code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from primitives.errors import InputError
from primitives.expression import Expression
from primitives.operators import Kind

if TYPE_CHECKING:
    import torch


def to_torch(expression: Expression) -> Callable[..., torch.Tensor]:
    """A function over named tensors that computes the expression.

    The function takes the space's inputs by name; inputs that the expression does not use may be
    left out. Per-class inputs are `(N, C)`, per-row inputs `(N,)`, on any device, of any float
    dtype; integer and boolean inputs (one-hot labels) are converted to the dtype of the float ones.
    Constants are Python numbers and so change no dtype. Shared subtrees are computed once.
    Gradients flow. The result is `(N,)` or `(N, C)`, as the space's root says; NaN and infinity
    are kept.

    The function raises InputError for a missing or unknown input, and for shapes that do not fit.
    """
    import torch

    space = expression.space
    used = tuple(item for item in space.inputs if item.name in expression.inputs)
    root_kind = expression.root.kind
    slots: list[Any] = []
    loads: list[tuple[int, str]] = []
    calls: list[tuple[int, Any, tuple[int, ...]]] = []
    for place, step in enumerate(expression.program):
        node = step.node
        slots.append(None)
        if node.value is not None:
            slots[place] = node.value
        elif node.name is not None:
            loads.append((place, node.name))
        elif node.kind is Kind.SCALAR and node.operator is not None:
            arguments = (torch.tensor(slots[i], dtype=torch.float64) for i in step.arguments)
            slots[place] = node.operator.torch(torch, *arguments).item()
        elif node.operator is not None:
            calls.append((place, node.operator.torch, step.arguments))

    def compute(**tensors: torch.Tensor) -> torch.Tensor:
        _check_tensor_names(tensors, space.kinds)
        named = {item.name: _given_tensor(tensors, item.name) for item in used}
        _check_tensor_shapes(named, space.kinds)
        named = _as_float_tensors(torch, named)
        memory = list(slots)
        for place, name in loads:
            memory[place] = named[name]
        for place, function, arguments in calls:
            memory[place] = function(torch, *[memory[i] for i in arguments])
        return memory[-1]

    compute.__name__ = "expression"
    compute.__doc__ = f"{expression} ({space.name}, {root_kind.words})"
    return compute


def _check_tensor_names(tensors: Mapping[str, Any], kinds: Mapping[str, Kind]) -> None:
    for name in tensors:
        if name not in kinds:
            raise InputError(name, f"unknown; the inputs are {', '.join(kinds)}")


def _given_tensor(tensors: Mapping[str, Any], name: str) -> Any:
    tensor = tensors.get(name)
    if tensor is None:
        raise InputError(name, "is used by the expression but was not given")
    return tensor


def _check_tensor_shapes(tensors: Mapping[str, Any], kinds: Mapping[str, Kind]) -> None:
    rows: int | None = None
    per_class: tuple[int, ...] | None = None
    for name, tensor in tensors.items():
        shape = tuple(tensor.shape)
        wanted = "(N, C)" if kinds[name] is Kind.PER_CLASS else "(N,)"
        if len(shape) != (2 if kinds[name] is Kind.PER_CLASS else 1):
            raise InputError(name, f"has shape {shape}, expected {kinds[name].words} {wanted}")
        if rows is not None and shape[0] != rows:
            raise InputError(name, f"has {shape[0]} rows, other inputs have {rows}")
        rows = shape[0]
        if kinds[name] is Kind.PER_CLASS:
            if per_class is not None and shape != per_class:
                raise InputError(name, f"has shape {shape}, other inputs have {per_class}")
            per_class = shape


def _as_float_tensors(torch: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    floats = [tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()]
    if len(floats) == len(tensors):
        return tensors
    dtype = floats[0] if floats else torch.get_default_dtype()
    for other in floats[1:]:
        dtype = torch.promote_types(dtype, other)
    return {
        name: tensor if tensor.is_floating_point() else tensor.to(dtype)
        for name, tensor in tensors.items()
    }
