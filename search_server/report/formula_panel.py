"""The formulas of what was found, typeset, with what their symbols mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from losses import Branch, ExpressionBranch, LossDefinition, LossesError, RankingBranch
from primitives import Expression
from search_server.formulas import (
    INPUT_WORDS,
    Typeset,
    branch_text,
    draw,
    plain,
    typeset,
    typeset_ranking,
)
from search_server.ranking_formulas import FORMULAS
from search_server.report.records import Findings
from search_server.report.style import INK, MUTED, fitting_size, message

_TITLES = {"cls": "Classification loss", "bbox": "Box loss", "rpn": "Loss of the region proposals"}
_JOINT = "Loss of scores and boxes"
_TITLE_HEIGHT = 22.0  # points
_AFTER = 12.0
_INDENT = 12.0
_RANKING_SIZE = 15.0


@dataclass(frozen=True)
class Block:
    """One branch: its title, what the symbols mean, and the formula."""

    title: str
    words: str
    formula: Typeset

    @property
    def height(self) -> float:
        """Points."""
        return _TITLE_HEIGHT + self.formula.height + _AFTER


@dataclass(frozen=True)
class FormulaPanel:
    """The panel before it is drawn, so that the page knows its height.

    Attributes:
        width, height: inches.
    """

    blocks: tuple[Block, ...]
    width: float

    @classmethod
    def of(cls, findings: Findings, width: float) -> FormulaPanel:
        """Typesets the branches of what was found; without it, an empty panel that says so."""
        if findings.shown is None:
            return cls((), width)
        points = 72 * width - 2 * _INDENT
        return cls(tuple(_blocks(findings.shown, points)), width)

    @property
    def height(self) -> float:
        """Inches; 0.6 where there is nothing to typeset."""
        return sum(block.height for block in self.blocks) / 72 if self.blocks else 0.6

    def draw(self, axes: Axes) -> None:
        """Draws the panel on axes of its own size."""
        if not self.blocks:
            message(axes, "No candidate has finished training, so there is no formula to show.")
            return
        axes.set(xlim=(0, 72 * self.width), ylim=(72 * self.height, 0))
        axes.axis("off")
        y = 0.0
        for block in self.blocks:
            # the title is as wide as bold letters of 0.7 em are
            room = 72 * self.width - 14 - 0.7 * 11 * len(block.title)
            title = axes.text(
                0, y + 7, block.title, fontsize=11, fontweight="bold", va="center", color=INK
            )
            axes.annotate(
                block.words, (1, 0.5), xycoords=title, xytext=(14, 0), textcoords="offset points",
                fontsize=fitting_size(block.words, room, 9.0, 5.0), color=MUTED, va="center",
                annotation_clip=False, parse_math=False,
            )  # fmt: skip
            draw(axes, block.formula, _INDENT, y + _TITLE_HEIGHT, INK)
            y += block.height


def _blocks(definition: Mapping[str, Any], width: float) -> list[Block]:
    try:
        loss = LossDefinition.from_json(definition)
    except LossesError:
        return [Block("Loss", "", plain(ascii(dict(definition)), width))]
    blocks: list[Block] = []
    joint = isinstance(loss.cls, RankingBranch) and loss.cls.has_box_loss
    for branch, title in _TITLES.items():
        given = loss.branch(branch)
        expression = loss.expressions.get(branch)
        if given is None and (branch == "rpn" or joint):
            continue
        if isinstance(given, RankingBranch):
            name = _JOINT if branch == "cls" and joint else title
            blocks.append(_ranking_block(name, given, blocks, width))
        elif expression is None:
            blocks.append(Block(title, "", plain(branch_text(loss.branch(branch)), width, 11.0)))
        else:
            words = _words(expression, loss.branch(branch))
            blocks.append(Block(title, words, typeset(expression, width)))
    return blocks


def _ranking_block(title: str, branch: RankingBranch, before: list[Block], width: float) -> Block:
    """A ranking loss; its formula is set once, where several branches have the same."""
    formula, words = typeset_ranking(branch, width, _RANKING_SIZE), branch_text(branch)
    if any(block.formula == formula for block in before):
        return Block(title, "", plain(f"{words}: the same formula", width, 11.0))
    return Block(title, f"{words}.  {FORMULAS[branch.loss].symbols}", formula)


def _words(expression: Expression, branch: Branch | None) -> str:
    """What the inputs mean and how the loss is weighted, in one line."""
    names = [i.name for i in expression.space.inputs if i.name in expression.inputs]
    words = [f"{name}: {INPUT_WORDS[name]}" for name in names if name in INPUT_WORDS]
    if isinstance(branch, ExpressionBranch) and branch.alpha is not None:
        words.append(f"alpha {branch.alpha:g}")
    if branch is not None and branch.loss_weight is not None:
        words.append(f"weight {branch.loss_weight:g}")
    if isinstance(branch, ExpressionBranch) and branch.scale != 1.0:
        words.append(f"calibrated by {branch.scale:.3g}")
    return ",  ".join(words)
