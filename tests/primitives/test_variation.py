"""Growth and variation: always well typed and within limits, reproducible, and not stuck."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from primitives import (
    MAX_DEPTH,
    MAX_NODES,
    SPACES,
    Expression,
    SearchSpace,
    SpaceError,
    crossover,
    grow,
    hoist,
    insert_constant,
    mutate_constants,
    mutate_point,
    mutate_subtree,
    parse,
)

BARE = SearchSpace.from_json(  # no leaf of the root's kind, no constants
    {
        "name": "bare",
        "inputs": {"X": "per_class"},
        "constants": [],
        "operators": ["Dot", "Add", "Softmax"],
        "root": "per_row",
    }
)
MIXED = SearchSpace.from_json(
    {
        "name": "mixed",
        "inputs": {"X": "per_class", "w": "per_row"},
        "constants": [-0.5, 10],
        "operators": ["Dot", "Sub", "Mul", "Exp", "Softmax"],
        "root": "per_row",
    }
)
ALL_SPACES = [*SPACES.values(), BARE, MIXED]
SPACE = st.sampled_from(ALL_SPACES)
SEED = st.integers(0, 2**32)
Variation = Callable[[Expression, np.random.Generator], Expression]
VARIATIONS: list[Variation] = [
    mutate_subtree,
    mutate_point,
    hoist,
    lambda expression, rng: crossover(expression, grow(expression.space, rng), rng),
    insert_constant,
    lambda expression, rng: mutate_constants(insert_constant(expression, rng), rng),
]
PROPERTY = settings(max_examples=400, derandomize=True, deadline=None)


def check_closed(expression: Expression, space: SearchSpace) -> None:
    assert expression.space == space
    assert expression.size <= MAX_NODES
    assert expression.depth <= MAX_DEPTH
    assert expression.root.kind is space.root
    assert parse(str(expression), space) == expression  # the parser checks kinds again


@given(SEED, SPACE, st.integers(1, 12), st.integers(0, 52))
@PROPERTY
def test_growth_is_closed(seed: int, space: SearchSpace, low: int, more: int) -> None:
    expression = grow(space, np.random.default_rng(seed), low, low + more)
    check_closed(expression, space)
    assert expression.depth <= max(low + more, space.min_depth[space.root])


@pytest.mark.parametrize("space", ALL_SPACES, ids=lambda space: space.name)
def test_deep_growth_stops_at_the_largest_size(space: SearchSpace) -> None:
    sizes = []
    for seed in range(30):
        expression = grow(space, np.random.default_rng(seed), 40, 64)
        check_closed(expression, space)
        sizes.append(expression.size)
    assert max(sizes) > 400


def test_growth_reaches_every_depth_operator_and_leaf() -> None:
    for space in SPACES.values():
        rng = np.random.default_rng(0)
        drawn = [grow(space, rng, 2, 6) for _ in range(2000)]
        assert {expression.depth for expression in drawn} == {2, 3, 4, 5, 6}
        text = "".join(map(str, drawn))
        for name in (*space.operators, *space.kinds, *map("{:g}".format, space.constants)):
            assert name in text


def test_growth_refuses_a_wrong_range() -> None:
    for low, high in ((0, 3), (4, 3), (2, 65)):
        with pytest.raises(ValueError, match="min_depth"):
            grow(SPACES["box"], np.random.default_rng(0), low, high)


@given(SEED, SPACE, st.sampled_from(range(len(VARIATIONS))), st.integers(1, 64))
@PROPERTY
def test_variation_is_closed(seed: int, space: SearchSpace, index: int, depth: int) -> None:
    rng = np.random.default_rng(seed)
    expression = grow(space, rng, min(depth, 3), depth)
    before = str(expression)
    child = expression
    for _ in range(5):
        child = VARIATIONS[index](child, rng)
        check_closed(child, space)
    assert str(expression) == before  # the parent is untouched


@pytest.mark.parametrize("space", ALL_SPACES, ids=lambda space: space.name)
def test_long_evolution_stays_within_limits(space: SearchSpace) -> None:
    rng = np.random.default_rng(5)
    population = [grow(space, rng) for _ in range(10)]
    for _ in range(400):
        a, b = (population[int(i)] for i in rng.integers(10, size=2))
        child = VARIATIONS[int(rng.integers(len(VARIATIONS)))](crossover(a, b, rng), rng)
        check_closed(child, space)
        population[int(rng.integers(10))] = child


@given(SEED, SPACE)
@PROPERTY
def test_sizes_asked_for_are_kept(seed: int, space: SearchSpace) -> None:
    rng = np.random.default_rng(seed)
    a, b = grow(space, rng, 2, 6), grow(space, rng, 2, 6)
    for limit in (5, 20):
        for child, old in (
            (mutate_subtree(a, rng, max_size=limit), a),
            (crossover(a, b, rng, max_size=limit), a),
        ):
            assert child == old or child.size <= limit


@pytest.mark.parametrize("index", range(len(VARIATIONS)))
def test_variation_is_a_function_of_its_generator(index: int) -> None:
    expression = grow(SPACES["multi_cls"], np.random.default_rng(1), 4, 6)
    results = [str(VARIATIONS[index](expression, np.random.default_rng(7))) for _ in range(3)]
    assert len(set(results)) == 1


@pytest.mark.parametrize("index", range(len(VARIATIONS)))
@pytest.mark.parametrize("space", SPACES.values(), ids=lambda space: space.name)
def test_variation_changes_things(index: int, space: SearchSpace) -> None:
    rng = np.random.default_rng(2)
    changed = [
        VARIATIONS[index](expression, rng) != expression
        for expression in (grow(space, rng, 3, 6) for _ in range(200))
    ]
    assert np.mean(changed) > 0.8


def test_point_mutation_changes_one_node() -> None:
    rng = np.random.default_rng(3)
    expression = parse("Neg(Dot(Mul(Y,Add(1,Sin(Z))),Log(Softmax(X))))", "multi_cls")
    for _ in range(300):
        other = mutate_point(expression, rng)
        assert other.size == expression.size
        words = [str(e).replace("(", " ").replace(")", " ").replace(",", " ").split()
                 for e in (expression, other)]  # fmt: skip
        assert sum(a != b for a, b in zip(*words, strict=True)) == 1


def test_point_mutation_keeps_to_the_spaces_constants() -> None:
    rng = np.random.default_rng(3)
    expression = parse("Add(X,0.123)", "binary_cls")
    seen = Counter(str(mutate_point(expression, rng)) for _ in range(500))
    assert {"Add(X,1)", "Add(X,2)", "Add(X,3)", "Mul(X,0.123)", "Add(Q,0.123)"} <= set(seen)


def test_hoist_shrinks() -> None:
    rng = np.random.default_rng(4)
    expression = grow(SPACES["multi_cls"], rng, 6, 6)
    while expression.size > 3:
        smaller = hoist(expression, rng)
        assert smaller.size < expression.size
        expression = smaller
    assert str(expression).startswith("Dot(")
    assert hoist(expression, rng) == expression
    leaf = parse("X", "binary_cls")
    assert hoist(leaf, rng) == leaf


def test_crossover_takes_from_both_and_refuses_other_spaces() -> None:
    rng = np.random.default_rng(5)
    a, b = parse("Add(X,Sin(Q))", "binary_cls"), parse("Mul(PY,Cos(NY))", "binary_cls")
    children = {str(crossover(a, b, rng)) for _ in range(300)}
    assert "Add(X,Cos(NY))" in children
    assert "Add(X,Sin(PY))" in children
    with pytest.raises(SpaceError):
        crossover(a, parse("U", "box"), rng)


def test_a_space_with_one_expression_varies_into_itself() -> None:
    only = SearchSpace.from_json(
        {
            "name": "only",
            "inputs": {"X": "per_class"},
            "constants": [],
            "operators": ["Dot"],
            "root": "per_row",
        }
    )
    rng = np.random.default_rng(0)
    expression = grow(only, rng)
    assert str(expression) == "Dot(X,X)"
    for variation in VARIATIONS:
        assert variation(expression, rng) == expression


def test_constants_move_by_a_normal_step_in_the_logarithm() -> None:
    expression = parse("Mul(2,Sub(-3,Div(I,U)))", "box")
    rng = np.random.default_rng(0)
    moved = [mutate_constants(expression, rng, sigma=0.2) for _ in range(2000)]
    values = np.array([[step.node.value for step in m.program if step.node.value] for m in moved])
    assert values.shape == (2000, 2)
    for column, value in zip(values.T, (2.0, -3.0), strict=True):
        steps = np.log(column / value)  # signs are kept
        assert abs(steps.mean()) < 0.02
        assert steps.std() == pytest.approx(0.2, rel=0.1)
    assert abs(np.corrcoef(np.log(np.abs(values.T)))[0, 1]) < 0.1
    assert all(str(m).startswith("Mul(") and str(m).endswith("Div(I,U)))") for m in moved)


def test_zero_moves_too_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    moved = mutate_constants(parse("Add(0,I)", "box"), rng)
    assert moved.root.children[0].value != 0.0
    plain = parse("Div(I,U)", "box")
    assert mutate_constants(plain, rng) == plain


def test_a_constant_is_put_in_anywhere() -> None:
    expression = parse("Div(I,U)", "box")
    rng = np.random.default_rng(0)
    found = [insert_constant(expression, rng) for _ in range(300)]
    assert {each.size for each in found} == {5}
    shapes = Counter(re.sub(r"-?[0-9][0-9.e-]*", "c", str(each)) for each in found)
    parts = ("{}(c,Div(I,U))", "Div({}(c,I),U)", "Div(I,{}(c,U))")
    assert set(shapes) == {part.format(name) for part in parts for name in ("Mul", "Add")}
    assert min(shapes.values()) > 25


def test_a_constant_is_put_in_only_where_there_is_room_and_an_operator() -> None:
    rng = np.random.default_rng(0)
    small = parse("Div(I,U)", "box")
    assert insert_constant(small, rng, max_size=4) == small
    deep = parse("Neg(" * (MAX_DEPTH - 1) + "I" + ")" * (MAX_DEPTH - 1), "box")
    assert deep.depth == MAX_DEPTH
    assert insert_constant(deep, rng) == deep
    bare = SearchSpace.from_json({**BARE.to_json(), "operators": ["Dot", "Softmax"]})
    without = parse("Dot(X,Softmax(X))", bare)
    assert insert_constant(without, rng) == without
