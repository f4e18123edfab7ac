"""Formulas for people: an expression as typeset lines that fit a width, as text, as a picture."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from losses import (
    BRANCHES,
    Branch,
    ExpressionBranch,
    LossDefinition,
    RankingBranch,
    StockBranch,
)
from primitives import Expression, Input, Kind, Node, PrimitivesError, SearchSpace
from search_server.ranking_formulas import FORMULAS
from search_server.ranking_text import NAMES, ranking_text
from search_server.readable import readable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: What the inputs of the built-in spaces mean.
INPUT_WORDS: Mapping[str, str] = {
    "X": "logit",
    "Y": "label (one-hot)",
    "Z": "IoU of the box",
    "Q": "IoU × label",
    "PY": "label",
    "NY": "1 − label",
    "U": "union",
    "I": "intersection",
    "E": "enclosing box",
}
LARGEST = 17.0
SMALLEST = 9.0
OWN = "the detector's own loss"
_MOST_NAMES = 8
_LEADING = 1.45


@dataclass(frozen=True)
class Line:
    """One line of a formula.

    Attributes:
        text: mathtext between dollars, or plain text.
        math: whether ``text`` is mathtext.
        width, height: extent in points at the typeset size.
    """

    text: str
    math: bool
    width: float
    height: float


@dataclass(frozen=True)
class Typeset:
    """A formula as lines that fit; ``size`` is the font size in points."""

    lines: tuple[Line, ...]
    size: float

    @property
    def height(self) -> float:
        """Points from the top of the first line to the bottom of the last."""
        return sum(line.height + (_LEADING - 1) * self.size for line in self.lines)


def branch_text(branch: Branch | None) -> str:
    """One line of plain text for a branch of a loss definition, its weight where it has one, and
    the factor of its calibration."""
    if branch is None:
        return OWN
    if isinstance(branch, RankingBranch):
        return ranking_text(branch.to_json())
    if isinstance(branch, StockBranch):
        numbers = {key: value for key, value in sorted(branch.config.items()) if key != "type"}
        listed = ", ".join(f"{key}={value!r}" for key, value in numbers.items())
        text = f"{branch.type}({listed})" if listed else branch.type
    else:
        text = str(branch.expression)
    if isinstance(branch, ExpressionBranch) and branch.scale != 1.0:
        text = f"{branch.scale:g} × {text}"
    return text if branch.loss_weight is None else f"{branch.loss_weight:g} × {text}"


def branch_texts(definition: LossDefinition) -> dict[str, str]:
    """`branch_text` of every branch: `cls`, `bbox`, and `rpn` where the definition has one."""
    texts = {name: branch_text(definition.branch(name)) for name in BRANCHES}
    if isinstance(definition.cls, RankingBranch) and definition.cls.has_box_loss:
        texts["bbox"] = f"none: {NAMES[definition.cls.loss]} is the loss of the boxes too"
    if definition.rpn is not None:
        texts["rpn"] = branch_text(definition.rpn)
    return texts


def typeset(expression: Expression, width: float, size: float = LARGEST) -> Typeset:
    """Sets an expression in lines of at most ``width`` points; it never fails.

    In this order: one line; large parts named a, b, c, ... on lines of their own; a smaller font;
    the prefix text, cut into lines.

    Args:
        expression: shown in its readable form.
        width: points.
        size: font size in points to begin with, at least :data:`SMALLEST`.
    """
    tidy = readable(expression)
    try:
        while size >= SMALLEST:
            lines = _named_lines(tidy, width, size)
            if lines:
                return Typeset(tuple(lines), size)
            size -= 2.0
    except (ValueError, PrimitivesError):
        pass  # mathtext does not know every LaTeX; the prefix text always works
    return plain(str(expression), width)


def typeset_ranking(branch: RankingBranch, width: float, size: float = LARGEST) -> Typeset:
    """Sets the formula of a ranking loss, smaller where the width asks for it; it never fails."""
    formula = FORMULAS[branch.loss]
    while size >= SMALLEST:
        lines = tuple(_line(latex, size) for latex in formula.latex)
        if max(line.width for line in lines) <= width:
            return Typeset(lines, size)
        size -= 2.0
    cut = [plain(text, width).lines for text in formula.text]
    return Typeset(tuple(line for lines in cut for line in lines), SMALLEST)


def plain(text: str, width: float, size: float = SMALLEST) -> Typeset:
    """Plain text cut into lines of at most ``width`` points in the monospaced font."""
    advance = 0.602 * size  # of DejaVu Sans Mono
    count = max(8, int(width / advance))
    parts = [text[start : start + count] for start in range(0, len(text), count)] or [""]
    return Typeset(tuple(Line(part, False, len(part) * advance, size) for part in parts), size)


def draw(axes: Axes, formula: Typeset, x: float, y: float, color: str) -> None:
    """Draws on axes whose data units are points, ``y`` downwards from the top of the first line."""
    for line in formula.lines:
        axes.text(
            x, y + line.height / 2, line.text, fontsize=formula.size, color=color, ha="left",
            va="center", parse_math=line.math, family=None if line.math else "monospace",
            math_fontfamily="stix",
        )  # fmt: skip
        y += line.height + (_LEADING - 1) * formula.size


def picture(loss: Expression | RankingBranch, path: Path, width: float = 640.0) -> None:
    """Writes a formula as a picture that is as wide and high as it needs; PAP's functions below.

    Args:
        path: its suffix says the format, such as ``.png`` or ``.svg``.
        width: points at most.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from search_server.report.function_panels import HEIGHT, draw_functions
    from search_server.report.style import RC

    if isinstance(loss, RankingBranch):
        formula, functions = typeset_ranking(loss, width), loss.functions
    else:
        formula, functions = typeset(loss, width), None
    margin = 0.8 * formula.size
    wide = max(line.width for line in formula.lines) + 2 * margin
    high = formula.height + 2 * margin
    below = 0.0 if functions is None else HEIGHT
    wide = wide if functions is None else max(wide, width + 2 * margin)
    with mpl.rc_context(dict(RC)):
        figure = Figure(figsize=(wide / 72, (high + below) / 72))
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, below / (high + below), 1, high / (high + below)))
        axes.set(xlim=(0, wide), ylim=(high, 0))
        axes.axis("off")
        draw(axes, formula, margin, margin, "#1d2733")
        if functions is not None:

            def place(left: float, top: float, across: float, tall: float) -> Axes:
                return figure.add_axes(
                    (left / wide, 1 - (high + top + tall) / (high + below), across / wide,
                     tall / (high + below))
                )  # fmt: skip

            draw_functions(place, wide, functions)
        figure.savefig(path, dpi=200)


def _named_lines(expression: Expression, width: float, size: float) -> list[Line]:
    """The formula and the lines of its named parts, or nothing where it does not fit."""
    whole = expression
    names: list[tuple[str, Expression]] = []
    free = [c for c in string.ascii_lowercase if c not in whole.space.kinds]
    while (line := _line(_latex(whole), size)).width > width:
        if len(names) == _MOST_NAMES:
            return []
        part = _part_to_name(whole, width - 3 * size, size)
        if part is None:
            return []
        name = free[len(names)]
        names.append((name, part))
        whole = _with_name(whole, part.root, name)
    lines = [line]
    for name, part in reversed(names):  # the last may contain those before it
        lines.append(_line(f"{name} = {_latex(part)}", size))
    return lines


def _part_to_name(whole: Expression, width: float, size: float) -> Expression | None:
    """The largest part that fits the width; half of the whole at most, to keep the lines alike."""
    enough = max(3, whole.size // 2)
    parts = sorted(
        {node for node in _below(whole.root) if 3 <= node.size <= enough},
        key=lambda node: (-node.size, str(node)),
    )
    for node in parts:
        if node.kind is Kind.SCALAR:
            continue
        part = Expression(node, replace(whole.space, root=node.kind))
        if _line(_latex(part), size).width <= width:
            return part
    return None


def _with_name(whole: Expression, part: Node, name: str) -> Expression:
    """``whole`` with every occurrence of ``part`` replaced by an input of that name."""
    space: SearchSpace = replace(whole.space, inputs=(*whole.space.inputs, Input(name, part.kind)))
    leaf = Node(None, (), name, None, part.kind)

    def swapped(node: Node) -> Node:
        if node == part:
            return leaf
        if not node.children:
            return node
        children = tuple(swapped(child) for child in node.children)
        return Node(node.operator, children, node.name, node.value, node.kind)

    return Expression(swapped(whole.root), space)


def _latex(expression: Expression) -> str:
    """LaTeX in which a name of several letters is upright, and no product of its letters."""
    latex = _large_fractions(expression.latex())
    for item in expression.space.inputs:
        if len(item.name) > 1:
            upright = r"\\mathrm{" + item.name.replace("_", r"\\_") + "}"
            latex = re.sub(rf"(?<![\\\w]){item.name}(?!\w)", upright, latex)
    return latex


def _large_fractions(latex: str) -> str:
    """Display style for the fractions that are in no other fraction, root or exponent."""
    parts: list[str] = []
    depth = 0
    for part in re.split(r"(\\frac|[{}])", latex):
        depth += {"{": 1, "}": -1}.get(part, 0)
        parts.append(r"\dfrac" if part == r"\frac" and depth == 0 else part)
    return "".join(parts)


def _below(node: Node) -> list[Node]:
    found: list[Node] = []
    for child in node.children:
        found.append(child)
        found.extend(_below(child))
    return found


def _line(latex: str, size: float) -> Line:
    """Measures a line as mathtext; raises ValueError where mathtext does not know the LaTeX."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.mathtext import MathTextParser

    text = f"${latex}$"
    properties = FontProperties(size=size, math_fontfamily="stix")
    box = MathTextParser("path").parse(text, dpi=72, prop=properties)
    return Line(text, True, float(box.width), float(max(box.height, size)))
