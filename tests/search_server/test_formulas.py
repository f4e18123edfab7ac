"""Formulas for people: they fit, they never fail, and the readable form keeps the value."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from losses import CATALOG, RANKING_LOSSES, LossDefinition, PapFunctions, RankingBranch
from primitives import SPACES, Input, Kind, SearchSpace, evaluate, grow, parse
from search_server.cli import run
from search_server.formulas import (
    branch_text,
    branch_texts,
    picture,
    plain,
    typeset,
    typeset_ranking,
)
from search_server.ranking_formulas import FORMULAS, function_lines, ranking_lines
from search_server.ranking_text import is_joint, ranking_text
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
    scaled = replace(CATALOG["iou-expression"].bbox, loss_weight=2.0, scale=0.5)
    assert branch_text(scaled) == "2 × 0.5 × Sub(1,Div(I,U))"
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


BENT = PapFunctions({**PapFunctions.identity(2).points, "I1": ((0.4, 0.1), (0.7, 0.5))})
RANKING = [
    (RankingBranch("ap"), "AP (delta 1)"),
    (RankingBranch("ap", loss_weight=2.0, delta=0.5), "2 × AP (delta 0.5)"),
    (RankingBranch("alrp"), "aLRP"),
    (RankingBranch("alrp", delta=0.2, box_weight=0.2), "aLRP (delta 0.2, box weight 0.2)"),
    (RankingBranch("rank_sort"), "RankSort"),
    (RankingBranch("rank_sort", box_loss="IoULoss"), "RankSort (IoULoss)"),
    (
        RankingBranch("pap", functions=PapFunctions.identity()),
        "PAP (identity functions, box gradient ×1)",
    ),
    (
        RankingBranch("pap", functions=BENT, overlap="iou", num_topk=2000, all_processes=True),
        "PAP (I1, box gradient ×1, overlap iou, num topk 2,000, all processes True)",
    ),
    (CATALOG["pap-retinanet"].cls, "PAP (5 functions, box gradient ×4.12)"),
]


@pytest.mark.parametrize(("branch", "text"), RANKING)
def test_text_of_a_ranking_branch(branch: RankingBranch, text: str) -> None:
    assert branch_text(branch) == text


@pytest.mark.parametrize("loss", [name for name in RANKING_LOSSES if name != "pap"])
def test_settings_as_they_are_by_default_are_not_shown(loss: str) -> None:
    """The text knows the defaults by itself, because it imports no torch."""
    branch = RankingBranch(loss)
    assert (
        ranking_text(branch.to_json())
        == {
            "ap": "AP (delta 1)",
            "alrp": "aLRP",
            "rank_sort": "RankSort",
        }[loss]
    )
    assert is_joint(branch.to_json()) == branch.has_box_loss


def test_texts_of_all_branches() -> None:
    both = branch_texts(CATALOG["pap-faster-rcnn"])
    assert list(both) == ["cls", "bbox", "rpn"]
    assert "loss of the boxes too" in both["bbox"]
    assert both["rpn"] == "PAP (5 functions, box gradient ×1.7)"
    assert branch_texts(CATALOG["ap-l1"])["bbox"].startswith("L1Loss")
    assert branch_texts(LossDefinition("none")) == dict.fromkeys(
        ("cls", "bbox"), "the detector's own loss"
    )


@pytest.mark.parametrize("width", [120.0, 300.0, 640.0])
@pytest.mark.parametrize("loss", sorted(FORMULAS))
def test_a_ranking_formula_fits_its_width(loss: str, width: float) -> None:
    functions = PapFunctions.identity() if loss == "pap" else None
    formula = typeset_ranking(RankingBranch(loss, functions=functions), width)
    assert max(line.width for line in formula.lines) <= width + 1
    assert all(line.math for line in formula.lines) == (width > 200.0)


def test_functions_as_text() -> None:
    (line,) = [text for text in function_lines(RANKING[7][0]) if text.startswith("I1")]
    assert line == "I1: (0, 0) (0.4, 0.1) (0.7, 0.5) (1, 1)"
    assert function_lines(RankingBranch("ap")) == []
    assert ranking_lines(RankingBranch("alrp"))[0].startswith("aLRP: L = 1/|P| sum")


def test_picture_of_a_ranking_loss_has_its_functions(tmp_path: Path) -> None:
    import matplotlib.image

    heights = {}
    for name in ("ap-l1", "pap-identity", "pap-retinanet"):
        picture(CATALOG[name].cls, tmp_path / f"{name}.png")  # type: ignore[arg-type]
        image = matplotlib.image.imread(tmp_path / f"{name}.png")
        heights[name] = image.shape[0]
        if name != "ap-l1":
            orange = (abs(image[..., :3] - np.array([0.835, 0.369, 0.0])) < 0.02).all(axis=-1)
            rows = np.flatnonzero(orange.any(axis=1))
            assert np.ptp(rows) > 200, "the functions span their panels"
    assert heights["pap-identity"] > heights["ap-l1"] + 300


def test_the_command_shows_and_draws_every_branch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["formula", "pap-faster-rcnn", "-o", str(tmp_path / "new" / "pap.png")]) == 0
    text = capsys.readouterr().out
    assert "H2: (0, 0) (0.3344, 0.0268)" in text
    assert "H2: (0, 0) (0.9058, 0.0484)" in text
    assert {file.name for file in (tmp_path / "new").iterdir()} == {"pap.png", "pap-rpn.png"}
    assert run(["formula", "cse-autoloss-b", "--json"]) == 0
    assert "latex" in capsys.readouterr().out
    assert run(["formula", "focal-giou", "-o", str(tmp_path / "none.png")]) == 2
    assert "has no formula" in capsys.readouterr().err
    assert run(["formula", "ap-l1", "-o", str(tmp_path / "none.xyz")]) == 2
    assert "bug" not in capsys.readouterr().err
