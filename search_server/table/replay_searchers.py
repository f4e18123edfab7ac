"""Searches replayed on the closed sub-space: the real searchers, with readings for trials.

Time is counted in whole trials: a simulation is the share of a trial's image steps that it takes, a
candidate stopped at a rung the share of the steps until there, one that diverged until then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from losses import LossDefinition
from primitives import Expression
from search_server.funnel.rungs import stop_reason
from search_server.searchers import Observation, Problem, Searcher, generator, make_searcher
from search_server.spec import Searcher as Settings
from search_server.table.contents import Reading, TableLoss
from search_server.table.replay_policies import HalvingPolicy, elsewhere
from search_server.table.subspace import Pair, Subspace
from search_server.table.unverified import Unverified

MOST_DRAWS = 60  # of one proposal, until it leads to a pair that is new


@dataclass(frozen=True)
class Contestant:
    """A way to search.

    Attributes:
        keep: how many of a population pass the simulation; None: there is no simulation.
        halving: when candidates are stopped; None: never.
        verified: whether what verification rejects is left out; else it is trained like all else.
        inert: where nothing is verified, whether losses without any gradient are trained as well;
            else they are drawn again, which costs nothing.
    """

    name: str
    settings: Settings
    keep: int | None = None
    halving: HalvingPolicy | None = None
    verified: bool = True
    inert: bool = True


@dataclass
class _Candidate:
    """One candidate of a replayed search.

    Attributes:
        pair: None for what verification would have rejected.
        reading: of the search's seed.
        cost: so far, in whole trials.
        stopped: the rung; `dropped`: by the simulation.
    """

    definition: LossDefinition
    expressions: Mapping[str, Expression]
    pair: Pair | None
    loss: TableLoss | None
    reading: Reading
    score: float | None = None
    cost: float = 0.0
    dropped: bool = False
    stopped: int | None = None
    resolved: bool = False

    @property
    def fitness(self) -> float | None:
        """AP of the proxy trial, where it came to its end."""
        ended = self.resolved and not self.dropped and self.stopped is None
        return self.reading.ap if ended else None


@dataclass(frozen=True)
class Trace:
    """A replayed search, candidate by candidate.

    Attributes:
        time: whole trials spent when the candidate was resolved, `(N,)`.
        best: highest fitness so far, of the seed that the search trains with.
        true: AP of the candidate that has it, on the other seeds.
    """

    time: tuple[float, ...]
    best: tuple[float, ...]
    true: tuple[float, ...]

    def at(self, time: float, what: Sequence[float], start: float) -> float:
        """The value that was reached by a time; `start` before there was any."""
        place = int(np.searchsorted(np.asarray(self.time), time, side="right")) - 1
        return what[place] if place >= 0 else start

    def reaches(self, ap: float) -> float | None:
        """The time at which the best fitness first reached an AP; None: it did not."""
        return next((t for t, b in zip(self.time, self.best, strict=True) if b >= ap), None)


@dataclass(frozen=True)
class Time:
    """What a search is given.

    Attributes:
        budget: whole trials that it plans with.
        goal: a fitness until which it goes on when they are spent; None: it ends there.
        longest: whole trials after which it ends in any case.
    """

    budget: float
    goal: float | None = None
    longest: float = 0.0

    def over(self, spent: float, best: float) -> bool:
        """Whether a search ends that has spent so much and has found so much."""
        if spent < self.budget:
            return False
        return self.goal is None or best >= self.goal or spent >= self.longest


@dataclass
class _Replay:
    """A search under way."""

    space: Subspace
    contestant: Contestant
    seed: int  # of the search
    trained: int  # seed of its trials
    problem: Problem
    searcher: Searcher
    unverified: Unverified | None
    candidates: list[_Candidate] = field(default_factory=list)
    known: set[Pair] = field(default_factory=set)
    told: int = 0
    told_cost: float = 0.0

    def run(self, time: Time, most: int) -> Trace:
        """Candidates until the time is spent or nothing new is found."""
        base = self.space.table.baseline(self.space.group)
        times, best, true = [], [], []
        spent, top, top_true = 0.0, base.readings[self.trained].ap, elsewhere(base, self.trained)
        shown = 0
        for index in range(1, most + 1):
            self._tell(index - self.problem.window, time.budget)
            made = self._made(index)
            if made is None:
                break
            self.candidates.append(made)
            for each in self._resolve(index):
                shown += 1
                spent += each.cost
                if each.fitness is not None and each.fitness > top:
                    top = each.fitness
                    top_true = elsewhere(each.loss, self.trained) if each.loss else each.fitness
                times.append(spent)
                best.append(top)
                true.append(top_true)
            if time.over(spent, top):
                break
        return Trace(tuple(times), tuple(best), tuple(true))

    def _tell(self, last: int, budget: float) -> None:
        while self.told < last:
            self.told += 1
            each = self.candidates[self.told - 1]
            rungs = {
                rung: each.reading.rungs[rung]
                for rung in self._rungs()
                if not each.dropped and (each.stopped is None or rung <= each.stopped)
            }
            score = None if self.contestant.keep is None else each.score  # what was paid for
            self.told_cost += each.cost
            self.searcher.tell(
                Observation(
                    self.told,
                    each.definition,
                    each.expressions,
                    each.fitness,
                    score,
                    rungs,
                    spent=self.told_cost / budget,
                )
            )

    def _rungs(self) -> tuple[int, ...]:
        return self.contestant.halving.rungs if self.contestant.halving else ()

    def _made(self, index: int) -> _Candidate | None:
        """A pair that is new and trained, or what verification would have rejected."""
        rng = generator(self.seed, index)
        for proposal in self.searcher.ask(index, rng):
            limit = MOST_DRAWS if proposal.limit is None else proposal.limit
            if self.unverified is not None and proposal.origin != "named":
                # once a proposal: that the small sub-space repeats itself makes no more rejects
                found = self.unverified.rejected(proposal.origin, proposal.draws, rng)
                if found is not None:
                    return self._rejected(proposal.start, found[0])
            for _ in range(limit):
                drawn = {branch: draw(rng) for branch, draw in proposal.draws.items()}
                definition = proposal.start
                if proposal.origin != "named":
                    definition = self.problem.filled(definition, drawn, f"candidate-{index}")
                expressions = definition.expressions
                pair = self.space.pair(expressions)
                if pair is not None and pair in self.space.losses and pair not in self.known:
                    self.known.add(pair)
                    loss = self.space.losses[pair]
                    reading = loss.readings[self.trained]
                    return _Candidate(definition, expressions, pair, loss, reading, loss.score)
        return None

    def _rejected(self, start: LossDefinition, loss: TableLoss | None) -> _Candidate:
        """A candidate that cannot become a parent: nothing is known of its offspring."""
        zero = Reading(0.0, dict.fromkeys(self.space.table.rungs, 0.0), 1.0, "done", 0.0)
        seeds = loss.readings if loss is not None else {}
        reading = seeds.get(self.trained) or next(iter(seeds.values()), zero)
        return _Candidate(start, {}, None, loss, reading)

    def _resolve(self, index: int) -> list[_Candidate]:
        """Those whose fate is known now that `index` is there: it alone, or its whole cohort."""
        keep = self.contestant.keep
        if keep is None:
            cohort = [index]
        else:
            population = self.contestant.settings.population
            if index % population:
                return []
            cohort = list(range(index - population + 1, index + 1))
            self._simulate([self.candidates[number - 1] for number in cohort], keep)
        for number in cohort:
            self._train(number)
        return [self.candidates[number - 1] for number in cohort]

    def _simulate(self, cohort: Sequence[_Candidate], keep: int) -> None:
        spec = self.space.table.spec
        small = spec["simulate"]
        cost = small["steps"] * small["batch_size"] / (spec["steps"] * spec["batch_size"])
        order = sorted(range(len(cohort)), key=lambda place: (-(cohort[place].score or 0), place))
        cohort[0].cost += cost * len(cohort)  # all are simulated before any is trained
        for rank, place in enumerate(order):
            cohort[place].dropped = rank >= keep

    def _train(self, number: int) -> None:
        each = self.candidates[number - 1]
        each.resolved = True
        if each.dropped:
            return
        each.stopped = self._stop(number)
        share = self.space.table.share_of(each.stopped)
        each.cost += min(share, each.reading.share)

    def _stop(self, number: int) -> int | None:
        policy = self.contestant.halving
        if policy is None:
            return None
        each = self.candidates[number - 1]
        base = self.space.table.baseline(self.space.group).readings[self.trained]
        older = self.candidates[: max(0, number - self.problem.window)]
        for rung in policy.rungs:
            earlier = [
                other.reading.rungs[rung]
                for other in older
                if not other.dropped and (other.stopped is None or other.stopped >= rung)
            ]
            ap, own = each.reading.rungs[rung], base.rungs[rung]
            if stop_reason(rung, ap, own, earlier, policy.reduction, policy.hopeless):
                return rung
        return None


def replay_search(
    space: Subspace, contestant: Contestant, seed: int, time: Time, most: int = 2000
) -> Trace:
    """One search on a sub-space.

    Trials are those of one of the table's seeds, in turn with the seed of the search; the true AP
    of what it finds is that of the others, so that luck does not count.

    Args:
        most: candidates at most.
    """
    settings = contestant.settings
    trained = space.seeds[seed % len(space.seeds)]
    unverified = None
    if not contestant.verified:
        unverified = Unverified.of(space.table, space.group, contestant.inert)
    problem = space.problem(settings.population, seed)
    searcher = make_searcher(settings, problem)
    replay = _Replay(space, contestant, seed, trained, problem, searcher, unverified)
    return replay.run(time, most)
