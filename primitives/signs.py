"""Signed sums and products of nodes: the algebra behind the canonical form.

A node is *oriented* when its sign was taken out: `strip_sign` gives +1 or -1 and the oriented node,
`attach_sign` puts the sign back. A node *absorbs* a sign when that takes no extra `Neg`: constants,
differences, and products, quotients and odd functions of such. Results are cached by node, which
also keeps the mutual recursion polynomial.
"""

from __future__ import annotations

import heapq
import math
from functools import lru_cache

from primitives.expression import Node, call_node, constant_node
from primitives.operators import OPERATORS, Operator

_ADD, _SUB, _NEG = OPERATORS["Add"], OPERATORS["Sub"], OPERATORS["Neg"]
_MUL, _DIV, _DOT = OPERATORS["Mul"], OPERATORS["Div"], OPERATORS["Dot"]

Term = tuple[int, Node]  # sign and oriented node

_cached = lru_cache(maxsize=16_384)


@_cached
def order_key(node: Node) -> tuple[bool, int, str]:
    """The order of operands: constants first, then shallow before deep, then by text."""
    return node.value is None, node.depth, str(node)


def sum_of(node: Node) -> Node:
    """The canonical form of an `Add`, `Sub` or `Neg` of canonical nodes."""
    return _build_sum(*_terms(node))


def product_of(node: Node) -> Node:
    """The canonical form of a `Mul` or `Dot` of canonical nodes."""
    sign, constant, factors = _factors(node)
    assert node.operator is not None
    return attach_sign(sign, _build_product(node.operator, constant, factors))


@_cached
def strip_sign(node: Node) -> Term:
    """The sign of a canonical node, and the node without it."""
    if node.value is not None:
        return (-1, constant_node(-node.value)) if node.value < 0 else (1, node)
    operator = node.operator
    if operator is None:
        return 1, node
    if operator in (_ADD, _SUB, _NEG):
        terms, constant = _terms(node)
        sign = _orientation(terms, constant)
        if sign > 0:
            return 1, node
        return -1, _build_sum(_flipped(terms), -constant)
    if operator in (_MUL, _DOT):
        sign, constant, factors = _factors(node)
        return sign, _build_product(operator, constant, factors) if sign < 0 else node
    if operator is _DIV or operator.parity < 0:
        sign, first = strip_sign(node.children[0])
        return sign, call_node(operator, first, *node.children[1:]) if sign < 0 else node
    return 1, node


def attach_sign(sign: int, node: Node) -> Node:
    """A canonical node from a sign and an oriented node."""
    return node if sign > 0 else _negative(node)


@_cached
def _negative(node: Node) -> Node:
    if node.value is not None:
        return constant_node(-node.value)
    operator = node.operator
    if operator in (_ADD, _SUB):
        terms, constant = _terms(node)
        return _build_sum(_flipped(terms), -constant)
    if operator is not None and _absorbs(node):
        if operator in (_MUL, _DOT):
            _, constant, factors = _factors(node)
            return _build_product(operator, constant, factors, negative=True)
        return call_node(operator, attach_sign(-1, node.children[0]), *node.children[1:])
    return call_node(_NEG, node)


@_cached
def _absorbs(node: Node) -> bool:
    if node.value is not None:
        return True
    operator = node.operator
    if operator in (_ADD, _SUB):
        terms, constant = _terms(node)
        return (
            bool(constant) or len({s for s, _ in terms}) > 1 or any(_absorbs(t) for _, t in terms)
        )
    if operator in (_MUL, _DOT):
        return any(_absorbs(child) for child in node.children)
    if operator is not None and (operator is _DIV or operator.parity < 0):
        return _absorbs(node.children[0])
    return False


def _flipped(terms: list[Term]) -> list[Term]:
    return [(1 if _signless(node) else -sign, node) for sign, node in terms]


def _signless(node: Node) -> bool:
    """A product with zero, or what is made of such: the sign makes no difference."""
    return _absorbs(node) and _negative(node) == node


def _terms(node: Node) -> tuple[list[Term], float]:
    """The signed terms of a sum, sorted, and its constant (0 where there is none)."""
    terms: list[Term] = []
    constants: list[float] = []
    stack: list[Term] = [(1, node)]
    while stack:
        sign, top = stack.pop()
        if top.operator is _ADD or top.operator is _SUB:
            first, second = top.children
            stack += [(sign, first), (sign if top.operator is _ADD else -sign, second)]
        elif top.operator is _NEG:
            stack.append((-sign, top.children[0]))
        elif top.value is not None:
            constants.append(sign * top.value)
        else:
            own, oriented = strip_sign(top)
            terms.append((1 if _signless(oriented) else sign * own, oriented))
    total = _finite_sum(constants)
    if total is None:
        terms += [(1 if c >= 0 else -1, constant_node(abs(c))) for c in constants]
        total = 0.0
    return sorted(terms, key=lambda term: (order_key(term[1]), -term[0])), total


def _finite_sum(constants: list[float]) -> float | None:
    try:
        return math.fsum(constants)  # correctly rounded, so the order does not matter
    except OverflowError:
        return None


def _orientation(terms: list[Term], constant: float) -> int:
    """+1 or -1, so that a sum and its negative get opposite ones."""
    net: dict[Node, int] = {}
    for sign, node in terms:
        net[node] = net.get(node, 0) + (0 if _signless(node) else sign)
    for count in net.values():
        if count:
            return 1 if count > 0 else -1
    return -1 if constant < 0 else 1


def _build_sum(terms: list[Term], constant: float) -> Node:
    plus = [node for sign, node in terms if sign > 0]
    minus = [node for sign, node in terms if sign < 0]
    if constant > 0 or not terms:
        plus.append(constant_node(constant))
    elif constant < 0 and plus:
        minus.append(constant_node(-constant))
    elif constant < 0:
        plus.append(constant_node(constant))
    elif not plus:
        able = next((index for index, node in enumerate(minus) if _absorbs(node)), None)
        if able is None:
            return call_node(_NEG, _joined(_ADD, _ADD, minus))
        plus.append(attach_sign(-1, minus.pop(able)))
    total = _joined(_ADD, _ADD, plus)
    return call_node(_SUB, total, _joined(_ADD, _ADD, minus)) if minus else total


def _factors(node: Node) -> tuple[int, float, list[Node]]:
    """Sign, constant (not negative; 1 where there is none) and oriented factors of a product."""
    sign = 1
    factors: list[Node] = []
    constants: list[float] = []
    stack = list(node.children)
    while stack:
        own, top = strip_sign(stack.pop())
        sign *= own
        if top.operator is _MUL:
            stack += top.children
        elif top.value is not None:
            constants.append(top.value)
        else:
            factors.append(top)
    product = math.prod(sorted(constants))
    if not math.isfinite(product) or (product == 0 and 0.0 not in constants):
        factors += [constant_node(c) for c in constants]
        product = 1.0
    return sign, product, sorted(factors, key=order_key)


def _build_product(
    top: Operator, constant: float, factors: list[Node], negative: bool = False
) -> Node:
    """`Mul` of all, or their `Dot`; a negative one must be able to absorb its sign."""
    parts = list(factors)
    if constant != 1 or len(parts) < (2 if top is _DOT else 1):
        parts.append(constant_node(-constant if negative else constant))
    elif negative:
        able = next(index for index, node in enumerate(parts) if _absorbs(node))
        parts[able] = attach_sign(-1, parts[able])
    return _joined(top, _MUL, parts)


def _joined(top: Operator, operator: Operator, nodes: list[Node]) -> Node:
    """One tree of binary calls over the nodes, as shallow as possible; `top` is the last call."""
    heap = [(node.depth, order_key(node), index, node) for index, node in enumerate(nodes)]
    heapq.heapify(heap)
    while len(heap) > 1:
        pair = [heapq.heappop(heap)[-1], heapq.heappop(heap)[-1]]
        node = call_node(operator if heap else top, *sorted(pair, key=order_key))
        heapq.heappush(heap, (node.depth, order_key(node), -1, node))
    return heap[0][-1]
