"""Expressions as LaTeX, for people: templates of the operator table, brackets where needed.

The text keeps to what matplotlib's mathtext understands too.
"""

from __future__ import annotations

from primitives.expression import Expression, Node, number_text

_SUM, _ATOM = 1, 3  # see `Operator.binds`


def to_latex(expression: Expression) -> str:
    """LaTeX of an expression as it stands; only `a + (-b)` is written `a - b`."""
    return _latex_of(expression.root)[0]


def _latex_of(node: Node) -> tuple[str, int]:
    """Text, and how tightly it holds together (`Operator.binds`)."""
    operator = node.operator
    if operator is None:
        if node.value is not None:
            return _latex_number(node.value), _SUM if node.value < 0 else _ATOM
        return _latex_name(str(node.name)), _ATOM
    texts = []
    for index, child in enumerate(node.children):
        text, binds = _latex_of(child)
        if index in operator.tight and binds == _SUM:
            text = rf"\left({text}\right)"
        texts.append(text)
    if operator.name == "Add" and texts[1].startswith("-"):
        return f"{texts[0]} - {texts[1][1:]}", operator.binds
    return operator.latex.format(*texts), operator.binds


def _latex_number(value: float) -> str:
    mantissa, _, exponent = number_text(value).partition("e")
    return rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if exponent else mantissa


def _latex_name(name: str) -> str:
    return name if len(name) == 1 else rf"\mathrm{{{name.replace('_', chr(92) + '_')}}}"
