"""What a search without verification would draw: rejected losses, at the measured rates.

The sub-space holds accepted expressions only. A search that verifies nothing trains whatever it
draws; how often that is one that verification would reject is counted in the table's draws, by
branch, way and condition, and what such a loss comes to is known of those that were trained. A
loss that ignores the prediction was not trained, for it never learns: AP 0, as is the one draw in a
hundred thousand of another kind that was not.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from numpy.random import Generator

from search_server.table.contents import Table, TableLoss
from search_server.table.replay_filters import WITHOUT_GRADIENT


@dataclass(frozen=True)
class _Outcomes:
    """What drawing one branch in one way leads to.

    Attributes:
        accepted: share of the draws.
        conditions, shares: of the rejected ones, by condition; shares sum to 1.
    """

    accepted: float
    conditions: tuple[str, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Unverified:
    """Draws of a group without verification.

    Attributes:
        outcomes: by branch and way.
        trained: rejected losses that were trained, by branch and condition.
    """

    outcomes: dict[tuple[str, str], _Outcomes]
    trained: dict[tuple[str, str], list[TableLoss]]

    @classmethod
    def of(cls, table: Table, group: str, inert: bool = True) -> Unverified:
        """As a table has measured it.

        Args:
            inert: whether losses that ignore the prediction are among the draws.
        """
        trained: dict[tuple[str, str], list[TableLoss]] = {}
        for loss in table.trained(group):
            if loss.rejected:
                place = (str(loss.plan.branch), str(loss.plan.condition))
                trained.setdefault(place, []).append(loss)
        outcomes = {}
        for counts in table.draws:
            if counts.group == group:
                conditions = {
                    condition: number
                    for condition, number in counts.conditions.items()
                    if inert or condition != WITHOUT_GRADIENT
                }
                rejected = sum(conditions.values())
                draws = counts.accepted + rejected
                outcomes[counts.branch, counts.way] = _Outcomes(
                    counts.accepted / draws if draws else 0.0,
                    tuple(conditions),
                    tuple(number / (rejected or 1) for number in conditions.values()),
                )
        return cls(outcomes, trained)

    def rejected(
        self, way: str, branches: Collection[str], rng: Generator
    ) -> tuple[TableLoss | None] | None:
        """What a draw of some branches comes to, if one of them would be rejected.

        Args:
            way: random, mutation or crossover; refinements move numbers of what was accepted and
                count as accepted.

        Returns:
            None: all would be accepted. Else the trained loss that stands for it, in a tuple; None
            in it: one without gradient. Of two rejected branches the worse one counts.
        """
        found: list[TableLoss | None] = []
        for branch in branches:
            outcomes = self.outcomes.get((branch, way))
            if outcomes is None or rng.random() < outcomes.accepted:
                continue
            condition = outcomes.conditions[
                int(rng.choice(len(outcomes.conditions), p=outcomes.shares))
            ]
            losses = self.trained.get((branch, condition))
            found.append(losses[int(rng.integers(len(losses)))] if losses else None)
        if not found:
            return None
        return (min(found, key=lambda loss: 0.0 if loss is None else loss.mean() or 0.0),)
