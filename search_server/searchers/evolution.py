"""Evolution as in CSE-AutoLoss: named and random losses first, then the offspring of the best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from numpy.random import Generator

from primitives import Expression, crossover, hoist, mutate_point, mutate_subtree
from search_server.searchers.base import (
    UNBORN,
    Draw,
    Observation,
    Problem,
    Proposal,
    TreeSearcher,
    always,
    indices,
)
from search_server.spec import Searcher as SearcherSpec

MUTATIONS = {"subtree": mutate_subtree, "point": mutate_point, "hoist": hoist}


class EvolutionSearcher(TreeSearcher):
    """Tree evolution over the searched branches (CSE-AutoLoss, section 3).

    First generation: the named losses, then random growth. Later: crossover of two parents,
    mutation of one, or random growth, by the weights of the spec. Parents are the best P by
    fitness among the candidates it was told of; while there are fewer than P with a fitness, the
    best of the simulation fill up, and the named losses where nothing was told yet.

    What a candidate is made by is drawn once. A way that finds nothing new and verified within its
    draws gives way to the next: crossover to mutation, mutation to random growth, random growth to
    mutation. So the weights hold for what is accepted, though random growth is accepted some
    thousand times less often than mutation.
    """

    def __init__(self, settings: SearcherSpec, problem: Problem) -> None:
        super().__init__(settings, problem)
        self._told: list[Observation] = []

    def tell(self, observation: Observation) -> None:
        """A candidate with a fitness, or at least a score, can become a parent."""
        if observation.fitness is not None or observation.score is not None:
            self._told.append(observation)

    def ask(self, index: int, rng: Generator) -> Iterator[Proposal]:
        """See `Searcher.ask`."""
        yield from self.named(index)
        ranked = sorted(self._told, key=_rank)
        parents = self._parents(index, ranked)
        best = ranked[0] if ranked and self.problem.alternate else None
        first = _choice(rng, self._weights()) if self.generation(index) > 0 else "random"
        for origin in {
            "random": ("random", "mutation"),
            "mutation": ("mutation", "random"),
            "crossover": ("crossover", "mutation", "random"),
        }[first]:
            if origin == "random":
                yield from self.random(index, best or self._any(rng, parents))
            elif origin == "mutation" and parents:
                yield self._mutated(index, rng, parents, best)
            elif origin == "crossover" and len(parents) > 1:
                yield self._crossed(index, rng, parents, best)

    def _parents(self, index: int, ranked: Sequence[Observation]) -> list[Observation]:
        """The best P that have an expression in an active branch; else the named losses."""
        active = self.active(index)
        able = [seen for seen in ranked if any(branch in seen.expressions for branch in active)]
        if able:
            return able[: self.settings.parents]
        named = ((chosen, self.problem.expressions(chosen)) for chosen in self.problem.named)
        return [
            Observation(UNBORN, chosen, found, None, None)
            for chosen, found in named
            if any(branch in found for branch in active)
        ]

    def _any(self, rng: Generator, parents: Sequence[Observation]) -> Observation | None:
        """One of the parents; none in the alternating mode, which takes the template's branch."""
        if not parents or self.problem.alternate:
            return None
        return parents[int(rng.integers(len(parents)))]

    def _mutated(
        self,
        index: int,
        rng: Generator,
        parents: Sequence[Observation],
        best: Observation | None,
    ) -> Proposal:
        """One parent, changed in some of the active branches, at least in one."""
        parent = parents[int(rng.integers(len(parents)))]
        able = [branch for branch in self.active(index) if branch in parent.expressions]
        subset = int(rng.integers(1, 2 ** len(able)))
        draws = {
            branch: self._mutation(parent.expressions[branch])
            for bit, branch in enumerate(able)
            if subset >> bit & 1
        }
        start = best or parent
        return Proposal("mutation", indices(parent, start), start.definition, draws)

    def _crossed(
        self,
        index: int,
        rng: Generator,
        parents: Sequence[Observation],
        best: Observation | None,
    ) -> Proposal:
        """Two parents, crossed in every active branch; one that only the second has is its own.

        Where nothing is crossed there is nothing random either: one draw tells all.
        """
        one, two = (parents[int(i)] for i in rng.choice(len(parents), size=2, replace=False))
        draws: dict[str, Draw] = {}
        limit: int | None = 1
        for branch in self.active(index):
            if branch in one.expressions and branch in two.expressions:
                draws[branch] = _crossing(one.expressions[branch], two.expressions[branch])
                limit = None
            elif branch in two.expressions:
                draws[branch] = always(two.expressions[branch])
        start = best or one
        return Proposal("crossover", indices(one, two, start), start.definition, draws, limit)

    def _mutation(self, parent: Expression) -> Draw:
        kinds = self.settings.mutate
        weights = {kind: getattr(kinds, kind) for kind in MUTATIONS}
        return lambda rng: MUTATIONS[_choice(rng, weights)](parent, rng)

    def _weights(self) -> dict[str, float]:
        settings = self.settings
        return {
            "random": settings.random,
            "mutation": settings.mutation,
            "crossover": settings.crossover,
        }


def _rank(seen: Observation) -> tuple[bool, float, int]:
    """Sorts the best to the front: by fitness, then those without one by their score."""
    value = seen.score if seen.fitness is None else seen.fitness
    return (seen.fitness is None, -(value or 0.0), seen.index)


def _crossing(one: Expression, two: Expression) -> Draw:
    return lambda rng: crossover(one, two, rng)


def _choice(rng: Generator, weights: dict[str, float]) -> str:
    names, total = list(weights), sum(weights.values())
    return names[int(rng.choice(len(names), p=[weights[name] / total for name in names]))]
