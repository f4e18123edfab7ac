"""Formulas for people: they fit, they never fail, and the readable form keeps the value."""

from pathlib import Path

import numpy as np
import pytest

from losses import CATALOG
from primitives import SPACES, Input, Kind, SearchSpace, evaluate, grow, parse
from search_server.formulas import branch_text, picture, plain, typeset
from search_server.readable import readable

READABLE = [
    ("box", "Add(1,Neg(Div(I,U)))", "Sub(1,Div(I,U))"),
    ("box", "Add(Add(1,U),Neg(Add(3,E)))", "Sub(Sub(U,E),2)"),
    ("box", "Neg(Div(Neg(U),Neg(3)))", "Neg(Div(U,3))"),
    ("box", "Mul(U,Mul(1,2))", "Mul(2,U)"),
    ("binary_cls", "Neg(Neg(X))", "X"),
    ("multi_cls", "Neg(Dot(Y,Log(Softmax(X))))", "Neg(Dot(Y,Log(Softmax(X))))"),
]


@pytest.mark.parametrize(("space", "given", "shown"), READABLE)
def test_readable_form(space: str, given: str, shown: str) -> None:
    assert str(readable(parse(given, space))) == shown


@pytest.mark.parametrize("space", sorted(SPACES))
def test_readable_form_keeps_the_value(space: str) -> None:
    rng = np.random.default_rng(7)
    compared = 0
    for _ in range(400):
        expression = grow(SPACES[space], rng, 2, 7)
        values = {
            item.name: rng.uniform(0.1, 3, (4, 3) if item.kind is Kind.PER_CLASS else 4)
            for item in SPACES[space].inputs
        }
        before = np.asarray(evaluate(expression, values, {})[0])
        after = np.broadcast_to(evaluate(readable(expression), values, {})[0], before.shape)
        finite = np.isfinite(before) & (np.abs(before) < 1e6)
        np.testing.assert_allclose(after[finite], before[finite], rtol=1e-6, atol=1e-8)
        compared += int(finite.sum())
    assert compared > 500


@pytest.mark.parametrize("space", sorted(SPACES))
def test_every_formula_fits_its_width(space: str) -> None:
    rng = np.random.default_rng(3)
    for depth in (2, 5, 8):
        for _ in range(12):
            formula = typeset(grow(SPACES[space], rng, depth, depth + 1), 420.0)
            assert formula.lines
            assert max(line.width for line in formula.lines) <= 421.0


def test_large_parts_get_names() -> None:
    loss = CATALOG["cse-autoloss-b"].expressions["cls"]
    lines = typeset(loss, 300.0).lines
    assert len(lines) > 1
    assert all(line.math for line in lines)
    assert " = " in lines[1].text


def test_what_mathtext_does_not_know_is_shown_as_text() -> None:
    """An input may be called so that its LaTeX is none."""
    space = SearchSpace("own", (Input("gd_", Kind.PER_ROW),), (1.0,), ("Add", "Sgdf"), Kind.PER_ROW)
    text = "Add(Sgdf(gd_),1)"
    formula = typeset(parse(text, space), 400.0)
    assert formula.lines
    cut = plain("x" * 500, 200.0).lines
    assert "".join(line.text for line in cut) == "x" * 500
    assert max(line.width for line in cut) <= 200.0


def test_text_of_a_branch() -> None:
    assert branch_text(None) == "the detector's own loss"
    assert "GIoULoss" in branch_text(CATALOG["focal-giou"].bbox)
    assert branch_text(CATALOG["iou-expression"].bbox).endswith(
        str(CATALOG["iou-expression"].expressions["bbox"])
    )


def test_picture_is_as_wide_as_the_formula(tmp_path: Path) -> None:
    import matplotlib.image

    for text, name in (
        ("Sub(1,Div(I,U))", "short.png"),
        ("Add(U,Add(I,Mul(E,Sin(U))))", "long.png"),
    ):
        picture(parse(text, "box"), tmp_path / name)
    short, long = (matplotlib.image.imread(tmp_path / n) for n in ("short.png", "long.png"))
    assert short.shape[1] < long.shape[1]
    assert short[..., :3].min() < 0.5, "nothing was drawn"
