"""The parser: round trips, errors that name place, token and what was expected, limits, fuzzing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from primitives import (
    OPERATORS,
    SPACES,
    ExpressionLimitError,
    ExpressionSyntaxError,
    ExpressionTypeError,
    Kind,
    PrimitivesError,
    SpaceError,
    grow,
    parse,
)

FUZZ = settings(
    max_examples=6000,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
SPACE_NAMES = st.sampled_from(sorted(SPACES))
PIECES = [
    *OPERATORS,
    "X",
    "Y",
    "Z",
    "Q",
    "PY",
    "NY",
    "U",
    "I",
    "E",
    "(",
    "(",
    ")",
    ")",
    ",",
    ",",
    " ",
] + ["1", "-", ".", "e", "1e-3", ".5", "-2", "1e999", "_", "\n", "é", "\0", "__import__", "'"]


def attempt(text: str, space: str) -> None:
    """Parses, or fails with an error of the package that prints."""
    try:
        expression = parse(text, space)
    except PrimitivesError as error:
        str(error)
    else:
        assert parse(str(expression), space) == expression


@given(st.text(max_size=60), SPACE_NAMES)
@FUZZ
def test_any_text_parses_or_is_refused(text: str, space: str) -> None:
    attempt(text, space)


@given(st.lists(st.sampled_from(PIECES), max_size=40), SPACE_NAMES)
@FUZZ
def test_any_pieces_parse_or_are_refused(pieces: list[str], space: str) -> None:
    attempt("".join(pieces), space)


@pytest.mark.parametrize("space", SPACES)
def test_damaged_expressions_parse_or_are_refused(space: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(4000):
        text = str(grow(SPACES[space], rng, 1, 5))
        start = int(rng.integers(len(text) + 1))
        patch = "".join(rng.choice(PIECES, int(rng.integers(4))))
        attempt(text[:start] + patch + text[start + int(rng.integers(6)) :], space)


@pytest.mark.timeout(30)  # each takes milliseconds; what grows with a power would take hours
@pytest.mark.parametrize(
    "text",
    [
        "(" * 10_000,
        "Neg(" * 2_500,
        "Add(X," * 1_600,
        "9" * 10_000,
        "-" * 10_000,
        "1e" * 5_000,
        "." * 10_000,
        " " * 10_000,
        "a" * 10_000,
        "Add(1,1)" * 1_250,
        "X" * 100_000,
        "Neg(" * 60 + "X" + ")" * 9_000,
    ],
)
def test_hostile_texts_are_refused_at_once(text: str) -> None:
    with pytest.raises(PrimitivesError) as caught:
        parse(text, "binary_cls")
    assert len(str(caught.value)) < 1000


@given(st.integers(0, 2**32), SPACE_NAMES)
@settings(max_examples=500, derandomize=True, deadline=None)
def test_text_and_tree_are_the_same_thing(seed: int, space: str) -> None:
    expression = grow(SPACES[space], np.random.default_rng(seed), 1, 8)
    again = parse(str(expression), space)
    assert again == expression
    assert hash(again) == hash(expression)
    assert str(again) == str(expression)


@given(st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=500, derandomize=True, deadline=None)
def test_every_finite_number_round_trips(value: float) -> None:
    expression = parse(f"Add(X,{value!r})", "binary_cls")
    assert expression.root.children[1].value == value
    assert parse(str(expression), "binary_cls") == expression


@pytest.mark.parametrize(
    ("literal", "value", "written"),
    [
        ("1", 1.0, "1"),
        ("1e-3", 0.001, "0.001"),
        (".5", 0.5, "0.5"),
        ("5.", 5.0, "5"),
        ("-2", -2.0, "-2"),
        ("-.25E+1", -2.5, "-2.5"),
        ("1e22", 1e22, "1e+22"),
        ("-0", 0.0, "0"),
    ],
)
def test_decimal_literals(literal: str, value: float, written: str) -> None:
    expression = parse(f"Mul(X,{literal})", "binary_cls")
    assert expression.root.children[1].value == value
    assert str(expression) == f"Mul(X,{written})"


def test_blanks_are_skipped() -> None:
    text = " Neg (\n\tDot( Y ,\r\n Log(Softmax(X)) ) ) "
    assert str(parse(text, "multi_cls")) == "Neg(Dot(Y,Log(Softmax(X))))"


@pytest.mark.parametrize(
    ("text", "position", "token", "expected"),
    [
        ("", 0, "end of text", "an operator, an input or a number"),
        ("Add(X", 5, "end of text", "','"),
        ("Add(X,", 6, "end of text", "an operator"),
        ("Add(X)", 5, "')'", "',' (Add takes 2 arguments)"),
        ("Neg(X,Q)", 5, "','", "')' (Neg takes 1 argument)"),
        ("Neg(X))", 6, "')'", "end of text"),
        ("X X", 2, "'X'", "end of text"),
        ("Neg X", 4, "'X'", "'(' after Neg"),
        ("Neg", 3, "end of text", "'(' after Neg"),
        ("Neg()", 4, "')'", "an operator, an input or a number"),
        ("Neg(#)", 4, "'#'", "a name, a number"),
        ("Add(X,1e999)", 6, "'1e999'", "a finite number"),
        ("Add(X,nan)", 6, "'nan'", "one of the inputs X, Q, PY, NY"),
        ("Neg(y)", 4, "'y'", "one of the inputs X, Q, PY, NY"),
        ("Foo(X)", 0, "'Foo'", "one of the operators Add, Sub"),
        ("Neg(X(1))", 4, "'X'", "one of the operators"),
        ("Neg(Dot(X,X))", 4, "'Dot'", "one of the operators"),
        ("Add(X,1x)", 7, "'x'", "')'"),
        ("Add(X,--1)", 6, "'-'", "a name, a number"),
        ("+1", 0, "'+'", "a name, a number"),
    ],
)
def test_syntax_errors(text: str, position: int, token: str, expected: str) -> None:
    with pytest.raises(ExpressionSyntaxError) as caught:
        parse(text, "binary_cls")
    error = caught.value
    assert (error.position, error.token) == (position, token)
    assert expected in error.expected
    assert f"position {position}" in str(error)


def test_a_close_name_is_suggested() -> None:
    with pytest.raises(ExpressionSyntaxError, match=r"did you mean Softplus\?"):
        parse("SoftPlus(X)", "binary_cls")
    with pytest.raises(ExpressionSyntaxError, match=r"did you mean PY\?"):
        parse("Neg(Py)", "binary_cls")


@pytest.mark.parametrize(
    ("text", "space", "position", "message"),
    [
        ("Neg(Add(X,Dot(X,Y)))", "multi_cls", 4, "Add does not take per class and per row"),
        ("Neg(Softmax(Dot(X,Y)))", "multi_cls", 4, "Softmax does not take per row"),
        ("Softmax(1)", "binary_cls", 0, "Softmax does not take scalar"),
        ("Neg(Dot(1,2))", "multi_cls", 4, "Dot does not take scalar and scalar"),
        ("X", "multi_cls", 0, "is per row, this one is per class"),
        (" 1", "binary_cls", 1, "is per class, this one is scalar"),
        ("Add(1,2)", "box", 0, "is per row, this one is scalar"),
    ],
)
def test_type_errors(text: str, space: str, position: int, message: str) -> None:
    with pytest.raises(ExpressionTypeError, match=message) as caught:
        parse(text, space)
    assert caught.value.position == position
    assert f"position {position}" in str(caught.value)


def test_limits_hold_exactly() -> None:
    deep = "Neg(" * 63 + "X" + ")" * 63
    assert parse(deep, "binary_cls").depth == 64
    with pytest.raises(ExpressionLimitError, match="at most 64 levels") as caught:
        parse(f"Neg({deep})", "binary_cls")
    assert (caught.value.allowed, caught.value.position) == (64, 256)

    def full(levels: int) -> str:
        return "X" if levels == 1 else f"Add({full(levels - 1)},{full(levels - 1)})"

    large = f"Neg({full(9)})"  # 512 nodes
    assert parse(large, "binary_cls").size == 512
    with pytest.raises(ExpressionLimitError, match="at most 512 nodes"):
        parse(f"Neg({large})", "binary_cls")

    long = "X" + " " * 9_999
    assert str(parse(long, "binary_cls")) == "X"
    with pytest.raises(ExpressionLimitError, match="at most 10000 characters"):
        parse(long + " ", "binary_cls")


def test_spaces_by_name_and_by_value() -> None:
    assert parse("X", SPACES["binary_cls"]) == parse("X", "binary_cls")
    with pytest.raises(SpaceError, match="known are multi_cls, binary_cls, box"):
        parse("X", "boxes")
    with pytest.raises(ExpressionSyntaxError):
        parse(None, "box")  # type: ignore[arg-type]


def test_properties_of_an_expression() -> None:
    expression = parse("Neg(Dot(Mul(Y,Add(1,Sin(Z))),Log(Softmax(X))))", "multi_cls")
    assert (expression.size, expression.depth) == (11, 6)
    assert expression.inputs == {"X", "Y", "Z"}
    assert expression.root.kind is Kind.PER_ROW
    with pytest.raises(AttributeError):
        expression.root.size = 3
    with pytest.raises(AttributeError):
        expression.root = expression.root  # type: ignore[misc]
