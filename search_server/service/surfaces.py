"""Loss and gradient over a grid of predictions and targets, of expressions, in NumPy alone.

The expression is computed as it stands, without the weights of its branch. What is no number is
null: a page can say so, JSON cannot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from losses import space_role
from primitives import Evaluator, Expression, Input

POINTS = 41
LOGITS = np.linspace(-8.0, 8.0, POINTS)
OVERLAPS = np.linspace(0.0, 1.0, POINTS)
ENCLOSING = np.linspace(1.0, 3.0, POINTS)
UNION = 32.0**2
"""Square pixels; a good box loss does not ask how large a box is."""

Numbers = list[float | None]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Axis:
    """An axis of a grid or a plot."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True)
class Surface:
    """An expression over a grid.

    Attributes:
        value, gradient: rows along `y`, columns along `x`; the gradient is the derivative by what
            `by` names.
        background: of a classification loss, value and gradient along `x` for background.
    """

    branch: str
    role: str
    x: Axis
    y: Axis
    value: list[Numbers]
    gradient: list[Numbers]
    by: str
    background: tuple[Numbers, Numbers] | None = None


def surface(branch: str, expression: Expression) -> Surface:
    """The surface of an expression of a role that losses have.

    Raises:
        DefinitionError: it has no such role.
    """
    role = space_role(expression.space)
    x, y = (a.ravel() for a in np.meshgrid(OVERLAPS if role == "box" else LOGITS, _second(role)))
    value, gradient = _along(expression, *_at(role, x, y, background=False))
    if role == "box":
        return Surface(
            branch, role, Axis("IoU", _listed(OVERLAPS)),
            Axis("enclosing box / union", _listed(ENCLOSING)), _grid(value), _grid(gradient),
            "IoU",
        )  # fmt: skip
    line = _along(expression, *_at(role, LOGITS, np.zeros(POINTS), background=True))
    return Surface(
        branch, role, Axis("logit", _listed(LOGITS)), Axis("IoU of an object", _listed(OVERLAPS)),
        _grid(value), _grid(gradient), "logit", (_numbers(line[0]), _numbers(line[1])),
    )  # fmt: skip


def _second(role: str) -> Array:
    return ENCLOSING if role == "box" else OVERLAPS


def _at(
    role: str, x: Array, y: Array, *, background: bool
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Inputs and their tangents at points of the grid.

    Of two classes, an object's and another whose logit is 0, the softmax loss sees the object's
    logit move; background is of the other class.
    """
    if role == "box":
        union = np.full_like(x, UNION)
        return {"I": x * union, "U": union, "E": y * union}, {"I": union}
    if role == "binary_cls":
        label = np.full_like(x, 0.0 if background else 1.0)[:, None]
        return (
            {"X": x[:, None], "Q": y[:, None] * label, "PY": label, "NY": 1 - label},
            {"X": np.ones_like(label)},
        )
    still, one = np.zeros_like(x), np.ones_like(x)
    overlap = one if background else y  # what a loss is given for background
    values = {
        "X": np.stack([x, still], axis=1),
        "Y": np.stack([still, one] if background else [one, still], axis=1),
        "Z": np.stack([overlap, overlap], axis=1),
    }
    return values, {"X": np.stack([one, still], axis=1)}


def _along(
    expression: Expression, values: Mapping[str, Array], tangents: Mapping[str, Array]
) -> tuple[Array, Array]:
    """Value and derivative, one number a point: classes are summed."""
    known: tuple[Input, ...] = expression.space.inputs
    names = {each.name for each in known}
    evaluate = Evaluator(
        expression.space,
        {name: value for name, value in values.items() if name in names},
        {name: value for name, value in tangents.items() if name in names},
    )
    value, gradient = evaluate(expression)
    points = len(next(iter(values.values())))

    def summed(found: NDArray[Any]) -> Array:
        # an expression of nothing but numbers has the shape of none
        whole = np.broadcast_to(found, (points, *found.shape[1:]) if found.ndim else (points,))
        return whole.reshape(points, -1).sum(axis=1)

    with np.errstate(all="ignore"):
        return summed(value), summed(gradient)


def _grid(flat: Array) -> list[Numbers]:
    return [_numbers(row) for row in flat.reshape(POINTS, POINTS)]


def _numbers(row: Array) -> Numbers:
    """With six digits, which is more than a plot shows; what is no number, or too large for one
    that can be drawn, is None."""
    return [float(f"{x:.6g}") if np.isfinite(x) and abs(x) < 1e30 else None for x in row]


def _listed(values: Array) -> list[float]:
    return [round(float(value), 4) for value in values]
