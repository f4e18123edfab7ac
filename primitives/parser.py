"""The parser: prefix text to an expression, without recursion, with errors that give the place."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from primitives.errors import ExpressionLimitError, ExpressionSyntaxError, ExpressionTypeError
from primitives.expression import (
    MAX_CHARACTERS,
    MAX_DEPTH,
    MAX_NODES,
    Expression,
    Node,
    call_node,
    constant_node,
    input_node,
)
from primitives.operators import OPERATORS, Operator
from primitives.spaces import SearchSpace, space_of

_TOKEN_PATTERN = re.compile(
    r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<number>-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<mark>[(),])"
)
_BLANK_PATTERN = re.compile(r"[ \t\r\n]*")
_END_OF_TEXT = "end of text"


@dataclass
class _ParserToken:
    kind: str  # name, number, mark, end
    text: str
    position: int

    @property
    def shown(self) -> str:
        text = self.text if len(self.text) <= 40 else self.text[:37] + "..."
        return text if self.kind == "end" else repr(text)


@dataclass
class _OpenCall:
    operator: Operator
    position: int
    children: list[Node] = field(default_factory=list)


def parse(text: str, space: str | SearchSpace) -> Expression:
    """Read an expression in prefix form, e.g. `Neg(Log(Sig(X)))`.

    Args:
        text: at most 10,000 characters, depth 64, 512 nodes. Numbers are decimal literals (`2`,
            `.5`, `-1e-3`); blanks between tokens are skipped.
        space: a space, or the name of a built-in one. Only its inputs and operators are accepted;
            its constants do not limit what parses.

    Raises:
        ExpressionSyntaxError: with position, token and what was expected.
        ExpressionTypeError: kinds do not fit, with the position.
        ExpressionLimitError: too long, too deep or too large.
        SpaceError: there is no space of this name.
    """
    space = space_of(space)
    if not isinstance(text, str):
        raise ExpressionSyntaxError(0, repr(type(text).__name__), "text")
    if len(text) > MAX_CHARACTERS:
        raise ExpressionLimitError("characters", MAX_CHARACTERS, MAX_CHARACTERS)
    root = _parse_root(text, space)
    if root.kind is not space.root:
        raise ExpressionTypeError(
            f"an expression of {space.name} is {space.root.words}, this one is {root.kind.words}",
            _BLANK_PATTERN.match(text).end(),  # type: ignore[union-attr]
        )
    return Expression(root, space)


def _parse_root(text: str, space: SearchSpace) -> Node:
    calls: list[_OpenCall] = []
    nodes = 0
    token = _next_token(text, 0)
    while True:
        nodes += 1
        if nodes > MAX_NODES:
            raise ExpressionLimitError("nodes", MAX_NODES, token.position)
        if len(calls) >= MAX_DEPTH:
            raise ExpressionLimitError("levels of depth", MAX_DEPTH, token.position)
        after = _next_token(text, token.position + len(token.text))
        if token.kind == "name" and (token.text in OPERATORS or after.text == "("):
            calls.append(_open_call(token, after, space))
            token = _next_token(text, after.position + 1)
            continue
        node = _read_leaf(token, space)
        token = after
        while calls:  # close every call that ends here
            call = calls[-1]
            call.children.append(node)
            if len(call.children) < call.operator.arity:
                _expect_mark(token, ",", call)
                break
            _expect_mark(token, ")", call)
            node = _close_call(calls.pop())
            token = _next_token(text, token.position + 1)
        if not calls:
            if token.kind != "end":
                raise ExpressionSyntaxError(token.position, token.shown, _END_OF_TEXT)
            return node
        token = _next_token(text, token.position + 1)


def _next_token(text: str, start: int) -> _ParserToken:
    position = _BLANK_PATTERN.match(text, start).end()  # type: ignore[union-attr]
    if position == len(text):
        return _ParserToken("end", _END_OF_TEXT, position)
    match = _TOKEN_PATTERN.match(text, position)
    if match is None:
        raise ExpressionSyntaxError(
            position, repr(text[position]), "a name, a number, '(', ',' or ')'"
        )
    return _ParserToken(str(match.lastgroup), match.group(), position)


def _open_call(token: _ParserToken, after: _ParserToken, space: SearchSpace) -> _OpenCall:
    operator = space.table.get(token.text)
    if operator is None:
        if token.text in space.kinds:
            detail = f"{token.text} is an input of {space.name}, not an operator, and was called"
        elif token.text in OPERATORS:
            detail = f"operator {token.text} is not in {space.name}"
        else:
            detail = f"unknown operator {token.shown}{_close_name(token.text, space.table)}"
        expected = "one of the operators " + ", ".join(space.table)
        raise ExpressionSyntaxError(token.position, token.shown, expected, detail)
    if after.text != "(":
        raise ExpressionSyntaxError(after.position, after.shown, f"'(' after {token.text}")
    return _OpenCall(operator, token.position)


def _read_leaf(token: _ParserToken, space: SearchSpace) -> Node:
    if token.kind == "number":
        value = float(token.text)
        if not math.isfinite(value):
            raise ExpressionSyntaxError(token.position, token.shown, "a finite number")
        return constant_node(value)
    if token.kind == "name":
        kind = space.kinds.get(token.text)
        if kind is not None:
            return input_node(token.text, kind)
        raise ExpressionSyntaxError(
            token.position,
            token.shown,
            f"one of the inputs {', '.join(space.kinds)}",
            f"unknown input {token.shown} in {space.name}{_close_name(token.text, space.kinds)}",
        )
    raise ExpressionSyntaxError(token.position, token.shown, "an operator, an input or a number")


def _expect_mark(token: _ParserToken, mark: str, call: _OpenCall) -> None:
    if token.kind != "mark" or token.text != mark:
        name, arity = call.operator.name, call.operator.arity
        expected = f"{mark!r} ({name} takes {arity} argument{'s' if arity > 1 else ''})"
        raise ExpressionSyntaxError(token.position, token.shown, expected)


def _close_call(call: _OpenCall) -> Node:
    try:
        return call_node(call.operator, *call.children)
    except ExpressionTypeError as error:
        raise ExpressionTypeError(error.reason, call.position) from None


def _close_name(name: str, known: Iterable[str]) -> str:
    by_lower = {item.lower(): item for item in known}
    close = difflib.get_close_matches(name[:40].lower(), by_lower, n=1)
    return f" (did you mean {by_lower[close[0]]}?)" if close else ""
