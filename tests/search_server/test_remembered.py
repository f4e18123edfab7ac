"""What evolution remembers of thousands of candidates is what it was told, in the same order."""

from typing import Any

import fake_search as fake
import numpy as np
import pytest

from losses import CATALOG
from search_server.problem import problem_of
from search_server.searchers import Observation
from search_server.searchers.remembered import Memory
from search_server.searchers.selection import Ranking, ranked
from search_server.spec import Searcher

NAMES = ("cse-autoloss-a", "cse-autoloss-b", "focal-expression", "giou-expression", "focal-giou")


def observations(count: int) -> list[Observation]:
    problem, rng = problem_of(fake.spec()), np.random.default_rng(2)
    found = []
    for index in range(count):
        definition = CATALOG[NAMES[int(rng.integers(len(NAMES)))]]
        ap = float(rng.integers(0, 12)) / 10  # many are equal
        kind = rng.integers(4)
        found.append(
            Observation(
                index,
                definition,
                problem.expressions(definition),
                ap if kind < 2 else None,
                ap / 2 if kind == 2 else None,
                {10: ap, 20: ap / 3} if kind != 2 else {},
            )
        )
    return found


def test_a_loss_is_parsed_to_what_it_was() -> None:
    memory = Memory(problem_of(fake.spec()))
    for seen in observations(40):
        kept = memory.of(seen)
        for name in ("index", "definition", "expressions", "branches", "size", "fitness", "score"):
            assert getattr(kept, name) == getattr(seen, name), name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tolerance": 0.15},
        {"objectives": "fitness_and_size"},
        {"objectives": "fitness_and_size", "tolerance": 0.25},
    ],
)
def test_the_order_is_the_same_whenever_it_is_asked_for(changes: dict[str, Any]) -> None:
    settings = Searcher(population=4, parents=2, **changes)
    memory, ranking = Memory(problem_of(fake.spec())), Ranking(settings)
    told: list[Observation] = []
    for seen in observations(80):
        told.append(seen)
        ranking.add(memory.of(seen))
        if seen.index % 7 == 0:
            wanted = [each.index for each in ranked(told, settings)]
            assert [each.index for each in ranking.all()] == wanted


def test_a_plain_ranking_is_by_fitness_then_rung_then_score() -> None:
    told = observations(80)

    def key(seen: Observation) -> tuple[Any, ...]:
        if seen.fitness is not None:
            return (0, -seen.fitness, seen.index)
        if seen.rungs:
            return (1, -20, -seen.rungs[20], seen.index)
        return (2, -(seen.score or 0.0), seen.index)

    found = ranked(told, Searcher(population=4, parents=2))
    assert found == sorted(told, key=key)
