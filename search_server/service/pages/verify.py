"""Is an expression a loss at all? By a form; with scripts, as one types."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from primitives import SPACES
from search_server.formulas import INPUT_WORDS
from search_server.service.access import Caller, Reader
from search_server.service.formula_view import expression_formula, read_expression
from search_server.service.pages.forms import OwnForm
from search_server.service.pages.rendering import page
from search_server.service.problems import Problem
from search_server.service.verifying import verdict_of

router = APIRouter()
LONGEST = 10_000
EXAMPLES = (
    ("box", "Sub(1,Div(I,U))", "IoU loss"),
    ("box", "Sub(Add(1,Div(Sub(E,U),E)),Div(I,U))", "GIoU loss"),
    ("binary_cls", "Mul(Add(Q,Sig(X)),Sub(Softplus(X),Mul(Q,X)))", "a discovered one"),
    ("binary_cls", "Neg(Mul(Q,X))", "no loss: nothing holds background down"),
)


@router.get("/verify")
def verify(
    request: Request, caller: Reader, expression: str = "", space: str = "binary_cls"
) -> HTMLResponse:
    """The form, perhaps with something in it that was linked to; a link has nothing worked out."""
    known = space if space in SPACES else "binary_cls"
    return _page(request, caller, expression[:LONGEST], known)


@router.post("/verify")
def verified(request: Request, caller: Reader, fields: OwnForm) -> HTMLResponse:
    """What the funnel says of the expression in the form."""
    expression, space = fields.get("expression", ""), fields.get("space", "")
    return judged(request, caller, expression, space)


def judged(request: Request, caller: Caller, expression: str, space: str) -> HTMLResponse:
    """The form with the verdict below it, or what is wrong beside its fields."""
    if not expression.strip():
        errors = {"expression": "write an expression in prefix form"}
        return _page(request, caller, expression, space, errors, 422)
    if len(expression) > LONGEST:
        errors = {"expression": f"at most {LONGEST} characters"}
        return _page(request, caller, expression[:LONGEST], space, errors, 422)
    try:
        parsed = read_expression(expression, space)
        formula, verdict = expression_formula(parsed), verdict_of(parsed)
    except Problem as problem:
        wrong = {each.field: each.allowed for each in problem.errors}
        errors = wrong or {"expression": problem.detail}
        return _page(request, caller, expression, space, errors, problem.status)
    return _page(request, caller, expression, space, formula=formula, verdict=verdict)


def _page(
    request: Request,
    caller: Caller,
    expression: str,
    space: str,
    errors: dict[str, str] | None = None,
    status: int = 200,
    **given: object,
) -> HTMLResponse:
    told = {"formula": None, "verdict": None, **given}
    return page(
        request,
        caller,
        "verify.html",
        status,
        expression=expression,
        space=space,
        spaces=SPACES,
        words=INPUT_WORDS,
        examples=EXAMPLES,
        errors=errors or {},
        **told,
    )
