"""The operators of the language, as one table: kind rule, torch, NumPy value and derivative, LaTeX.

The first twenty rows have the semantics of CSE-AutoLoss (`tools/search_space.py`): epsilon 1e-20,
exponent clamped at 88, division not sign-safe, NaNs kept. The rest are a reconstruction of those of
AutoLoss-Zero: sign-safe, epsilon 1e-12, see docs/autoloss_zero.md. A new operator is a new row of
`OPERATORS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any

import numpy as np

EPSILON = 1e-20  # in Div and Log
SAFE_EPSILON = 1e-12  # in Inv, SLog and SSqrt
MAX_EXPONENT = 88.0  # largest argument of Exp; exp(88) is just below float32's maximum

_SGDF_SCALE = math.pi / 4
_SERF_SCALE = math.sqrt(math.pi) / 4


class Kind(Enum):
    """Shape of a value: one number, one per row `(N,)`, or one per row and class `(N, C)`."""

    SCALAR = "scalar"
    PER_ROW = "per_row"
    PER_CLASS = "per_class"

    @property
    def words(self) -> str:
        """The kind as it is written in messages, e.g. "per row"."""
        return self.value.replace("_", " ")


def elementwise_kind(kinds: Sequence[Kind]) -> Kind | None:
    """A scalar mixes with anything; per row does not mix with per class."""
    result = Kind.SCALAR
    for kind in kinds:
        if kind is not Kind.SCALAR:
            if result is not Kind.SCALAR and result is not kind:
                return None
            result = kind
    return result


def softmax_kind(kinds: Sequence[Kind]) -> Kind | None:
    """Only per class, and stays so: what mixes the classes of a row."""
    return Kind.PER_CLASS if kinds[0] is Kind.PER_CLASS else None


def dot_kind(kinds: Sequence[Kind]) -> Kind | None:
    """Per class with per class (or with a scalar) gives per row."""
    fits = Kind.PER_CLASS in kinds and Kind.PER_ROW not in kinds
    return Kind.PER_ROW if fits else None


@dataclass(frozen=True)
class Operator:
    """One row of the table.

    Attributes:
        name: as written in an expression.
        arity: number of arguments, 1 or 2.
        kind: kind of the result from the kinds of the arguments; None where they do not fit.
        torch: `(torch module, *arguments) -> tensor`. The module is passed in, so that the table
            can be read without importing torch.
        value: `(*arguments) -> array`, NumPy.
        derivative: `(value, *arguments, *tangents) -> array`, NumPy, forward mode: the result's
            tangent. A tangent is None where the argument is constant; at least one is not None.
        adjoint: `(value, *arguments, cotangent) -> arrays`, NumPy, reverse mode: a cotangent for
            each argument (whatever it is for a constant one). None for an elementwise operator,
            where it follows from `derivative`.
        latex: template with `{0}`, `{1}` for the arguments.
        tight: argument indices that need brackets when they are a sum (or a sign) in LaTeX.
        binds: how tightly the LaTeX holds together: 1 a sum, 2 a sign or product, 3 an atom.
        commutative: the two arguments may be swapped.
        parity: 1 for even, -1 for odd functions, 0 for neither.
    """

    name: str
    arity: int
    kind: Callable[[Sequence[Kind]], Kind | None]
    torch: Callable[..., Any]
    value: Callable[..., Any]
    derivative: Callable[..., Any]
    latex: str
    tight: tuple[int, ...] = ()
    binds: int = 3
    commutative: bool = False
    parity: int = 0
    adjoint: Callable[..., tuple[Any, ...]] | None = None

    def __repr__(self) -> str:
        return f"<operator {self.name}/{self.arity}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        return operator_named, (self.name,)


def operator_named(name: str) -> Operator:
    """The row of a name that is known to exist (operators are pickled by name)."""
    return OPERATORS[name]


# --- NumPy parts that do not fit on one line ---------------------------------------------------


def _add_tangent(v: Any, a: Any, b: Any, da: Any, db: Any) -> Any:
    if da is None:
        return db
    return da if db is None else da + db


def _sub_tangent(v: Any, a: Any, b: Any, da: Any, db: Any) -> Any:
    if da is None:
        return -db
    return da if db is None else da - db


def _mul_tangent(v: Any, a: Any, b: Any, da: Any, db: Any) -> Any:
    if da is None:
        return a * db
    return da * b if db is None else da * b + a * db


def _div_tangent(v: Any, a: Any, b: Any, da: Any, db: Any) -> Any:
    d = b + EPSILON
    if da is None:
        return -v * db / d
    return da / d if db is None else (da - v * db) / d


def _dot_tangent(v: Any, a: Any, b: Any, da: Any, db: Any) -> Any:
    return _mul_tangent(v, a, b, da, db).sum(axis=-1)


def _dot_adjoint(v: Any, a: Any, b: Any, g: Any) -> tuple[Any, ...]:
    g = np.broadcast_to(g[..., None], np.broadcast_shapes(np.shape(a), np.shape(b)))
    return g * b, g * a


def _softmax_value(x: Any) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _softmax_tangent(v: Any, x: Any, dx: Any) -> Any:
    t = v * dx
    return t - v * t.sum(axis=-1, keepdims=True)


def _class_mean(x: Any) -> Any:
    return np.broadcast_to(x.mean(axis=-1, keepdims=True), x.shape)


def _erf(x: Any) -> Any:
    # NumPy has no erf, and SciPy's import costs more than this loop does on a verification grid.
    x = np.asarray(x, dtype=np.float64)
    return np.fromiter(map(math.erf, x.ravel().tolist()), np.float64, x.size).reshape(x.shape)


def _sgdf_value(x: Any) -> Any:
    return 0.5 + (2 / math.pi) * np.arctan(np.tanh(x * (_SGDF_SCALE / 2)))


def _sgdf_torch(t: Any, x: Any) -> Any:
    return (1 + (2 / math.pi) * 2 * t.atan(t.tanh(x * (_SGDF_SCALE / 2)))) / 2


def _salf_value(x: Any) -> Any:
    h = x / 2
    return (1 + h / np.sqrt(1 + h * h)) / 2


def _salf_torch(t: Any, x: Any) -> Any:
    h = x / 2
    return (1 + h / t.sqrt(1 + h**2)) / 2


def _salf_tangent(v: Any, x: Any, dx: Any) -> Any:
    s = 1 + x * x / 4
    return dx / (4 * s * np.sqrt(s))


def _softplus_value(x: Any) -> Any:
    return np.logaddexp(0.0, x)


# --- the table ---------------------------------------------------------------------------------

_ROWS = (
    Operator(
        "Add",
        2,
        elementwise_kind,
        torch=lambda t, a, b: a + b,
        value=lambda a, b: a + b,
        derivative=_add_tangent,
        latex="{0} + {1}",
        binds=1,
        commutative=True,
    ),
    Operator(
        "Sub",
        2,
        elementwise_kind,
        torch=lambda t, a, b: a - b,
        value=lambda a, b: a - b,
        derivative=_sub_tangent,
        latex="{0} - {1}",
        tight=(1,),
        binds=1,
    ),
    Operator(
        "Mul",
        2,
        elementwise_kind,
        torch=lambda t, a, b: a * b,
        value=lambda a, b: a * b,
        derivative=_mul_tangent,
        latex=r"{0} \, {1}",
        tight=(0, 1),
        binds=2,
        commutative=True,
    ),
    Operator(
        "Div",
        2,
        elementwise_kind,
        torch=lambda t, a, b: a / (b + EPSILON),
        value=lambda a, b: a / (b + EPSILON),
        derivative=_div_tangent,
        latex=r"\frac{{{0}}}{{{1}}}",
    ),
    Operator(
        "Neg",
        1,
        elementwise_kind,
        torch=lambda t, x: -x,
        value=lambda x: -x,
        derivative=lambda v, x, dx: -dx,
        latex="-{0}",
        tight=(0,),
        binds=1,
        parity=-1,
    ),
    Operator(
        "Abs",
        1,
        elementwise_kind,
        torch=lambda t, x: t.abs(x),
        value=np.abs,
        derivative=lambda v, x, dx: np.sign(x) * dx,
        latex=r"\left|{0}\right|",
        parity=1,
    ),
    Operator(
        "Exp",
        1,
        elementwise_kind,
        torch=lambda t, x: t.exp(t.clamp(x, max=MAX_EXPONENT)),
        value=lambda x: np.exp(np.minimum(x, MAX_EXPONENT)),
        derivative=lambda v, x, dx: np.where(x <= MAX_EXPONENT, v * dx, 0.0),
        latex="e^{{{0}}}",
    ),
    Operator(
        "Log",
        1,
        elementwise_kind,
        torch=lambda t, x: t.log(x + EPSILON),
        value=lambda x: np.log(x + EPSILON),
        derivative=lambda v, x, dx: dx / (x + EPSILON),
        latex=r"\log\left({0}\right)",
    ),
    Operator(
        "Sqrt",
        1,
        elementwise_kind,
        torch=lambda t, x: t.sqrt(x),
        value=np.sqrt,
        derivative=lambda v, x, dx: dx / (2 * v),
        latex=r"\sqrt{{{0}}}",
    ),
    Operator(
        "Softmax",
        1,
        softmax_kind,
        torch=lambda t, x: t.softmax(x, dim=1),
        value=_softmax_value,
        derivative=_softmax_tangent,
        adjoint=lambda v, x, g: (_softmax_tangent(v, x, g),),
        latex=r"\operatorname{{softmax}}\left({0}\right)",
    ),
    Operator(
        "Softplus",
        1,
        elementwise_kind,
        torch=lambda t, x: t.nn.functional.softplus(x),
        value=_softplus_value,
        derivative=lambda v, x, dx: dx / (1 + np.exp(-x)),
        latex=r"\operatorname{{softplus}}\left({0}\right)",
    ),
    Operator(
        "Sig",
        1,
        elementwise_kind,
        torch=lambda t, x: t.sigmoid(x),
        value=lambda x: 1 / (1 + np.exp(-x)),
        derivative=lambda v, x, dx: v * (1 - v) * dx,
        latex=r"\sigma\left({0}\right)",
    ),
    Operator(
        "Sgdf",
        1,
        elementwise_kind,
        torch=_sgdf_torch,
        value=_sgdf_value,
        derivative=lambda v, x, dx: dx / (4 * np.cosh(x * _SGDF_SCALE)),
        latex=r"\operatorname{{sgdf}}\left({0}\right)",
    ),
    Operator(
        "Salf",
        1,
        elementwise_kind,
        torch=_salf_torch,
        value=_salf_value,
        derivative=_salf_tangent,
        latex=r"\operatorname{{salf}}\left({0}\right)",
    ),
    Operator(
        "Serf",
        1,
        elementwise_kind,
        torch=lambda t, x: (1 + t.erf(x * _SERF_SCALE)) / 2,
        value=lambda x: (1 + _erf(x * _SERF_SCALE)) / 2,
        derivative=lambda v, x, dx: np.exp(-((x * _SERF_SCALE) ** 2)) * dx / 4,
        latex=r"\operatorname{{serf}}\left({0}\right)",
    ),
    Operator(
        "Tanh",
        1,
        elementwise_kind,
        torch=lambda t, x: t.tanh(x),
        value=np.tanh,
        derivative=lambda v, x, dx: (1 - v * v) * dx,
        latex=r"\tanh\left({0}\right)",
        parity=-1,
    ),
    Operator(
        "Relu",
        1,
        elementwise_kind,
        torch=lambda t, x: t.relu(x),
        value=lambda x: np.maximum(x, 0.0),
        derivative=lambda v, x, dx: np.where(x > 0, dx, 0.0),
        latex=r"\max\left(0, {0}\right)",
    ),
    Operator(
        "Sin",
        1,
        elementwise_kind,
        torch=lambda t, x: t.sin(x),
        value=np.sin,
        derivative=lambda v, x, dx: np.cos(x) * dx,
        latex=r"\sin\left({0}\right)",
        parity=-1,
    ),
    Operator(
        "Cos",
        1,
        elementwise_kind,
        torch=lambda t, x: t.cos(x),
        value=np.cos,
        derivative=lambda v, x, dx: -np.sin(x) * dx,
        latex=r"\cos\left({0}\right)",
        parity=1,
    ),
    Operator(
        "Dot",
        2,
        dot_kind,
        torch=lambda t, a, b: (a * b).sum(dim=1),
        value=lambda a, b: (a * b).sum(axis=-1),
        derivative=_dot_tangent,
        latex=r"\left\langle {0},\, {1} \right\rangle",
        commutative=True,
        adjoint=_dot_adjoint,
    ),
    Operator(
        "Inv",
        1,
        elementwise_kind,
        torch=lambda t, x: 1 / (x + SAFE_EPSILON),
        value=lambda x: 1 / (x + SAFE_EPSILON),
        derivative=lambda v, x, dx: -v * v * dx,
        latex=r"\frac{{1}}{{{0}}}",
    ),
    Operator(
        "SLog",
        1,
        elementwise_kind,
        torch=lambda t, x: t.sign(x) * t.log(t.abs(x) + SAFE_EPSILON),
        value=lambda x: np.sign(x) * np.log(np.abs(x) + SAFE_EPSILON),
        derivative=lambda v, x, dx: np.abs(np.sign(x)) * dx / (np.abs(x) + SAFE_EPSILON),
        latex=r"\operatorname{{slog}}\left({0}\right)",
        parity=-1,
    ),
    Operator(
        "SSqrt",
        1,
        elementwise_kind,
        torch=lambda t, x: t.sign(x) * t.sqrt(t.abs(x) + SAFE_EPSILON),
        value=lambda x: np.sign(x) * np.sqrt(np.abs(x) + SAFE_EPSILON),
        derivative=lambda v, x, dx: (
            np.abs(np.sign(x)) * dx / (2 * np.sqrt(np.abs(x) + SAFE_EPSILON))
        ),
        latex=r"\operatorname{{ssqrt}}\left({0}\right)",
        parity=-1,
    ),
    Operator(
        "Square",
        1,
        elementwise_kind,
        torch=lambda t, x: x * x,
        value=lambda x: x * x,
        derivative=lambda v, x, dx: 2 * x * dx,
        latex=r"\left({0}\right)^{{2}}",
        parity=1,
    ),
    Operator(
        "MeanClasses",
        1,
        softmax_kind,
        torch=lambda t, x: x.mean(dim=1, keepdim=True).expand_as(x),
        value=_class_mean,
        derivative=lambda v, x, dx: _class_mean(dx),
        latex=r"\operatorname{{mean}}\left({0}\right)",
        parity=-1,
        adjoint=lambda v, x, g: (_class_mean(g),),
    ),
)

OPERATORS: Mapping[str, Operator] = MappingProxyType({row.name: row for row in _ROWS})
