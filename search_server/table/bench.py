"""Everything that the table answers, in one go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from search_server.table.contents import Table
from search_server.table.replay_filters import FilterReplay, replay_filters
from search_server.table.replay_policies import (
    ConfirmRow,
    HalvingRow,
    policies_of,
    replay_confirm,
    replay_halving,
)
from search_server.table.replay_ranking import RankRow, replay_ranking
from search_server.table.tournament import Tournament, run_tournament


@dataclass(frozen=True)
class GroupBench:
    """The answers about one detector; parts are empty as long as too little of it is trained.

    Attributes:
        trained: losses with at least one reading.
        baseline: mean AP of the loss that stands for the detector's own.
        noise: standard deviation of a single AP between seeds.
        own_noise: the part of it that is a loss's own.
        best: mean AP of the best loss that verification accepts, on the seeds that chose it.
    """

    group: str
    trained: int
    baseline: float | None
    noise: float | None
    own_noise: float | None
    best: float | None
    filters: FilterReplay | None
    ranking: tuple[RankRow, ...]
    halving: tuple[HalvingRow, ...]
    confirm: tuple[ConfirmRow, ...]
    searchers: Tournament | None


@dataclass(frozen=True)
class Bench:
    """The answers of a table.

    Attributes:
        counted: how much of the table there is, see `Table.counted`.
    """

    table: str
    counted: Mapping[str, int]
    groups: tuple[GroupBench, ...]


def run_bench(
    table: Table,
    searches: int = 20,
    budget: float = 24.0,
    vanilla: float = 72.0,
    parts: bool = False,
    say: Callable[[str], None] | None = None,
) -> Bench:
    """All replays on a table, whatever part of it has been trained.

    Args:
        searches: search seeds of each way to search; 0: no searches.
        budget, vanilla, parts: see `run_tournament`.
        say: told what is under way.
    """
    told = say or _silent
    groups = []
    for group in table.groups:
        trained = table.trained(group)
        sound = [loss for loss in trained if not loss.rejected]
        told(f"{group}: filters and ranking")
        filters, ranking = replay_filters(table, group), tuple(replay_ranking(table, group))
        told(f"{group}: halving and confirmation")
        halving = tuple(replay_halving(table, group, policies_of(table.rungs)))
        confirm = tuple(replay_confirm(table, group))
        tournament = None
        if searches > 1:
            tournament = run_tournament(
                table, group, searches, budget, vanilla, parts, lambda name: told(f"search: {name}")
            )
        groups.append(
            GroupBench(
                group,
                len(trained),
                table.baseline(group).mean(),
                table.noise(group),
                table.own_noise(group),
                max((loss.mean() or 0.0 for loss in sound), default=None),
                filters,
                ranking,
                halving,
                confirm,
                tournament,
            )
        )
    return Bench(table.name, table.counted, tuple(groups))


def _silent(text: str) -> None:
    pass
