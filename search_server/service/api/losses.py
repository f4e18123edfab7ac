"""Losses beside any job: formulas, verdicts, the spaces and the catalogue."""

from __future__ import annotations

from functools import cache

from fastapi import APIRouter, Request

from losses import CATALOG
from primitives import SPACES, SearchSpace
from search_server.formulas import INPUT_WORDS, branch_texts
from search_server.service.access import Reader
from search_server.service.api.responses import problems
from search_server.service.formula_view import (
    FormulaView,
    expression_formula,
    formula_view,
    read_expression,
)
from search_server.service.models.formulas import (
    Formula,
    FormulaAsked,
    LossList,
    NamedLoss,
    SpaceItem,
    SpaceList,
    VerdictAnswer,
    VerifyAsked,
    formula_answer,
)
from search_server.service.problems import Problem
from search_server.service.verifying import verdict_of

router = APIRouter(tags=["losses"])


@router.post("/formula", responses=problems(400))
def formula(request: Request, caller: Reader, asked: FormulaAsked) -> Formula:
    """What a loss computes, as LaTeX, as MathML and as trees; nothing is stored."""
    text, space = asked.expression, asked.space
    if asked.definition is not None and text is None and space is None:
        return formula_answer(formula_view(asked.definition))
    if asked.definition is not None or text is None or space is None:
        raise Problem(422, "give a definition, or an expression and its space; one of the two")
    expression = read_expression(text, space)
    found = expression_formula(expression)
    return formula_answer(FormulaView("", 1.0, False, {"expression": found}))


@router.post("/verify", responses=problems(400))
def verify(request: Request, caller: Reader, asked: VerifyAsked) -> VerdictAnswer:
    """Whether an expression is a loss at all: what the funnel asks before anything is trained."""
    return VerdictAnswer.model_validate(verdict_of(read_expression(asked.expression, asked.space)))


@router.get("/spaces", responses=problems())
def spaces(request: Request, caller: Reader) -> SpaceList:
    """The built-in search spaces."""
    return SpaceList(spaces=[_space(space) for space in SPACES.values()])


@router.get("/losses", responses=problems())
def losses(request: Request, caller: Reader) -> LossList:
    """The catalogue of named losses, as specs name them."""
    return _catalogue()


def _space(space: SearchSpace) -> SpaceItem:
    words = {each.name: INPUT_WORDS.get(each.name, "") for each in space.inputs}
    return SpaceItem(**space.to_json(), words=words)


@cache
def _catalogue() -> LossList:
    return LossList(
        losses=[
            NamedLoss(name=name, branches=branch_texts(definition), definition=definition.to_json())
            for name, definition in CATALOG.items()
        ]
    )
