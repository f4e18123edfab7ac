"""The canonical form of an expression: its identity, so that equal losses are trained once."""

from __future__ import annotations

import math

import numpy as np

from primitives.errors import PrimitivesError
from primitives.expression import Expression, Node, call_node, constant_node
from primitives.operators import EPSILON, OPERATORS, Operator
from primitives.signs import attach_sign, order_key, product_of, strip_sign, sum_of

_ALGEBRA = frozenset(("Add", "Sub", "Neg"))


def canonical(expression: Expression) -> Expression:
    """The canonical form; its text is the identity of an expression.

    Equal in exact arithmetic, and so in floating point up to rounding (and to overflow that only
    one order of a long sum or product meets). NaN and infinity are kept: nothing is dropped that
    could hold one (`Mul(0,x)` and `Sub(x,x)` stay). What is done, from the leaves up:

    - A call of constants becomes a constant, by the operator's own semantics, where finite.
    - `Add`, `Sub` and `Neg` become one sum with signs: constants added up, zero dropped, written
      as (positive terms) - (negative terms), each sorted.
    - `Mul` becomes one sorted product: constants multiplied, one dropped, signs taken out. So does
      the inside of `Dot`. `Div` by a constant one is dropped, a numerator's sign taken out (not a
      denominator's: `Div` adds its epsilon there).
    - Signs leave odd functions (`Sin`, `Tanh`) and vanish in even ones (`Abs`, `Cos`).
    - Signs end in a constant or a difference where there is one, so the form is never larger.

    A space without all of `Add`, `Sub` and `Neg` gets only rules that need no other operator than
    those present: sorting, constants, double negation, neutral elements. Where regrouping a sum
    would pass the language's depth limit, the expression itself is its canonical form.
    """
    algebra = expression.space.table.keys() >= _ALGEBRA
    try:
        return Expression(_canonical_node(expression.root, algebra, {}), expression.space)
    except PrimitivesError:
        return expression


def _canonical_node(node: Node, algebra: bool, done: dict[Node, Node]) -> Node:
    if node.operator is None:
        return node
    result = done.get(node)
    if result is None:
        children = [_canonical_node(child, algebra, done) for child in node.children]
        result = _folded(node.operator, children)
        if result is None:
            simplify = _with_signs if algebra else _without_signs
            result = simplify(node.operator, children)
        done[node] = result
    return result


def _folded(operator: Operator, children: list[Node]) -> Node | None:
    """The call as a constant, or None where an argument is not constant or the value not finite."""
    values = [child.value for child in children if child.value is not None]
    if len(values) < len(children):
        return None
    with np.errstate(all="ignore"):
        value = float(operator.value(*map(np.float64, values)))
    return constant_node(value) if math.isfinite(value) else None


def _with_signs(operator: Operator, children: list[Node]) -> Node:
    name = operator.name
    if name in _ALGEBRA:
        return sum_of(call_node(operator, *children))
    if name in ("Mul", "Dot"):
        return product_of(call_node(operator, *children))
    if name == "Div":
        if _is_one_divisor(children[1]):
            return children[0]
        sign, numerator = strip_sign(children[0])
        return attach_sign(sign, call_node(operator, numerator, children[1]))
    if operator.parity:
        sign, argument = strip_sign(children[0])
        call = call_node(operator, argument)
        return attach_sign(sign, call) if operator.parity < 0 else call
    return call_node(operator, *children)


def _without_signs(operator: Operator, children: list[Node]) -> Node:
    name = operator.name
    if name == "Neg" and children[0].operator is OPERATORS["Neg"]:
        return children[0].children[0]
    if name == "Div" and _is_one_divisor(children[1]):
        return children[0]
    if name == "Sub" and children[1].value == 0:
        return children[0]
    neutral = {"Add": 0.0, "Mul": 1.0}.get(name)
    kept = [child for child in children if child.value is None or child.value != neutral]
    if len(kept) == 1 and operator.arity == 2:
        return kept[0]
    if operator.commutative:
        children = sorted(children, key=order_key)
    return call_node(operator, *children)


def _is_one_divisor(node: Node) -> bool:
    return node.value is not None and node.value + EPSILON == 1.0
