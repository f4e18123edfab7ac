"""An expression as people write it: sums collected, signs pulled out, ones dropped.

For display only. The value is the same up to rounding wherever the expression is finite; the
identity of an expression is its canonical form, and what trains is the expression as it was found.
"""

from __future__ import annotations

import math

from primitives import OPERATORS, Expression, Kind, Node, SpaceError


def readable(expression: Expression) -> Expression:
    """The expression for people; as it stands where its space lacks an operator for that."""
    try:
        return Expression(_tidied(expression.root), expression.space)
    except SpaceError:
        return expression


def _tidied(node: Node) -> Node:
    if node.operator is None:
        return node
    name = node.operator.name
    children = tuple(_tidied(child) for child in node.children)
    if name in ("Add", "Sub", "Neg"):
        return _sum(_called(name, *children))
    if name == "Mul":
        return _product(*children)
    if name == "Div":
        return _quotient(*children)
    return _called(name, *children)


def _called(name: str, *children: Node) -> Node:
    kind = OPERATORS[name].kind([child.kind for child in children])
    assert kind is not None, "tidying keeps the kinds of all arguments"
    return Node(OPERATORS[name], children, None, None, kind)


def _constant(value: float) -> Node:
    return Node(None, (), None, value, Kind.SCALAR)


def _sum(node: Node) -> Node:
    """Collects nested sums: the terms in their order, then the constant; a positive term leads."""
    plus: list[Node] = []
    minus: list[Node] = []
    constant = _collect(node, 1, plus, minus)
    kind = node.kind
    if not math.isfinite(constant) or not any(term.kind is kind for term in plus + minus):
        return node
    if constant > 0:
        plus.insert(0, _constant(constant))
    elif constant < 0:
        minus.append(_constant(-constant))
    if not plus:
        return _called("Neg", _added(minus))
    total = _added(plus)
    for term in minus:
        total = _called("Sub", total, term)
    return total


def _collect(node: Node, sign: int, plus: list[Node], minus: list[Node]) -> float:
    """Sorts the terms below a sum by their sign; returns the sum of the constants."""
    if node.value is not None:
        return sign * node.value
    name = node.operator.name if node.operator is not None else ""
    if name == "Neg":
        return _collect(node.children[0], -sign, plus, minus)
    if name in ("Add", "Sub"):
        left, right = node.children
        constant = _collect(left, sign, plus, minus)
        return constant + _collect(right, -sign if name == "Sub" else sign, plus, minus)
    (plus if sign > 0 else minus).append(node)
    return 0.0


def _added(terms: list[Node]) -> Node:
    total = terms[0]
    for term in terms[1:]:
        total = _called("Add", total, term)
    return total


def _product(left: Node, right: Node) -> Node:
    negative, (left, right) = _unsigned(left, right)
    if right.value is not None:
        left, right = right, left  # numbers stand first
    if left.value == 1.0:
        product = right
    elif left.value is not None and right.value is not None:
        product = _constant(left.value * right.value)
    else:
        product = _called("Mul", left, right)
    return _signed(negative, product)


def _quotient(left: Node, right: Node) -> Node:
    negative, (left, right) = _unsigned(left, right)
    return _signed(negative, left if right.value == 1.0 else _called("Div", left, right))


def _unsigned(*factors: Node) -> tuple[bool, list[Node]]:
    """The factors without their signs, and whether an odd number of them had one."""
    negative = False
    bare: list[Node] = []
    for factor in factors:
        if factor.operator is not None and factor.operator.name == "Neg":
            negative = not negative
            bare.append(factor.children[0])
        elif factor.value is not None and factor.value < 0:
            negative = not negative
            bare.append(_constant(-factor.value))
        else:
            bare.append(factor)
    return negative, bare


def _signed(negative: bool, node: Node) -> Node:
    if not negative:
        return node
    return _constant(-node.value) if node.value is not None else _called("Neg", node)
