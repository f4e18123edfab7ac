"""Value and gradient of an expression in NumPy: reverse mode over its flat program, float64.

`Evaluator` follows one direction and is what a probe along fixed ways wants. Where every prediction
is to be moved on its own, and an expression may mix the classes of a row, this gives all of the
gradient in one pass; it is made of the same derivatives.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from primitives.errors import InputError
from primitives.expression import Expression
from primitives.operators import Operator


class Gradient:
    """Computes an expression and the gradient of its sum, again and again at other points.

    Args:
        expression: what is computed.
        wrt: names of the inputs to derive by; those that the expression does not use are left out.
    """

    def __init__(self, expression: Expression, wrt: Collection[str]) -> None:
        program = expression.program
        self.expression = expression
        self._loads: list[tuple[int, str]] = []
        self._constants: list[Any] = [None] * len(program)
        self._calls: list[tuple[int, Operator, tuple[int, ...]]] = []
        self._leaves: dict[str, int] = {}
        moves = [False] * len(program)
        for place, step in enumerate(program):
            node = step.node
            if node.value is not None:
                self._constants[place] = np.float64(node.value)
            elif node.name is not None:
                self._loads.append((place, node.name))
                moves[place] = node.name in wrt
                if moves[place]:
                    self._leaves[node.name] = place
            elif node.operator is not None:
                self._calls.append((place, node.operator, step.arguments))
                moves[place] = any(moves[i] for i in step.arguments)
        self._moves = moves

    def __call__(
        self, values: Mapping[str, NDArray[Any]], weight: NDArray[Any] | float = 1.0
    ) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
        """Value of the expression and gradient of its weighted sum by the inputs of `wrt` it uses.

        Floating-point warnings are the caller's to silence; NaN and infinity are kept.

        Args:
            values: float64 by input name, per class `(N, C)`, per row `(N,)`.
            weight: factor on each element of the value in the sum, of a shape that fits it.

        Returns:
            The value, `(N,)` or `(N, C)` as the space's root says, and the gradients, each of its
            input's shape.

        Raises:
            InputError: the expression uses an input that has no value.
        """
        memory = list(self._constants)
        for place, name in self._loads:
            try:
                memory[place] = values[name]
            except KeyError:
                raise InputError(name, "is used but has no value") from None
        for place, operator, arguments in self._calls:
            memory[place] = operator.value(*[memory[i] for i in arguments])
        return memory[-1], self._backward(memory, weight)

    def _backward(self, memory: list[Any], weight: Any) -> dict[str, NDArray[Any]]:
        cotangents: list[Any] = [None] * len(memory)
        if self._moves[-1]:
            cotangents[-1] = np.ones_like(memory[-1]) * weight
        for place, operator, arguments in reversed(self._calls):
            given = cotangents[place]
            if given is None:
                continue
            moving = [self._moves[i] for i in arguments]
            parts = _parts(operator, memory[place], [memory[i] for i in arguments], moving, given)
            for i, moves, part in zip(arguments, moving, parts, strict=True):
                if moves:
                    cotangents[i] = part if cotangents[i] is None else cotangents[i] + part
        return {name: cotangents[place] for name, place in self._leaves.items()}


def _parts(
    operator: Operator, value: Any, arguments: list[Any], moving: list[bool], given: Any
) -> tuple[Any, ...]:
    """The cotangent of each argument; None where it does not move."""
    if operator.adjoint is not None:
        return operator.adjoint(value, *arguments, given)
    # elementwise: the Jacobian is diagonal, so the cotangent does for the tangent
    parts = []
    for place, moves in enumerate(moving):
        tangents = [given if i == place else None for i in range(len(arguments))]
        parts.append(operator.derivative(value, *arguments, *tangents) if moves else None)
    return tuple(parts)
