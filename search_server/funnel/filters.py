"""What a drawn expression has to pass before it is trained: the rules of one job."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from losses import LossDefinition
from primitives import SPACES, Expression, SearchSpace
from search_server.funnel.equivalence import equivalent
from search_server.funnel.rejection import reject
from search_server.funnel.verification import Verdict, verify
from search_server.searchers import Problem
from search_server.spec.budgets import Verify


def is_autoloss_zero(space: SearchSpace) -> bool:
    """Whether a space is one of the built-in spaces of AutoLoss-Zero."""
    return space.name.startswith("autoloss_zero_") and SPACES.get(space.name) == space


def by_rejection(space: SearchSpace, settings: Verify) -> bool:
    """Whether expressions of a space go through AutoLoss-Zero's filters."""
    if settings.method is None:
        return is_autoloss_zero(space)
    return settings.method == "rejection"


@dataclass(frozen=True)
class Filters:
    """The filters between a draw and the first trial, as a job's spec sets them.

    Attributes:
        settings: `funnel.verify` of the spec.
    """

    settings: Verify

    def verdict(self, expression: Expression) -> Verdict:
        """What is to be thought of an expression on its own."""
        if self.settings.method == "none":
            return Verdict(True, None, "nothing is asked of it")
        if by_rejection(expression.space, self.settings):
            return reject(expression, self.settings.rejection)
        return verify(expression)

    def equivalent(self, definition: LossDefinition, known: Collection[str]) -> bool:
        """Whether a definition is as good as one of the known keys; False where that is not asked.

        It is asked where a branch is an expression that goes through AutoLoss-Zero's filters.
        """
        digits = self.settings.rejection.digits
        asked = any(
            by_rejection(expression.space, self.settings)
            for expression in definition.expressions.values()
        )
        return asked and digits is not None and equivalent(definition.key, known, digits)

    def leave_out(self, named: LossDefinition, problem: Problem) -> bool:
        """Whether a named loss has an expression that a searched space of AutoLoss-Zero has not."""
        return any(
            is_autoloss_zero(space)
            and branch in named.expressions
            and problem.expression(named, branch) is None
            for branch, space in problem.spaces.items()
        )
