"""Variation of expressions: mutation, hoist and crossover, closed over kinds and limits."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from primitives.errors import SpaceError
from primitives.expression import (
    MAX_DEPTH,
    MAX_NODES,
    Expression,
    Node,
    call_node,
    constant_node,
    input_node,
)
from primitives.growth import grow_node
from primitives.operators import Kind

Path = tuple[int, ...]

CONSTANT_DIGITS = 4  # significant ones of a constant that was moved: people are to read it

_MIN_GROWN = 3  # nodes that a grown subtree may need: Dot(leaf,leaf)


def mutate_subtree(
    expression: Expression,
    rng: np.random.Generator,
    *,
    max_depth: int = 4,
    max_size: int = MAX_NODES,
) -> Expression:
    """Replace a random subtree by a grown one of at most `max_depth` levels.

    The new subtree has any kind that is well typed in its place. The result has at most `max_size`
    nodes; where no new subtree fits, the expression itself comes back.
    """
    root, space = expression.root, expression.space
    paths = list(_paths(root))
    path = paths[int(rng.integers(len(paths)))]
    room = MAX_DEPTH - len(path)
    free = min(max_size, MAX_NODES) - root.size + _node_at(root, path).size
    kinds = [
        kind
        for kind in _kinds_allowed(root, path, space.root)
        if free >= _MIN_GROWN and space.min_depth.get(kind, MAX_DEPTH + 1) <= room
    ]
    if not kinds:
        return expression
    kind = _draw_kind(expression, kinds, rng)
    low = space.min_depth[kind]
    depth = int(rng.integers(low, max(low, min(max_depth, room)) + 1))
    new = grow_node(space, kind, depth, rng, max_size=free)
    return Expression(_replaced(root, path, new), space)


def mutate_point(expression: Expression, rng: np.random.Generator) -> Expression:
    """Replace one random node by another of the same arity, the rest stays.

    An operator becomes another operator that fits the kinds, a leaf another input or constant.
    Where no node of the expression has an alternative, the expression itself comes back.
    """
    root, space = expression.root, expression.space
    paths = list(_paths(root))
    for index in rng.permutation(len(paths)):
        path = paths[int(index)]
        old = _node_at(root, path)
        allowed = _kinds_allowed(root, path, space.root)
        others = [node for node in _alternatives(old, expression) if node.kind in allowed]
        if others:
            new = others[int(rng.integers(len(others)))]
            return Expression(_replaced(root, path, new), space)
    return expression


def hoist(expression: Expression, rng: np.random.Generator) -> Expression:
    """Replace a random subtree by a random part of itself: the expression shrinks.

    Kinds are kept, so the root's kind is too. Where nothing can shrink, the expression comes back.
    """
    root, space = expression.root, expression.space
    paths = [path for path in _paths(root) if _node_at(root, path).children]
    for index in rng.permutation(len(paths)):
        path = paths[int(index)]
        subtree = _node_at(root, path)
        allowed = _kinds_allowed(root, path, space.root)
        parts = [
            part
            for inner in _paths(subtree)
            if inner and (part := _node_at(subtree, inner)).kind in allowed
        ]
        if parts:
            new = parts[int(rng.integers(len(parts)))]
            return Expression(_replaced(root, path, new), space)
    return expression


def mutate_constants(
    expression: Expression, rng: np.random.Generator, *, sigma: float = 0.3
) -> Expression:
    """Move every constant a little: each is multiplied by `exp(sigma * n)`, n a normal number.

    A constant keeps its sign; zero, which no factor moves, becomes `sigma * n`. They are rounded to
    `CONSTANT_DIGITS` significant digits, and are no more those of the space. Where there is none,
    the expression itself comes back.

    Args:
        sigma: spread in the logarithm, above 0.
    """
    root = expression.root
    for path in [path for path in _paths(root) if _node_at(root, path).value is not None]:
        value = _node_at(root, path).value
        assert value is not None
        step = sigma * float(rng.standard_normal())
        moved = value * math.exp(step) if value else step
        root = _replaced(root, path, constant_node(_rounded_constant(moved)))
    return Expression(root, expression.space)


def insert_constant(
    expression: Expression,
    rng: np.random.Generator,
    *,
    sigma: float = 0.3,
    max_size: int = MAX_NODES,
) -> Expression:
    """Put a constant beside a random part: a factor near 1, or a summand near 0.

    Where the space has neither `Mul` nor `Add`, or the tree would be too large, the expression
    itself comes back.

    Args:
        sigma: spread of the factor's logarithm, and of the summand; above 0.
    """
    root, space = expression.root, expression.space
    names = [name for name in ("Mul", "Add") if name in space.table]
    paths = list(_paths(root))
    path = paths[int(rng.integers(len(paths)))]
    part = _node_at(root, path)
    too_large = root.size + 2 > max_size or len(path) + 1 + part.depth > MAX_DEPTH
    if not names or too_large:
        return expression
    name = names[int(rng.integers(len(names)))]
    step = sigma * float(rng.standard_normal())
    constant = constant_node(_rounded_constant(math.exp(step) if name == "Mul" else step))
    new = call_node(space.table[name], constant, part)
    return Expression(_replaced(root, path, new), space)


def crossover(
    a: Expression,
    b: Expression,
    rng: np.random.Generator,
    *,
    max_size: int = MAX_NODES,
) -> Expression:
    """One-point crossover: a random subtree of `a` is replaced by a random subtree of `b`.

    Only subtrees whose kind and size fit are drawn; the result has at most `max_size` nodes. Where
    none fits anywhere, `a` comes back.

    Raises:
        SpaceError: the expressions are of different spaces.
    """
    if a.space != b.space:
        raise SpaceError("name", b.space.name, f"cannot be crossed with {a.space.name}")
    root, space = a.root, a.space
    donors = [_node_at(b.root, path) for path in _paths(b.root)]
    paths = list(_paths(root))
    for index in rng.permutation(len(paths)):
        path = paths[int(index)]
        allowed = _kinds_allowed(root, path, space.root)
        free = min(max_size, MAX_NODES) - root.size + _node_at(root, path).size
        fitting = [
            donor
            for donor in donors
            if donor.kind in allowed and donor.size <= free and donor.depth <= MAX_DEPTH - len(path)
        ]
        if fitting:
            new = fitting[int(rng.integers(len(fitting)))]
            return Expression(_replaced(root, path, new), space)
    return a


def _rounded_constant(value: float) -> float:
    return float(f"{value:.{CONSTANT_DIGITS}g}")


def _paths(node: Node, at: Path = ()) -> Iterator[Path]:
    yield at
    for index, child in enumerate(node.children):
        yield from _paths(child, (*at, index))


def _draw_kind(expression: Expression, kinds: list[Kind], rng: np.random.Generator) -> Kind:
    """A kind for a grown subtree; a constant as often as any other node at its top."""
    space = expression.space
    others = [kind for kind in kinds if kind is not Kind.SCALAR]
    constants = len(space.constants) if len(others) < len(kinds) else 0
    if (
        not others
        or rng.random() * (constants + len(space.inputs) + len(space.operators)) < constants
    ):
        return Kind.SCALAR
    return others[int(rng.integers(len(others)))]


def _node_at(root: Node, path: Path) -> Node:
    for index in path:
        root = root.children[index]
    return root


def _replaced(root: Node, path: Path, new: Node) -> Node:
    if not path:
        return new
    assert root.operator is not None
    children = list(root.children)
    children[path[0]] = _replaced(children[path[0]], path[1:], new)
    return call_node(root.operator, *children)


def _kinds_allowed(root: Node, path: Path, wanted: Kind) -> list[Kind]:
    """The kinds that a subtree at `path` may have so that the whole is still of kind `wanted`."""
    above = [root]
    for index in path:
        above.append(above[-1].children[index])
    return [kind for kind in Kind if _kind_above(above, path, kind) is wanted]


def _kind_above(above: list[Node], path: Path, kind: Kind) -> Kind | None:
    current: Kind | None = kind
    for node, index in zip(reversed(above[:-1]), reversed(path), strict=True):
        if current is None or node.operator is None:
            return None
        kinds = [child.kind for child in node.children]
        kinds[index] = current
        current = node.operator.kind(kinds)
    return current


def _alternatives(old: Node, expression: Expression) -> list[Node]:
    space = expression.space
    if old.operator is None:
        leaves = [input_node(item.name, item.kind) for item in space.inputs]
        leaves += [constant_node(value) for value in space.constants]
        return [leaf for leaf in leaves if leaf != old]
    kinds = [child.kind for child in old.children]
    return [
        call_node(operator, *old.children)
        for operator in space.table.values()
        if operator is not old.operator
        and operator.arity == old.operator.arity
        and operator.kind(kinds) is not None
    ]
