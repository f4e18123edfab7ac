"""Immutable expression trees: nodes with their kind and size, and the flat program of a tree."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from primitives.errors import ExpressionLimitError, ExpressionTypeError, SpaceError
from primitives.operators import Kind, Operator
from primitives.spaces import SearchSpace

MAX_CHARACTERS = 10_000
MAX_DEPTH = 64
MAX_NODES = 512


class Node:
    """A node of an expression: an operator's call, an input or a constant. Immutable, hashable.

    Attributes:
        operator: the operator of a call, else None.
        children: the arguments of a call, else empty.
        name: the input's name, else None.
        value: the constant's value (finite), else None.
        kind: shape of the node's value.
        size: number of nodes of the tree below, itself included.
        depth: number of levels of the tree below; a leaf has depth 1.
    """

    __slots__ = ("_hash", "children", "depth", "kind", "name", "operator", "size", "value")

    operator: Operator | None
    children: tuple[Node, ...]
    name: str | None
    value: float | None
    kind: Kind
    size: int
    depth: int
    _hash: int

    def __init__(
        self,
        operator: Operator | None,
        children: tuple[Node, ...],
        name: str | None,
        value: float | None,
        kind: Kind,
    ) -> None:
        put = object.__setattr__
        put(self, "operator", operator)
        put(self, "children", children)
        put(self, "name", name)
        put(self, "value", value)
        put(self, "kind", kind)
        size, depth = 1, 0
        for child in children:
            size += child.size
            depth = max(depth, child.depth)
        put(self, "size", size)
        put(self, "depth", depth + 1)
        head = operator.name if operator is not None else name
        put(self, "_hash", hash((head, value, kind, children)))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("nodes are immutable")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("nodes are immutable")

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Node):
            return NotImplemented
        return (
            self._hash == other._hash
            and self.operator is other.operator
            and self.name == other.name
            and self.value == other.value
            and self.kind is other.kind
            and self.children == other.children
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # hashes of text differ between processes, so a node is built anew
        return Node, (self.operator, self.children, self.name, self.value, self.kind)

    def __str__(self) -> str:
        parts: list[str] = []
        _write_node(self, parts)
        return "".join(parts)

    def __repr__(self) -> str:
        return f"Node({self})"


def call_node(operator: Operator, *children: Node) -> Node:
    """The call of an operator.

    Raises:
        ExpressionTypeError: number or kinds of the arguments do not fit.
    """
    if len(children) != operator.arity:
        raise ExpressionTypeError(
            f"{operator.name} takes {operator.arity} arguments, not {len(children)}"
        )
    kind = operator.kind([child.kind for child in children])
    if kind is None:
        given = " and ".join(child.kind.words for child in children)
        raise ExpressionTypeError(f"{operator.name} does not take {given}")
    return Node(operator, children, None, None, kind)


def input_node(name: str, kind: Kind) -> Node:
    """A named input."""
    return Node(None, (), name, None, kind)


def constant_node(value: float) -> Node:
    """A finite constant; negative zero becomes zero.

    Raises:
        ExpressionTypeError: the value is not finite.
    """
    if not math.isfinite(value):
        raise ExpressionTypeError(f"a constant must be finite, not {value}")
    return Node(None, (), None, float(value) + 0.0, Kind.SCALAR)


def number_text(value: float) -> str:
    """A constant as it is written: shortest text that reads back as the same number."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def walk_nodes(node: Node) -> Iterator[Node]:
    """Every node of a tree, in prefix order."""
    stack = [node]
    while stack:
        top = stack.pop()
        yield top
        stack.extend(reversed(top.children))


def _write_node(node: Node, parts: list[str]) -> None:
    if node.operator is None:
        parts.append(number_text(node.value) if node.value is not None else str(node.name))
        return
    parts.append(node.operator.name)
    separator = "("
    for child in node.children:
        parts.append(separator)
        _write_node(child, parts)
        separator = ","
    parts.append(")")


@dataclass(frozen=True)
class Step:
    """One step of a flat program.

    Attributes:
        node: the node computed.
        arguments: places, in the program, of the node's arguments.
    """

    node: Node
    arguments: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Expression:
    """An immutable, well typed tree in a search space. `str()` is its prefix text.

    Raises:
        ExpressionTypeError: the root's kind is not the space's.
        ExpressionLimitError: more than `MAX_DEPTH` levels or `MAX_NODES` nodes.
        SpaceError: an input or operator is not the space's.
    """

    root: Node
    space: SearchSpace

    def __post_init__(self) -> None:
        root, space = self.root, self.space
        if root.depth > MAX_DEPTH:
            raise ExpressionLimitError("levels of depth", MAX_DEPTH)
        if root.size > MAX_NODES:
            raise ExpressionLimitError("nodes", MAX_NODES)
        if root.kind is not space.root:
            raise ExpressionTypeError(
                f"an expression of {space.name} is {space.root.words}, this one is "
                f"{root.kind.words}"
            )
        kinds, table = space.kinds, space.table
        for node in walk_nodes(root):
            if node.operator is not None:
                if node.operator.name not in table:
                    raise SpaceError("operators", node.operator.name, f"is not in {space.name}")
            elif node.name is not None and kinds.get(node.name) is not node.kind:
                raise SpaceError("inputs", node.name, f"is not in {space.name}")

    @property
    def size(self) -> int:
        """Number of nodes."""
        return self.root.size

    @property
    def depth(self) -> int:
        """Number of levels; a single leaf has depth 1."""
        return self.root.depth

    @cached_property
    def inputs(self) -> frozenset[str]:
        """Names of the inputs that occur."""
        return frozenset(node.name for node in walk_nodes(self.root) if node.name is not None)

    @cached_property
    def program(self) -> tuple[Step, ...]:
        """The distinct nodes in an order of computation, root last; shared subtrees once."""
        places: dict[Node, int] = {}
        steps: list[Step] = []
        _add_steps(self.root, places, steps)
        return tuple(steps)

    def latex(self) -> str:
        """The expression as LaTeX, for people."""
        from primitives.latex import to_latex

        return to_latex(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Expression):
            return NotImplemented
        return self.root == other.root and self.space == other.space

    def __hash__(self) -> int:
        return hash((self.root, self.space.name))

    def __str__(self) -> str:
        return str(self.root)

    def __repr__(self) -> str:
        return f"Expression({str(self)!r}, {self.space.name!r})"


def _add_steps(node: Node, places: dict[Node, int], steps: list[Step]) -> int:
    place = places.get(node)
    if place is None:
        arguments = tuple(_add_steps(child, places, steps) for child in node.children)
        place = places[node] = len(steps)
        steps.append(Step(node, arguments))
    return place
