"""Evolution as in CSE-AutoLoss: named and random losses first, then the offspring of the best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from numpy.random import Generator

from primitives import (
    Expression,
    crossover,
    hoist,
    insert_constant,
    mutate_constants,
    mutate_point,
    mutate_subtree,
)
from search_server.searchers.base import (
    UNBORN,
    Draw,
    Observation,
    Parent,
    Problem,
    Proposal,
    TreeSearcher,
    always,
    indices,
)
from search_server.searchers.refinement import REACH, near, refined
from search_server.searchers.remembered import Memory
from search_server.searchers.selection import Ranking, eligible, picked, picked_pair
from search_server.searchers.structure import landed
from search_server.spec import Searcher as SearcherSpec

REFINEMENTS = 4  # ways to move the numbers of the best, before structure is changed instead


def move_constants(expression: Expression, rng: Generator) -> Expression:
    """Its constants a little moved, or as often a new one beside a part of it."""
    if rng.random() < 0.5:
        moved = mutate_constants(expression, rng)
        if moved != expression:
            return moved
    return insert_constant(expression, rng)


MUTATIONS = {
    "subtree": mutate_subtree,
    "point": mutate_point,
    "hoist": hoist,
    "constant": move_constants,
}


class EvolutionSearcher(TreeSearcher):
    """Tree evolution over the searched branches (CSE-AutoLoss, section 3).

    First generation: the named losses, then random growth. Later: crossover of two parents,
    mutation of one, or random growth, by the weights of the spec. Parents are chosen as the spec
    says among the candidates that it was told of; while there are too few with a fitness, those
    that were stopped at a rung and then the best of the simulation fill up, and the named losses
    where nothing was told yet. The last candidates are the best ones with their numbers moved,
    where the spec asks for it.

    What a candidate is made by is drawn once. A way that finds nothing new and verified within its
    draws gives way to the next: crossover to mutation, mutation to random growth, random growth to
    mutation. So the weights hold for what is accepted, though random growth is accepted some
    thousand times less often than mutation.
    """

    def __init__(self, settings: SearcherSpec, problem: Problem) -> None:
        super().__init__(settings, problem)
        self._memory = Memory(problem)
        self._ranking = Ranking(settings)
        self._spent = 0.0

    def tell(self, observation: Observation) -> None:
        """A candidate with a fitness, or at least a rung or a score, can become a parent."""
        seen = observation
        self._spent = max(self._spent, seen.spent or 0.0)
        if seen.fitness is not None or seen.score is not None or seen.rungs:
            self._ranking.add(self._memory.of(seen))

    def ask(self, index: int, rng: Generator) -> Iterator[Proposal]:
        """See `Searcher.ask`."""
        yield from self.named(index)
        ranking = self._ranking.all()
        able = self._able(index, ranking)
        parents = eligible(able, self.settings) if able else self._named(index)
        best = ranking[0] if ranking and self.problem.alternate else None
        if able and (sigma := self._sigma(index)) is not None:
            for _ in range(REFINEMENTS):
                yield refined(near(able, rng), self.active(index), sigma, self.problem, rng)
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

    def _sigma(self, index: int) -> float | None:
        """The spread of a refinement; None where it is not the time for it yet."""
        refine, total = self.settings.refine, self.problem.total
        if refine == 0 or self.generation(index) == 0:
            return None
        made = 0.0 if total is None else index / total
        done = (max(made, self._spent) - (1.0 - refine)) / refine  # of the refinement
        return self.settings.sigma * (1.0 - 0.75 * min(1.0, done)) if done > 0 else None

    def _able(self, index: int, ranking: Sequence[Parent]) -> list[Parent]:
        """Those of a ranking that have an expression in an active branch, as far as it matters."""
        active, settings = self.active(index), self.settings
        able = (seen for seen in ranking if any(branch in seen.branches for branch in active))
        most = max(settings.parents, REACH) if settings.selection == "truncation" else None
        return list(islice(able, most))

    def _named(self, index: int) -> list[Parent]:
        """The named losses as parents, where there are no others."""
        named = ((chosen, self.problem.expressions(chosen)) for chosen in self.problem.named)
        return self._able(index, [Observation(UNBORN, *pair, None, None) for pair in named])

    def _any(self, rng: Generator, parents: Sequence[Parent]) -> Parent | None:
        """One of the parents; none in the alternating mode, which takes the template's branch."""
        if not parents or self.problem.alternate:
            return None
        return parents[int(rng.integers(len(parents)))]

    def _mutated(
        self,
        index: int,
        rng: Generator,
        parents: Sequence[Parent],
        best: Parent | None,
    ) -> Proposal:
        """One parent, changed in some of the active branches, at least in one."""
        parent = picked(parents, self.settings, rng)
        able = [branch for branch in self.active(index) if branch in parent.expressions]
        subset = int(rng.integers(1, 2 ** len(able)))
        draws = {
            branch: self._mutation(branch, parent.expressions[branch])
            for bit, branch in enumerate(able)
            if subset >> bit & 1
        }
        start = best or parent
        return Proposal("mutation", indices(parent, start), start.definition, draws)

    def _crossed(
        self,
        index: int,
        rng: Generator,
        parents: Sequence[Parent],
        best: Parent | None,
    ) -> Proposal:
        """Two parents, crossed in every active branch; one that only the second has is its own.

        Where nothing is crossed there is nothing random either: one draw tells all.
        """
        one, two = picked_pair(parents, self.settings, rng)
        draws: dict[str, Draw] = {}
        limit: int | None = 1
        for branch in self.active(index):
            if branch in one.expressions and branch in two.expressions:
                pair = one.expressions[branch], two.expressions[branch]
                draws[branch] = self._landing(branch, _crossing(*pair), ())
                limit = None
            elif branch in two.expressions:
                draws[branch] = always(two.expressions[branch])
        start = best or one
        return Proposal("crossover", indices(one, two, start), start.definition, draws, limit)

    def _mutation(self, branch: str, parent: Expression) -> Draw:
        kinds = self.settings.mutate
        weights = {kind: value for kind in MUTATIONS if (value := getattr(kinds, kind)) > 0}
        draw: Draw = lambda rng: MUTATIONS[_choice(rng, weights)](parent, rng)  # noqa: E731
        return self._landing(branch, draw, (parent,))

    def _landing(self, branch: str, draw: Draw, left_out: Sequence[Expression]) -> Draw:
        """The draw itself, or where there is a pool, the member of it that the draw leads to."""
        if self.problem.pool is None:
            return draw
        members = self.problem.pool[branch]
        return lambda rng: landed(draw(rng), members, left_out, rng)

    def _weights(self) -> dict[str, float]:
        settings = self.settings
        return {
            "random": settings.random,
            "mutation": settings.mutation,
            "crossover": settings.crossover,
        }


def _crossing(one: Expression, two: Expression) -> Draw:
    return lambda rng: crossover(one, two, rng)


def _choice(rng: Generator, weights: dict[str, float]) -> str:
    names, total = list(weights), sum(weights.values())
    return names[int(rng.choice(len(names), p=[weights[name] / total for name in names]))]
