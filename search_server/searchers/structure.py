"""How alike expressions are in structure, whatever their constants: for niches, and for pools."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

from numpy.random import Generator

from primitives import Expression, Node, canonical

REACH = 0.1  # distance over which the chance to land on a member of a pool falls to 1 / e

Structure = Counter[tuple[str, str, str]]


def structure(expressions: Mapping[str, Expression]) -> Structure:
    """All pairs of a node and its argument in the canonical forms, with the branch they are in.

    Constants are all the same; above the root is nothing.
    """
    found: Structure = Counter()
    for branch, expression in expressions.items():
        for (above, below), count in _pairs(expression).items():
            found[branch, above, below] = count
    return found


def distance(one: Structure, other: Structure) -> float:
    """The share of the pairs of both that the other does not have, in [0, 1] (Jaccard)."""
    union = (one | other).total()
    return 1.0 - (one & other).total() / union if union else 0.0


def landed(
    drawn: Expression,
    pool: Sequence[Expression],
    left_out: Sequence[Expression],
    rng: Generator,
) -> Expression:
    """A member of a pool in place of an expression: the more alike they are, the more likely.

    Args:
        left_out: members that it is not to be, such as the parents; where there are no others, it
            is one of them.
    """
    members = [member for member in pool if member not in left_out] or list(pool)
    wanted = structure({"": drawn})
    weights = [math.exp(-distance(wanted, structure({"": member})) / REACH) for member in members]
    total = sum(weights)
    return members[int(rng.choice(len(members), p=[weight / total for weight in weights]))]


@lru_cache(maxsize=10_000)
def _pairs(expression: Expression) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    stack: list[tuple[str, Node]] = [("", canonical(expression).root)]
    while stack:
        above, node = stack.pop()
        label = _label(node)
        found[above, label] += 1
        stack.extend((label, child) for child in node.children)
    return found


def _label(node: Node) -> str:
    if node.operator is not None:
        return node.operator.name
    return node.name or "#"
