"""Points and directions that expressions are evaluated at, kept ready per search space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from primitives import Expression, SearchSpace
from primitives.numpy_eval import Evaluator

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Probe:
    """Inputs of a loss at fixed points, and the direction in which the prediction moves there.

    Attributes:
        values: by input name, `(N,)` or `(N, C)`.
        tangents: by input name, same shapes; inputs without one stay as they are.
    """

    values: Mapping[str, Array]
    tangents: Mapping[str, Array]


@lru_cache(maxsize=512)
def _evaluator(space: SearchSpace, probe: Probe) -> Evaluator:
    known = space.kinds
    return Evaluator(
        space,
        {name: value for name, value in probe.values.items() if name in known},
        {name: value for name, value in probe.tangents.items() if name in known},
    )


def evaluate_at(probe: Probe, expression: Expression) -> tuple[Array, Array]:
    """Value of a loss at every row of a probe and its slope in the probe's direction, `(N,)`.

    A loss per class is summed over the classes of a row, as training sums it.
    """
    value, slope = _evaluator(expression.space, probe)(expression)
    return _per_row(value), _per_row(slope)


def _per_row(array: Any) -> Array:
    if array.ndim == 1:
        return array
    return array[:, 0] if array.shape[1] == 1 else array.sum(axis=1)


def uses(expression: Expression, operator: str) -> bool:
    """Whether an operator occurs in an expression."""
    return any(
        step.node.operator is not None and step.node.operator.name == operator
        for step in expression.program
    )
