"""`to_torch` and `evaluate`: they agree, keep dtypes, share subtrees, and refuse wrong shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from primitives import (
    SPACES,
    Evaluator,
    Expression,
    InputError,
    Kind,
    Node,
    SpaceError,
    evaluate,
    grow,
    parse,
    to_torch,
)
from primitives.operators import OPERATORS

torch.set_num_threads(1)
SPACE_NAMES = st.sampled_from(sorted(SPACES))


def draw_values(expression: Expression, seed: int, rows: int = 7) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        item.name: rng.normal(0.5, 1.5, (rows, 4) if item.kind is Kind.PER_CLASS else rows)
        for item in expression.space.inputs
    }


def torch_value_and_derivative(
    expression: Expression, values: dict[str, np.ndarray], tangents: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Value, and the derivative along the tangents by a second reverse pass."""
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in values.items()}
    result = to_torch(expression)(**tensors)
    seed = torch.zeros_like(result, requires_grad=True)
    grads = torch.autograd.grad(
        result, list(tensors.values()), seed, create_graph=True, allow_unused=True
    )
    dot = sum(
        (grad * torch.tensor(tangents[name])).sum()
        for name, grad in zip(tensors, grads, strict=True)
        if grad is not None and name in tangents
    )
    if not isinstance(dot, torch.Tensor) or not dot.requires_grad:
        return result.detach().numpy(), np.zeros(result.shape)
    (derivative,) = torch.autograd.grad(dot, seed)
    return result.detach().numpy(), derivative.numpy()


def steepness(node: Node, values: dict[str, np.ndarray]) -> tuple[np.ndarray, float]:
    """The node's value, and the largest argument of an S-shaped curve in the tree below."""
    if node.operator is None:
        return (np.float64(node.value) if node.name is None else values[node.name]), 0.0
    found = [steepness(child, values) for child in node.children]
    arguments = [value for value, _ in found]
    largest = max(size for _, size in found)
    with np.errstate(all="ignore"):
        if node.operator.name in ("Sgdf", "Salf", "Serf", "Sig", "Tanh"):
            largest = max(largest, float(np.nanmax(np.abs(arguments[0]), initial=0.0)))
        return node.operator.value(*arguments), largest


@given(st.integers(0, 2**32), SPACE_NAMES)
@settings(max_examples=600, derandomize=True, deadline=None)
def test_numpy_agrees_with_torch_and_autograd(seed: int, space: str) -> None:
    rng = np.random.default_rng(seed)
    expression = grow(SPACES[space], rng, 1, 6)
    values = draw_values(expression, seed)
    chosen = [name for name in values if rng.random() < 0.6]
    tangents = {name: rng.normal(size=values[name].shape) for name in chosen}
    value, derivative = evaluate(expression, values, tangents)
    wanted, slope = torch_value_and_derivative(expression, values, tangents)
    assert value.shape == derivative.shape == wanted.shape
    np.testing.assert_allclose(value, wanted, rtol=1e-6, atol=1e-9, equal_nan=True)
    # where something is infinite, forward and reverse mode may meet 0 * inf in different places
    both = np.isfinite(derivative) & np.isfinite(slope) & np.isfinite(wanted)
    both &= np.abs(slope) < 1e12
    # autograd takes a saturated curve's slope from 1 - tanh(x)**2, all rounding beyond |x| = 12
    rtol = 1e-5 if steepness(expression.root, values)[1] < 12 else 1e-2
    np.testing.assert_allclose(derivative[both], slope[both], rtol=rtol, atol=1e-6)


def test_most_random_expressions_have_comparable_derivatives() -> None:
    """The comparison above is not empty: most entries are finite."""
    rng = np.random.default_rng(0)
    shares = []
    for seed in range(200):
        expression = grow(SPACES["binary_cls"], rng)
        values = draw_values(expression, seed)
        _, derivative = evaluate(expression, values, {"X": np.ones((7, 4))})
        shares.append(np.isfinite(derivative).mean())
    assert np.mean(shares) > 0.7


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("text", "space"),
    [
        ("Neg(Dot(Mul(Y,Add(1,Sin(Z))),Log(Softmax(X))))", "multi_cls"),
        ("Mul(Add(X,Exp(88)),Div(3,Sqrt(-1)))", "binary_cls"),
        ("Add(0.1,Div(I,Add(U,Exp(Add(1,2)))))", "box"),
    ],
)
def test_constants_change_no_dtype(text: str, space: str, dtype: torch.dtype) -> None:
    expression = parse(text, space)
    tensors = {
        name: torch.tensor(value, dtype=dtype, requires_grad=True)
        for name, value in draw_values(expression, 1).items()
    }
    result = to_torch(expression)(**tensors)
    assert result.dtype is dtype
    result.sum().backward()
    assert all(
        tensors[name].grad is not None and tensors[name].grad.dtype is dtype
        for name in expression.inputs
    )


def test_integer_labels_take_the_dtype_of_the_float_inputs() -> None:
    function = to_torch(parse("Mul(PY,Add(X,1))", "binary_cls"))
    x = torch.ones(2, 3, dtype=torch.float16)
    assert function(X=x, PY=torch.ones(2, 3, dtype=torch.int64)).dtype is torch.float16
    assert function(X=x, PY=torch.ones(2, 3, dtype=torch.bool)).dtype is torch.float16
    alone = to_torch(parse("Div(PY,2)", "binary_cls"))
    assert alone(PY=torch.ones(2, 3, dtype=torch.int64)).dtype is torch.get_default_dtype()


def test_any_device() -> None:
    function = to_torch(parse("Neg(Dot(Mul(Y,2),Log(Softmax(X))))", "multi_cls"))
    x = torch.empty(5, 3, device="meta")
    assert function(X=x, Y=x).device.type == "meta"
    if torch.cuda.is_available():
        x = torch.rand(5, 3, device="cuda")
        assert function(X=x, Y=x).device.type == "cuda"


def test_shared_subtrees_are_computed_once() -> None:
    expression = parse("Add(Exp(Sin(X)),Mul(Exp(Sin(X)),Exp(Sin(X))))", "binary_cls")
    assert expression.size == 11
    names = [step.node.operator.name for step in expression.program if step.node.operator]
    assert names == ["Sin", "Exp", "Mul", "Add"]
    deep = parse("Add(" * 8 + "X" + ",X)" * 8, "binary_cls")
    assert len(deep.program) == 9


def test_unused_inputs_may_be_left_out() -> None:
    expression = parse("Sig(X)", "binary_cls")
    x = torch.zeros(2, 3)
    assert torch.equal(to_torch(expression)(X=x), torch.full((2, 3), 0.5))
    value, _ = evaluate(expression, {"X": x.numpy()}, {})
    np.testing.assert_array_equal(value, np.full((2, 3), 0.5))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"X": (4, 3)}, "input Y: is used .* not given"),
        ({"X": (4, 3), "Y": (4,)}, r"input Y: has shape \(4,\), expected per class \(N, C\)"),
        ({"X": (4, 3), "Y": (5, 3)}, "input Y: has 5 rows, other inputs have 4"),
        ({"X": (4, 3), "Y": (4, 2)}, r"input Y: has shape \(4, 2\), other inputs have \(4, 3\)"),
        ({"X": (4, 3), "Y": (4, 3), "V": (4, 3)}, "input V: unknown; the inputs are X, Y, Z"),
    ],
)
def test_torch_refuses_wrong_inputs(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    function = to_torch(parse("Dot(X,Y)", "multi_cls"))
    with pytest.raises(InputError, match=message):
        function(**{name: torch.zeros(shape) for name, shape in shapes.items()})


@pytest.mark.parametrize(
    ("values", "tangents", "message"),
    [
        ({"U": (4,)}, {}, "input I: is used but has no value"),
        ({"U": (4,), "I": (4, 1)}, {}, r"input I: has shape \(4, 1\), expected per row"),
        ({"U": (4,), "I": (5,)}, {}, "input I: has 5 rows"),
        ({"U": (4,), "I": (4,), "X": (4,)}, {}, "input X: unknown"),
        ({"U": (4,), "I": (4,)}, {"E": (4,)}, "input E: has a tangent but no value"),
        ({"U": (4,), "I": (4,)}, {"U": (3,)}, r"input U: tangent has shape \(3,\)"),
    ],
)
def test_numpy_refuses_wrong_inputs(
    values: dict[str, tuple[int, ...]], tangents: dict[str, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(
            parse("Div(I,U)", "box"),
            {name: np.zeros(shape) for name, shape in values.items()},
            {name: np.zeros(shape) for name, shape in tangents.items()},
        )


def test_an_evaluator_refuses_another_space() -> None:
    evaluator = Evaluator("box", {"U": np.ones(3)})
    with pytest.raises(SpaceError):
        evaluator(parse("X", "binary_cls"))


def test_results_are_not_views_of_the_inputs() -> None:
    x, dx = np.zeros((2, 2)), np.ones((2, 2))
    value, derivative = evaluate(parse("X", "binary_cls"), {"X": x}, {"X": dx})
    value += 1
    derivative += 1
    assert x.sum() == 0
    assert dx.sum() == 4


def test_a_scalar_tangent_is_broadcast() -> None:
    expression = parse("Mul(X,X)", "binary_cls")
    _, derivative = evaluate(expression, {"X": np.full((2, 2), 3.0)}, {"X": 1.0})
    np.testing.assert_array_equal(derivative, np.full((2, 2), 6.0))


def test_nan_and_infinity_are_kept_without_warnings(recwarn: pytest.WarningsRecorder) -> None:
    values = {"U": np.array([-1.0, 0.0, 4.0]), "I": np.zeros(3)}
    value, derivative = evaluate(parse("Sqrt(U)", "box"), values, {"U": np.ones(3)})
    np.testing.assert_array_equal(value, [np.nan, 0.0, 2.0])
    assert derivative[1] == np.inf
    assert not recwarn.list


def test_no_rows_give_no_rows() -> None:
    expression = parse("Neg(Dot(Y,Log(Softmax(X))))", "multi_cls")
    empty = np.zeros((0, 3))
    value, derivative = evaluate(expression, {"X": empty, "Y": empty}, {"X": empty})
    assert value.shape == derivative.shape == (0,)
    x = torch.zeros(0, 3)
    assert to_torch(expression)(X=x, Y=x).shape == (0,)


def test_every_operator_is_evaluated_somewhere() -> None:
    rng = np.random.default_rng(0)
    seen = {
        step.node.operator.name
        for name in ("multi_cls", "autoloss_zero_multi_cls")
        for _ in range(300)
        for step in grow(SPACES[name], rng, 3, 7).program
        if step.node.operator
    }
    assert seen == set(OPERATORS)
