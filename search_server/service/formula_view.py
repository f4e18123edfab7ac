"""What a loss computes: LaTeX and MathML of its formulas, and its expressions as trees.

All of it is made from parsed data: nothing that a user wrote reaches a formula but names of inputs,
which are identifiers, and numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from latex2mathml.converter import convert

from losses import (
    DefinitionError,
    ExpressionBranch,
    LossDefinition,
    LossesError,
    RankingBranch,
    StockBranch,
)
from primitives import Expression, Node, PrimitivesError, SearchSpace, parse
from primitives.spaces import space_of
from search_server.formulas import INPUT_WORDS, branch_texts
from search_server.ranking_formulas import FORMULAS, function_lines, ranking_lines
from search_server.readable import readable
from search_server.service.problems import FieldProblem, Problem
from search_server.store.convert import plain

Kind = Literal["expression", "ranking", "stock", "own"]
LONGEST_WORDS = 400


@dataclass(frozen=True)
class TreeNode:
    """A node of an expression as plain data: an operator with its arguments, an input, a number."""

    operator: str | None = None
    arguments: tuple[TreeNode, ...] = ()
    input: str | None = None
    value: float | None = None


@dataclass(frozen=True)
class BranchFormula:
    """What one branch computes.

    Attributes:
        text: for people, in one line; `expression`: in prefix form, and the space that it is of.
        latex, mathml: the same formulas, a line each; empty for a loss of mmdet.
        words: input -> what it means.
        lines: of a ranking loss its formula as plain text, and what its symbols mean.
        functions: of a parameterized AP loss, a function's name -> its points, the ends included.
    """

    kind: Kind
    text: str
    expression: str | None = None
    space: str | None = None
    size: int = 0
    latex: tuple[str, ...] = ()
    mathml: tuple[str, ...] = ()
    tree: TreeNode | None = None
    words: Mapping[str, str] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    functions: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class FormulaView:
    """What a loss computes, by branch."""

    name: str
    learning_rate_scale: float
    iou_centerness: bool
    branches: Mapping[str, BranchFormula]


def formula_view(definition: Mapping[str, Any], *, stored: bool = False) -> FormulaView:
    """What a definition computes.

    Args:
        stored: it is of the store, not of who asks.

    Raises:
        Problem: 422, it is no definition; 409, it is one of the store that this version cannot
            read.
    """
    given = read_definition(definition, stored=stored)
    branches = {name: _branch(given, name, text) for name, text in branch_texts(given).items()}
    return FormulaView(plain(given.name), given.learning_rate_scale, given.iou_centerness, branches)


def expression_formula(expression: Expression) -> BranchFormula:
    """What an expression computes."""
    latex = readable(expression).latex()
    return BranchFormula(
        kind="expression",
        text=str(expression),
        expression=str(expression),
        space=expression.space.name,
        size=expression.size,
        latex=(latex,),
        mathml=(mathml(latex),),
        tree=_tree(expression.root),
        words={name: INPUT_WORDS.get(name, "") for name in sorted(expression.inputs)},
    )


def read_definition(definition: Mapping[str, Any], *, stored: bool = False) -> LossDefinition:
    """The loss definition in plain JSON. Raises: see `formula_view`."""
    try:
        return LossDefinition.from_json(definition)
    except (LossesError, PrimitivesError) as error:
        if stored:
            why = "this loss was written by another version, and cannot be read here"
            raise Problem(409, why) from None
        place = error.field if isinstance(error, DefinitionError) else ""
        raise _refused(f"definition.{place}".rstrip("."), "", str(error)) from None


def read_expression(text: str, space: str | Mapping[str, Any]) -> Expression:
    """The expression in prefix form, in a built-in space or in one that is given as JSON.

    Raises:
        Problem: 422, with the field and, of an expression, the position.
    """
    try:
        found = SearchSpace.from_json(space) if isinstance(space, Mapping) else space_of(space)
    except PrimitivesError as error:
        raise _refused("space", str(space), str(error)) from None
    try:
        return parse(text, found)
    except PrimitivesError as error:
        raise _refused("expression", text, str(error)) from None


@lru_cache(maxsize=256)
def mathml(latex: str) -> str:
    """LaTeX of ours as a `math` element."""
    return str(convert(latex, display="block"))


def _branch(definition: LossDefinition, name: str, text: str) -> BranchFormula:
    branch = definition.branch(name)
    if isinstance(branch, RankingBranch):
        latex = FORMULAS[branch.loss].latex
        points = {} if branch.functions is None else branch.functions.points
        return BranchFormula(
            kind="ranking",
            text=text,
            latex=latex,
            mathml=tuple(map(mathml, latex)),
            lines=(*ranking_lines(branch), *function_lines(branch)),
            functions={each: ((0.0, 0.0), *own, (1.0, 1.0)) for each, own in points.items()},
        )
    if isinstance(branch, ExpressionBranch):
        found = expression_formula(branch.expression)
        return BranchFormula(**{**found.__dict__, "text": text})
    kind: Kind = "stock" if isinstance(branch, StockBranch) else "own"
    return BranchFormula(kind=kind, text=plain(text))


def _tree(node: Node) -> TreeNode:
    if node.operator is not None:
        return TreeNode(node.operator.name, tuple(map(_tree, node.children)))
    return TreeNode(input=node.name, value=node.value)


def _refused(field_name: str, value: str, why: str) -> Problem:
    """422 about one field; nobody is sent more of what was given than can be read."""
    cut = plain(why if len(why) <= LONGEST_WORDS else f"{why[:LONGEST_WORDS]}…")
    found = FieldProblem(field=field_name, value=plain(value[:120]), allowed=cut)
    return Problem(422, f"{field_name}: {cut}", [found])
