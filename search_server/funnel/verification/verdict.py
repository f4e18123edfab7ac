"""What verification says about an expression, and how a condition says no."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Verdict:
    """The outcome of verification.

    Attributes:
        accepted: whether the expression met every condition.
        condition: short, stable name of the first condition that failed ("wrong direction");
            None where accepted. Job counters and the command line group by it.
        message: one sentence for people, with the numbers that decided.
        measures: the numbers taken up to the decision, by name. Gradients are per unit of logit
            (classification) or per whole way from prediction to target (box).
    """

    accepted: bool
    condition: str | None
    message: str
    measures: Mapping[str, float] = field(default_factory=dict)


class Rejected(Exception):  # noqa: N818 - the outcome of a condition, not an error
    """Raised by the first condition that an expression fails; never leaves this package."""

    def __init__(self, condition: str, message: str) -> None:
        self.condition = condition
        self.message = message
        super().__init__(message)
