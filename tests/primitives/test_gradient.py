"""Reverse mode in NumPy: the gradient of a sum, against autograd and against forward mode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from primitives import (
    SPACES,
    Expression,
    Gradient,
    InputError,
    Kind,
    evaluate,
    grow,
    parse,
    to_torch,
)


def draw_values(expression: Expression, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        item.name: rng.normal(0.0, 2.0, (7, 4) if item.kind is Kind.PER_CLASS else 7)
        for item in expression.space.inputs
    }


@given(st.integers(0, 2**32), st.sampled_from(sorted(SPACES)))
@settings(max_examples=600, derandomize=True, deadline=None)
def test_it_agrees_with_autograd(seed: int, space: str) -> None:
    expression = grow(SPACES[space], np.random.default_rng(seed), 1, 6)
    values = draw_values(expression, seed)
    with np.errstate(all="ignore"):
        value, gradients = Gradient(expression, list(values))(values)
    assert set(gradients) == expression.inputs
    tensors = {
        name: torch.tensor(values[name], requires_grad=True) for name in sorted(expression.inputs)
    }
    wanted = to_torch(expression)(**tensors)
    np.testing.assert_allclose(value, wanted.detach().numpy(), rtol=1e-6, equal_nan=True)
    if not torch.isfinite(wanted).all():
        return
    found = torch.autograd.grad(wanted.sum(), list(tensors.values()))
    for name, slope in zip(tensors, found, strict=True):
        assert gradients[name].shape == values[name].shape
        both = np.isfinite(gradients[name]) & torch.isfinite(slope).numpy()
        both &= slope.abs().numpy() < 1e12
        np.testing.assert_allclose(gradients[name][both], slope.numpy()[both], rtol=1e-5, atol=1e-6)


def test_most_random_gradients_are_compared() -> None:
    finite = []
    for seed in range(200):
        expression = grow(SPACES["autoloss_zero_binary_cls"], np.random.default_rng(seed))
        with np.errstate(all="ignore"):
            value, _ = Gradient(expression, ["X"])(draw_values(expression, seed))
        finite.append(np.isfinite(value).all())
    assert np.mean(finite) > 0.7


@pytest.mark.parametrize(
    "text", ["Dot(1,Mul(X,MeanClasses(Mul(X,Y))))", "Dot(Softmax(X),Square(Softmax(Mul(X,Y))))"]
)
def test_what_mixes_classes_agrees_with_forward_mode_entry_by_entry(text: str) -> None:
    expression = parse(text, "autoloss_zero_multi_cls")
    values = draw_values(expression, 3)
    _, gradients = Gradient(expression, ["X", "Y"])(values)
    for name, gradient in gradients.items():
        for column in range(4):
            tangent = np.zeros((7, 4))
            tangent[:, column] = 1.0
            _, slope = evaluate(expression, values, {name: tangent})
            np.testing.assert_allclose(gradient[:, column], slope, rtol=1e-9, atol=1e-12)


def test_only_what_is_asked_for_is_derived_and_the_rest_may_be_missing() -> None:
    expression = parse("Mul(PY,X)", "binary_cls")
    x, py = np.array([[2.0, 3.0]]), np.array([[0.5, -1.0]])
    value, gradients = Gradient(expression, ["X", "Q"])({"X": x, "PY": py})
    np.testing.assert_allclose(value, [[1.0, -3.0]])
    assert list(gradients) == ["X"]
    np.testing.assert_allclose(gradients["X"], py)
    assert Gradient(expression, [])({"X": x, "PY": py})[1] == {}
    with pytest.raises(InputError, match="PY"):
        Gradient(expression, ["X"])({"X": x})


def test_an_input_used_twice_gets_the_sum_and_a_bare_input_ones() -> None:
    x = np.array([[2.0, -3.0]])
    _, gradients = Gradient(parse("Mul(X,X)", "binary_cls"), ["X"])({"X": x})
    np.testing.assert_allclose(gradients["X"], 2 * x)
    _, gradients = Gradient(parse("X", "binary_cls"), ["X"])({"X": x})
    np.testing.assert_allclose(gradients["X"], [[1.0, 1.0]])
