"""The operator table: torch, NumPy and the reference's golden numbers agree, value and gradient."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from primitives import OPERATORS, Kind, Operator

GOLDEN = Path(__file__).parents[1] / "golden" / "reference_small.npz"
REFERENCE = (
    "Add Sub Mul Div Neg Abs Exp Log Sqrt Softmax Softplus Sig Sgdf Salf Serf Tanh Relu Sin Cos Dot"
)
SIGN_SAFE = "Inv SLog SSqrt Square"
UNARY = [name for name, op in OPERATORS.items() if op.arity == 1]
UNARY_IN_REFERENCE = [name for name in UNARY if name in REFERENCE.split()]
BINARY = [name for name, op in OPERATORS.items() if op.arity == 2]


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as data:
        return {key: data[key] for key in data.files if key.startswith("op.")}


def torch_pass(operator: Operator, *arrays: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    value = operator.torch(torch, *tensors)
    grads = torch.autograd.grad(value.sum(), tensors)
    return value.detach().numpy(), [g.numpy() for g in grads]


def numpy_gradients(operator: Operator, *arrays: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Gradients of the sum, entry by entry, from forward tangents."""
    with np.errstate(all="ignore"):
        value = operator.value(*arrays)
        gradients = []
        for place, array in enumerate(arrays):
            gradient = np.empty_like(array)
            for index in np.ndindex(array.shape):
                tangents: list[np.ndarray | None] = [None] * len(arrays)
                tangents[place] = np.zeros_like(array)
                tangents[place][index] = 1.0  # type: ignore[index]
                tangent = operator.derivative(value, *arrays, *tangents)
                row = tangent[index[0]]  # rows are independent; the rest may hold 0 * inf
                gradient[index] = (
                    row.sum() if operator.kind is not _elementwise() else row[index[1]]
                )
            gradients.append(gradient)
    return value, gradients


def _elementwise() -> object:
    return OPERATORS["Add"].kind


def sample(seed: int, scale: float, rows: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, (rows, 5))


def test_the_table_holds_the_reference_operators() -> None:
    assert " ".join(OPERATORS) == f"{REFERENCE} {SIGN_SAFE} MeanClasses"
    for name, operator in OPERATORS.items():
        assert operator.name == name
        assert operator.arity in (1, 2)
        operator.latex.format("a", "b")


@pytest.mark.parametrize("name", UNARY_IN_REFERENCE)
def test_unary_operators_agree_with_the_reference(name: str, golden: dict[str, np.ndarray]) -> None:
    x, y, grad = (golden[f"op.{name}.{field}"] for field in ("x", "y", "grad"))
    value, (gradient,) = torch_pass(OPERATORS[name], x)
    np.testing.assert_allclose(value, y, rtol=1e-5, atol=1e-9, equal_nan=True)
    np.testing.assert_allclose(gradient, grad, rtol=1e-5, atol=1e-7, equal_nan=True)
    value, (gradient,) = numpy_gradients(OPERATORS[name], x.astype(np.float64))
    np.testing.assert_allclose(value, y, rtol=1e-5, atol=1e-7, equal_nan=True)
    np.testing.assert_allclose(gradient, grad, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("name", BINARY)
def test_binary_operators_agree_with_the_reference(
    name: str, golden: dict[str, np.ndarray]
) -> None:
    x1, x2, y, grad = (golden[f"op.{name}.{field}"] for field in ("x1", "x2", "y", "grad1"))
    value, (gradient, _) = torch_pass(OPERATORS[name], x1, x2)
    np.testing.assert_allclose(value, y, rtol=1e-5, atol=1e-9, equal_nan=True)
    np.testing.assert_allclose(gradient, grad, rtol=1e-5, atol=1e-9, equal_nan=True)
    value, (gradient, _) = numpy_gradients(
        OPERATORS[name], x1.astype(np.float64), x2.astype(np.float64)
    )
    np.testing.assert_allclose(value, y, rtol=1e-5, atol=1e-6, equal_nan=True)
    np.testing.assert_allclose(gradient, grad, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0, 100.0])
@pytest.mark.parametrize("name", OPERATORS)
def test_torch_and_numpy_agree_over_many_inputs(name: str, scale: float) -> None:
    operator = OPERATORS[name]
    arrays = [sample(seed, scale) for seed in range(operator.arity)]
    value, gradients = torch_pass(operator, *arrays)
    ours, our_gradients = numpy_gradients(operator, *arrays)
    np.testing.assert_allclose(ours, value, rtol=1e-5, atol=1e-14, equal_nan=True)
    for mine, theirs in zip(our_gradients, gradients, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-8, equal_nan=True)


@pytest.mark.parametrize("name", BINARY)
def test_a_tangent_of_both_arguments_is_the_sum_of_each(name: str) -> None:
    operator = OPERATORS[name]
    a, b, da, db = (sample(seed, 1.0) for seed in range(4))
    value = operator.value(a, b)
    both = operator.derivative(value, a, b, da, db)
    first = operator.derivative(value, a, b, da, None)
    second = operator.derivative(value, a, b, None, db)
    np.testing.assert_allclose(both, first + second, rtol=1e-9, atol=1e-12)


def test_parity_and_commutativity_are_true() -> None:
    x, y = sample(0, 2.0), sample(1, 2.0)
    for operator in OPERATORS.values():
        if operator.parity:
            np.testing.assert_allclose(operator.value(-x), operator.parity * operator.value(x))
        if operator.commutative:
            np.testing.assert_allclose(operator.value(x, y), operator.value(y, x))


@pytest.mark.parametrize(
    ("name", "points", "values", "slopes"),
    [  # by hand
        ("Inv", [2.0, -0.5, 1e-6], [0.5, -2.0, 1e6], [-0.25, -4.0, -1e12]),
        (
            "SLog",
            [math.e, -math.e, 0.1, -0.1, 0.0],
            [1.0, -1.0, math.log(0.1), -math.log(0.1), 0.0],
            [1 / math.e, 1 / math.e, 10.0, 10.0, 0.0],
        ),
        ("SSqrt", [4.0, -4.0, 0.25, 0.0], [2.0, -2.0, 0.5, 0.0], [0.25, 0.25, 1.0, 0.0]),
        ("Square", [3.0, -3.0, 0.0], [9.0, 9.0, 0.0], [6.0, -6.0, 0.0]),
    ],
)
def test_sign_safe_operators_have_their_values_and_slopes(
    name: str, points: list[float], values: list[float], slopes: list[float]
) -> None:
    x = np.array([points])
    for value, (slope,) in (
        torch_pass(OPERATORS[name], x),
        numpy_gradients(OPERATORS[name], x),
    ):
        np.testing.assert_allclose(value[0], values, rtol=3e-6)
        np.testing.assert_allclose(slope[0], slopes, rtol=3e-6)


@pytest.mark.parametrize("name", SIGN_SAFE.split())
def test_sign_safe_operators_are_finite_for_every_sign(name: str) -> None:
    x = np.array([[-1e6, -1.0, -1e-9, 0.0, 1e-9, 1.0, 1e6]])
    value, (slope,) = torch_pass(OPERATORS[name], x)
    assert np.isfinite(value).all()
    assert np.isfinite(slope).all()
    step = 1e-5  # the slope is that of the value, where the point is not next to the bend
    for point in (-50.0, -1.0, -0.1, 0.1, 1.0, 50.0):
        around = OPERATORS[name].value(np.array([[point - step, point + step]]))[0]
        _, (slope,) = torch_pass(OPERATORS[name], np.array([[point]]))
        np.testing.assert_allclose(slope[0, 0], np.diff(around)[0] / (2 * step), rtol=1e-6)


def test_the_mean_over_classes_keeps_the_shape() -> None:
    x = np.array([[1.0, 2.0, 6.0], [0.0, -3.0, 0.0]])
    value, (slope,) = torch_pass(OPERATORS["MeanClasses"], x)
    np.testing.assert_allclose(value, [[3.0, 3.0, 3.0], [-1.0, -1.0, -1.0]])
    np.testing.assert_allclose(slope, np.ones((2, 3)))  # of the sum: each entry counts once
    np.testing.assert_allclose(OPERATORS["MeanClasses"].value(x), value)


def test_the_reference_guards_are_kept() -> None:
    value, (gradient,) = torch_pass(OPERATORS["Exp"], np.array([[88.0, 89.0, 1e30]]))
    assert np.allclose(value, np.exp(88.0), rtol=1e-12)
    assert gradient[0, 1] == gradient[0, 2] == 0.0
    zero, one = np.zeros((1, 1)), np.ones((1, 1))
    assert OPERATORS["Div"].value(one, zero)[0, 0] == pytest.approx(1e20)
    assert OPERATORS["Log"].value(zero)[0, 0] == pytest.approx(np.log(1e-20))
    with np.errstate(all="ignore"):
        assert np.isnan(OPERATORS["Sqrt"].value(-one)[0, 0])
        assert np.isnan(OPERATORS["Log"].value(-one)[0, 0])


@pytest.mark.parametrize(
    ("name", "kinds", "result"),
    [
        ("Add", (Kind.SCALAR, Kind.PER_ROW), Kind.PER_ROW),
        ("Add", (Kind.SCALAR, Kind.SCALAR), Kind.SCALAR),
        ("Mul", (Kind.PER_CLASS, Kind.SCALAR), Kind.PER_CLASS),
        ("Mul", (Kind.PER_CLASS, Kind.PER_ROW), None),
        ("Sin", (Kind.PER_ROW,), Kind.PER_ROW),
        ("Softmax", (Kind.PER_CLASS,), Kind.PER_CLASS),
        ("Softmax", (Kind.PER_ROW,), None),
        ("Softmax", (Kind.SCALAR,), None),
        ("MeanClasses", (Kind.PER_CLASS,), Kind.PER_CLASS),
        ("MeanClasses", (Kind.PER_ROW,), None),
        ("SLog", (Kind.PER_ROW,), Kind.PER_ROW),
        ("Dot", (Kind.PER_CLASS, Kind.PER_CLASS), Kind.PER_ROW),
        ("Dot", (Kind.SCALAR, Kind.PER_CLASS), Kind.PER_ROW),
        ("Dot", (Kind.SCALAR, Kind.SCALAR), None),
        ("Dot", (Kind.PER_ROW, Kind.PER_CLASS), None),
    ],
)
def test_kind_rules(name: str, kinds: tuple[Kind, ...], result: Kind | None) -> None:
    assert OPERATORS[name].kind(kinds) is result
