"""The closed sub-space as a problem that the real searchers work on, and what its pairs came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from losses import LossDefinition
from primitives import SPACES, Expression, parse
from search_server.searchers import Problem
from search_server.table.contents import Table, TableLoss
from search_server.table.replay_policies import elsewhere

Pair = tuple[int, int]
# What the one-stage search of the digits starts from, as names of the table's hand-made pairs.
STARTS = (
    "focal 2 0.25 + GIoU",
    "CSE-B + CSE-B",
    "quality focal 2 + GIoU",
    "varifocal + IoU",
)


@dataclass(frozen=True)
class Subspace:
    """The sub-space of one group.

    Attributes:
        table: where it is from.
        pool: by branch, the expressions in the order of `TableLoss.plan.pair`.
        losses: the pairs that have been trained.
        seeds: of which every trained pair has a reading.
        named: the losses that open a search.
    """

    table: Table
    group: str
    pool: Mapping[str, tuple[Expression, ...]]
    losses: Mapping[Pair, TableLoss]
    seeds: tuple[int, ...]
    named: tuple[LossDefinition, ...]
    _places: dict[tuple[str, Expression], int] = field(default_factory=dict, compare=False)

    def problem(self, window: int, seed: int) -> Problem:
        """What a searcher is given: it can draw from the pool alone, and its time is not counted in
        candidates."""
        return Problem(
            spaces={branch: members[0].space for branch, members in self.pool.items()},
            template=LossDefinition("template"),
            weights=dict.fromkeys(self.pool),
            named=self.named,
            window=window,
            seed=seed,
            pool=self.pool,
        )

    def value(self, loss: TableLoss, seed: int) -> float:
        """What a loss that was chosen by its reading of a seed is worth, on the other seeds."""
        return elsewhere(loss, seed)

    def pair(self, expressions: Mapping[str, Expression]) -> Pair | None:
        """The place of two expressions; None where one of them is not of the pool."""
        if not self._places:
            for branch, members in self.pool.items():
                self._places.update({(branch, each): place for place, each in enumerate(members)})
        places = [
            self._places.get((branch, expressions[branch]))
            for branch in self.pool
            if branch in expressions
        ]
        if len(places) < len(self.pool) or places[0] is None or places[1] is None:
            return None
        return places[0], places[1]


def subspace_of(table: Table, group: str) -> Subspace | None:
    """The sub-space of a group as far as it has been trained; None where there is none.

    Its seeds are those that nine tenths of the trained pairs have; pairs without one of them count
    as not trained yet.
    """
    texts = table.pools.get(group)
    base = table.baseline(group)
    if texts is None or not base.readings:
        return None
    found = {
        loss.plan.pair: loss
        for loss in table.trained(group)
        if loss.plan.pair is not None and loss.score is not None
    }
    seeds = tuple(
        seed
        for seed in table.seeds
        if seed in base.readings
        and sum(seed in loss.readings for loss in found.values()) >= 0.9 * len(found)
    )
    losses = {
        pair: loss for pair, loss in found.items() if all(seed in loss.readings for seed in seeds)
    }
    if not seeds or not losses:
        return None
    spaces = {"cls": base.plan.definition["cls"]["space"], "bbox": "box"}
    pool = {
        branch: tuple(parse(text, SPACES[spaces[branch]]) for text in texts[branch])
        for branch in ("cls", "bbox")
    }
    named = tuple(
        LossDefinition.from_json(loss.plan.definition)
        for name in STARTS
        for loss in losses.values()
        if loss.plan.name == name
    )
    return Subspace(table, group, pool, losses, seeds, named)
