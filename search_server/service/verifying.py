"""Is an expression a loss at all? The funnel's own test, within bounds on what it may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from primitives import Expression, PrimitivesError
from search_server.funnel.filters import Filters, by_rejection
from search_server.funnel.verification import family_of
from search_server.service.problems import Problem
from search_server.spec.budgets import Verify

LARGEST = 512  # nodes, which is what the language allows
LARGEST_DESCENT = 96  # of one whose predictions are moved down it, step by step


@dataclass(frozen=True)
class Verdict:
    """What is to be thought of an expression; see `funnel.verification.Verdict`."""

    expression: str
    space: str
    family: str
    accepted: bool
    condition: str | None
    message: str
    measures: Mapping[str, float]


def verdict_of(expression: Expression) -> Verdict:
    """What the funnel's first stage says.

    Raises:
        Problem: 422, it is too large to be tried, or of a space that no loss has the inputs of.
    """
    settings = Verify(method=None)
    most = LARGEST_DESCENT if by_rejection(expression.space, settings) else LARGEST
    if expression.size > most:
        raise Problem(
            422,
            f"expression: it has {expression.size} nodes; here at most {most} are tried "
            "(`lossforge verify` has no such limit)",
        )
    try:
        family = family_of(expression.space).name
        found = Filters(settings).verdict(expression)
    except PrimitivesError as error:
        raise Problem(422, f"space: {error}") from None
    return Verdict(
        str(expression), expression.space.name, family, found.accepted, found.condition,
        found.message, dict(found.measures),
    )  # fmt: skip
