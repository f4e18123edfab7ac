"""Value and directional derivative of expressions in NumPy: forward mode, float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from primitives.errors import InputError, SpaceError
from primitives.expression import Expression, Node
from primitives.operators import Kind
from primitives.spaces import SearchSpace, space_of


class Evaluator:
    """Evaluates expressions of one space at fixed points, along fixed tangents.

    Inputs are checked and converted once, so that many expressions can be evaluated at the same
    points.

    Args:
        space: the expressions' space.
        values: by input name: per class `(N, C)`, per row `(N,)`. Inputs that no evaluated
            expression uses may be left out.
        tangents: by input name, of the input's shape or broadcast to it: the direction of the
            derivative. An input without a tangent is constant.

    Raises:
        InputError: an unknown name, or shapes that do not fit.
    """

    def __init__(
        self,
        space: str | SearchSpace,
        values: Mapping[str, ArrayLike],
        tangents: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        self.space = space_of(space)
        self._values = _checked_values(self.space, values)
        self._tangents = _checked_tangents(self._values, tangents or {})

    def __call__(self, expression: Expression) -> tuple[NDArray[Any], NDArray[Any]]:
        """Value and derivative of an expression, both `(N,)` or `(N, C)` as the space's root says.

        Raises:
            InputError: the expression uses an input that has no value.
            SpaceError: the expression is of another space.
        """
        if expression.space is not self.space and expression.space != self.space:
            raise SpaceError("name", expression.space.name, f"evaluator is of {self.space.name}")
        with np.errstate(all="ignore"):
            value, tangent = self._visit(expression.root, {})
        if tangent is None:
            return np.array(value), np.zeros_like(value)
        return np.array(value), np.array(tangent)  # copies: they may be the inputs themselves

    def _visit(self, node: Node, done: dict[Node, tuple[Any, Any]]) -> tuple[Any, Any]:
        operator = node.operator
        if operator is None:
            if node.value is not None:
                return np.float64(node.value), None
            try:
                return self._values[node.name], self._tangents.get(node.name)  # type: ignore[index, arg-type]
            except KeyError:
                raise InputError(str(node.name), "is used but has no value") from None
        result = done.get(node)
        if result is not None:
            return result
        if operator.arity == 1:
            x, dx = self._visit(node.children[0], done)
            value = operator.value(x)
            tangent = None if dx is None else operator.derivative(value, x, dx)
        else:
            a, da = self._visit(node.children[0], done)
            b, db = self._visit(node.children[1], done)
            value = operator.value(a, b)
            tangent = None
            if da is not None or db is not None:
                tangent = operator.derivative(value, a, b, da, db)
        result = done[node] = (value, tangent)
        return result


def evaluate(
    expression: Expression,
    values: Mapping[str, ArrayLike],
    tangents: Mapping[str, ArrayLike] | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Value of an expression and its derivative along `tangents`, in float64.

    See `Evaluator` for arguments and errors; use it directly for many expressions at the same
    points. Floating-point warnings are silenced; NaN and infinity are kept.
    """
    return Evaluator(expression.space, values, tangents)(expression)


def _checked_values(space: SearchSpace, values: Mapping[str, ArrayLike]) -> dict[str, Any]:
    checked: dict[str, NDArray[Any]] = {}
    rows: int | None = None
    per_class: tuple[int, ...] | None = None
    for name, value in values.items():
        kind = space.kinds.get(name)
        if kind is None:
            raise InputError(str(name), f"unknown; the inputs are {', '.join(space.kinds)}")
        array = np.asarray(value, dtype=np.float64)
        wanted = "(N, C)" if kind is Kind.PER_CLASS else "(N,)"
        if array.ndim != (2 if kind is Kind.PER_CLASS else 1):
            raise InputError(name, f"has shape {array.shape}, expected {kind.words} {wanted}")
        if rows is not None and len(array) != rows:
            raise InputError(name, f"has {len(array)} rows, other inputs have {rows}")
        rows = len(array)
        if kind is Kind.PER_CLASS:
            if per_class is not None and array.shape != per_class:
                raise InputError(name, f"has shape {array.shape}, other inputs have {per_class}")
            per_class = array.shape
        checked[name] = array
    return checked


def _checked_tangents(values: dict[str, Any], tangents: Mapping[str, ArrayLike]) -> dict[str, Any]:
    checked = {}
    for name, tangent in tangents.items():
        if name not in values:
            raise InputError(str(name), "has a tangent but no value")
        array = np.asarray(tangent, dtype=np.float64)
        shape = values[name].shape
        try:
            checked[name] = array if array.shape == shape else np.broadcast_to(array, shape)
        except ValueError:
            raise InputError(
                str(name), f"tangent has shape {array.shape}, its value has {shape}"
            ) from None
    return checked
