"""Search spaces as data: the built-in ones, JSON both ways, and clear refusals."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from primitives import (
    OPERATORS,
    SPACES,
    Input,
    Kind,
    PrimitivesError,
    SearchSpace,
    SpaceError,
    evaluate,
    grow,
    parse,
)

OWN = {
    "name": "own-rows",
    "inputs": {"d": "per_row", "logit_1": "per_class"},
    "constants": [0.5, 2],
    "operators": ["Add", "Mul", "Dot", "Exp"],
    "root": "per_row",
}


def test_built_in_spaces_are_those_of_the_paper() -> None:
    assert list(SPACES)[:3] == ["multi_cls", "binary_cls", "box"]
    multi, binary, box = list(SPACES.values())[:3]
    assert [len(space.operators) for space in (multi, binary, box)] == [20, 19, 15]
    assert "Dot" not in binary.operators
    assert not {"Softmax", "Sgdf", "Salf", "Serf", "Dot"} & set(box.operators)
    assert [item.name for item in binary.inputs] == ["X", "Q", "PY", "NY"]
    assert (multi.root, binary.root, box.root) == (Kind.PER_ROW, Kind.PER_CLASS, Kind.PER_ROW)
    assert {space.constants for space in (multi, binary, box)} == {(1.0, 2.0, 3.0)}


def test_the_spaces_of_autoloss_zero_have_its_leaves_and_operators() -> None:
    elementwise = {
        *("Add", "Mul", "Neg", "Abs", "Inv", "SLog", "Exp", "Tanh", "Square", "SSqrt"),
    }
    multi, binary, box = (
        SPACES[f"autoloss_zero_{name}"] for name in ("multi_cls", "binary_cls", "box")
    )
    assert set(box.operators) == elementwise
    assert set(multi.operators) == elementwise | {"MeanClasses", "Softmax", "Dot"}
    assert set(binary.operators) == elementwise | {"MeanClasses", "Sig"}
    assert [list(space.kinds) for space in (multi, binary, box)] == [
        ["X", "Y"],
        ["X", "PY"],
        ["U", "I", "E"],
    ]
    for space, like in ((multi, "multi_cls"), (binary, "binary_cls"), (box, "box")):
        assert space.root is SPACES[like].root
        assert space.constants == (1.0,)
        assert space.kinds.items() <= SPACES[like].kinds.items()  # what the losses provide


@pytest.mark.parametrize("name", SPACES)
def test_json_round_trip(name: str) -> None:
    space = SPACES[name]
    text = json.dumps(space.to_json())
    again = SearchSpace.from_json(json.loads(text))
    assert again == space
    assert hash(again) == hash(space)
    assert pickle.loads(pickle.dumps(space)) == space


def test_an_own_space_parses_evaluates_and_grows() -> None:
    space = SearchSpace.from_json(OWN)
    expression = parse("Mul(d,Dot(logit_1,0.5))", space)
    values = {"d": np.array([1.0, 2.0]), "logit_1": np.ones((2, 3))}
    np.testing.assert_allclose(evaluate(expression, values, {})[0], [1.5, 3.0])
    rng = np.random.default_rng(0)
    assert all(grow(space, rng).space == space for _ in range(200))
    assert space.to_json() == OWN


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "", "name of letters"),
        ("name", "a b", "name of letters"),
        ("name", 3, "name of letters"),
        ("inputs", {}, "at least one input"),
        ("inputs", ["X"], "must be an object"),
        ("inputs", {"1x": "per_row"}, "must be an identifier"),
        ("inputs", {"é": "per_row"}, "must be an identifier"),
        ("inputs", {"x\n": "per_row"}, "must be an identifier"),
        ("inputs", {"Add": "per_row"}, "name of an operator"),
        ("inputs", {"X": "scalar"}, "must be per_row or per_class"),
        ("inputs", {"X": 1}, "must be per_row or per_class"),
        ("constants", 1, "must be a list"),
        ("constants", [float("inf")], "finite"),
        ("constants", [float("nan")], "finite"),
        ("constants", [10**400], "finite"),
        ("constants", ["1"], "finite"),
        ("constants", [True], "finite"),
        ("constants", [1, 1.0], "given twice"),
        ("operators", [], "at least one operator"),
        ("operators", "Add", "must be a list"),
        ("operators", ["Pow"], "unknown operator; known are Add"),
        ("operators", [["Add"]], "unknown operator"),
        ("operators", ["Add", "Add"], "named twice"),
        ("root", "scalar", "must be per_row or per_class"),
        ("root", ["per_row"], "must be per_row or per_class"),
    ],
)
def test_refusals_name_the_field(field: str, value: Any, message: str) -> None:
    data: dict[str, Any] = copy.deepcopy(OWN)
    data[field] = value
    with pytest.raises(SpaceError, match=message) as caught:
        SearchSpace.from_json(data)
    assert caught.value.field.split(".")[0] == field


def test_missing_and_unknown_fields() -> None:
    with pytest.raises(SpaceError, match=r"constants.*is missing"):
        SearchSpace.from_json({key: value for key, value in OWN.items() if key != "constants"})
    with pytest.raises(SpaceError, match="unknown field"):
        SearchSpace.from_json({**OWN, "rooot": "per_row"})
    with pytest.raises(SpaceError, match="must be an object"):
        SearchSpace.from_json([1])  # type: ignore[arg-type]


def test_a_root_out_of_reach_is_refused() -> None:
    with pytest.raises(SpaceError, match="no expression of this kind"):
        SearchSpace.from_json({**OWN, "inputs": {"X": "per_class"}, "operators": ["Add"]})
    with pytest.raises(SpaceError, match="no expression of this kind"):
        SearchSpace.from_json({**OWN, "inputs": {"d": "per_row"}, "root": "per_class"})


def test_duplicate_inputs_are_refused() -> None:
    twice = (Input("X", Kind.PER_ROW), Input("X", Kind.PER_CLASS))
    with pytest.raises(SpaceError, match="named twice"):
        SearchSpace("s", twice, (), ("Add",), Kind.PER_ROW)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(list(OWN)), JSON))
@settings(max_examples=500, derandomize=True, deadline=None)
def test_any_json_is_a_space_or_refused(changes: dict[str, Any]) -> None:
    try:
        space = SearchSpace.from_json({**OWN, **changes})
    except PrimitivesError as error:
        str(error)
    else:
        assert SearchSpace.from_json(space.to_json()) == space


def test_operators_are_kept_in_the_given_order() -> None:
    names = list(reversed(OPERATORS))
    space = SearchSpace.from_json({**OWN, "operators": names})
    assert list(space.table) == names
