"""Random growth of expressions: ramped half-and-half, closed over a space and its kinds."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from primitives.expression import (
    MAX_DEPTH,
    MAX_NODES,
    Expression,
    Node,
    call_node,
    constant_node,
    input_node,
)
from primitives.operators import Kind, Operator, dot_kind, softmax_kind
from primitives.spaces import SearchSpace


def grow(
    space: SearchSpace,
    rng: np.random.Generator,
    min_depth: int = 2,
    max_depth: int = 6,
) -> Expression:
    """A random expression by ramped half-and-half (Koza 1992).

    A depth is drawn from `min_depth` to `max_depth` (levels; a leaf has depth 1), then every branch
    reaches it ("full"), or branches end at random after `min_depth` ("grow"); each with probability
    1/2. In a call of two arguments one carries the kind and the other may be a constant. Kinds are
    respected while growing, so the result is always well typed and within the language's limits.
    The root's kind may need more levels than drawn (`Dot` in `multi_cls`).
    Nothing forces the prediction's input to occur: verification rejects such a candidate at once.

    Raises:
        ValueError: not 1 <= min_depth <= max_depth <= 64.
    """
    if not 1 <= min_depth <= max_depth <= MAX_DEPTH:
        raise ValueError(f"need 1 <= min_depth <= max_depth <= {MAX_DEPTH}")
    depth = max(int(rng.integers(min_depth, max_depth + 1)), space.min_depth[space.root])
    full = bool(rng.random() < 0.5)
    return Expression(grow_node(space, space.root, depth, rng, full=full, grown=min_depth), space)


def grow_node(
    space: SearchSpace,
    kind: Kind,
    depth: int,
    rng: np.random.Generator,
    *,
    full: bool = False,
    grown: int = 1,
    max_size: int = MAX_NODES,
) -> Node:
    """A random tree of one kind.

    Args:
        kind: what the tree must be; SCALAR gives a constant.
        depth: largest number of levels, at least `space.min_depth[kind]`.
        full: branches end only at the largest depth.
        grown: levels that at least one branch has, where `full` is false.
        max_size: largest number of nodes, at least 3.
    """
    return _Growth(_growth_table(space), rng, full, max_size).node(kind, depth, grown)


_LEAST_DEPTHS = 2  # no kind needs more levels: Dot(leaf,leaf)
_LARGEST_CALL = 4  # nodes that opening a call of two arguments takes from `_Growth.free`


class _GrowthTable:
    """What may be drawn for each kind in one space."""

    def __init__(self, space: SearchSpace) -> None:
        self.min_depth = space.min_depth
        self.constants = [constant_node(value) for value in space.constants]
        self.leaves = {
            kind: [input_node(item.name, kind) for item in space.inputs if item.kind is kind]
            for kind in (Kind.PER_ROW, Kind.PER_CLASS)
        }
        self.calls: dict[Kind, list[tuple[Operator, Kind]]] = {
            Kind.PER_ROW: [],
            Kind.PER_CLASS: [],
        }
        for operator in space.table.values():
            for kind in self.calls:
                wanted = _argument_kind(operator, kind)
                if wanted is not None and wanted in space.min_depth:
                    self.calls[kind].append((operator, wanted))


def _argument_kind(operator: Operator, kind: Kind) -> Kind | None:
    """The kind that an argument must have for a result of `kind`, None where there is none."""
    if operator.kind is softmax_kind:
        return Kind.PER_CLASS if kind is Kind.PER_CLASS else None
    if operator.kind is dot_kind:
        return Kind.PER_CLASS if kind is Kind.PER_ROW else None
    return kind


@lru_cache(maxsize=64)
def _growth_table(space: SearchSpace) -> _GrowthTable:
    return _GrowthTable(space)


class _Growth:
    """One run of growth; `free` nodes are left when every open place takes 3, `Dot(leaf,leaf)`."""

    def __init__(
        self, table: _GrowthTable, rng: np.random.Generator, full: bool, max_size: int
    ) -> None:
        self.table = table
        self.rng = rng
        self.full = full
        self.free = max_size - 3

    def node(self, kind: Kind, depth: int, grown: int) -> Node:
        if kind is Kind.SCALAR:
            return self._drawn(self.table.constants)
        leaves = self.table.leaves[kind]
        calls = self._calls(kind, depth)
        total = len(leaves) + len(calls)
        may_end = not calls or (grown <= 1 and not self.full)
        if leaves and may_end and self.rng.random() * total < len(leaves):
            self.free += 2
            return self._drawn(leaves)
        operator, wanted = calls[int(self.rng.integers(len(calls)))]
        self.free -= 3 * operator.arity - 2
        if operator.arity == 1:
            return call_node(operator, self.node(wanted, depth - 1, grown - 1))
        main = int(self.rng.integers(2))
        first, second = (
            self.node(wanted, depth - 1, grown - 1)
            if place == main
            else self._side(wanted, depth - 1)
            for place in range(2)
        )
        return call_node(operator, first, second)

    def _side(self, kind: Kind, depth: int) -> Node:
        """The argument that need not carry the kind: a constant as often as any other leaf."""
        constants, leaves = len(self.table.constants), len(self.table.leaves[kind])
        calls = 0 if leaves and depth == 1 else len(self._calls(kind, depth))
        may_end = not (self.full and depth > self.table.min_depth[kind])
        if may_end and self.rng.random() * (constants + leaves + calls) < constants:
            self.free += 2
            return self._drawn(self.table.constants)
        return self.node(kind, depth, 1)

    def _calls(self, kind: Kind, depth: int) -> list[tuple[Operator, Kind]]:
        """The calls that fit the depth and the nodes left; never none where there is no leaf."""
        if depth > _LEAST_DEPTHS and self.free >= _LARGEST_CALL:
            return self.table.calls[kind]
        forced = not self.table.leaves[kind]
        return [
            (operator, wanted)
            for operator, wanted in self.table.calls[kind]
            if depth > self.table.min_depth[wanted]
            and (self.free >= 3 * operator.arity - 2 or (forced and wanted is not kind))
        ]

    def _drawn(self, nodes: list[Node]) -> Node:
        return nodes[int(self.rng.integers(len(nodes)))]
