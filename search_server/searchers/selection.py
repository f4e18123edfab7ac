"""Who may become a parent: ranking by fitness and size, and the ways to choose from a ranking."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from numpy.random import Generator

from search_server.searchers.base import Parent
from search_server.searchers.structure import distance, structure
from search_server.spec import Searcher as Settings

P = TypeVar("P", bound=Parent)


class Ranking:
    """The candidates that were told of, kept in order where a new one does not change that of the
    others: ranking thousands anew for every candidate would cost more than drawing it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._fixed = settings.tolerance == 0 and settings.objectives == "fitness"
        self._told: list[Parent] = []

    def add(self, seen: Parent) -> None:
        """A candidate more."""
        insort(self._told, seen, key=_place)

    def all(self) -> Sequence[Parent]:
        """As `ranked` has them."""
        return self._told if self._fixed else ranked(self._told, self._settings)


def ranked(seen: Iterable[P], settings: Settings) -> list[P]:
    """The best first: those with a fitness, then those that were stopped at a rung, the later the
    better, then those that have only a score."""
    order = sorted(seen, key=_place)
    finished = [each for each in order if each.fitness is not None]
    return [*_by_fitness(finished, settings), *order[len(finished) :]]


def eligible(ranking: Sequence[P], settings: Settings) -> list[P]:
    """Those of a ranking that parents are picked from, the best first; see `spec.trees`.

    Args:
        ranking: under `truncation` the first `parents` of it suffice.
    """
    if settings.selection == "ageing":
        able = [each for each in ranking if each.fitness is not None] or list(ranking)
        living = {each.index for each in sorted(able, key=_index)[-settings.population :]}
        return [each for each in able if each.index in living]
    if settings.selection == "niches":
        return _niches(ranking, settings)
    return list(ranking[: settings.parents])


def picked(parents: Sequence[P], settings: Settings, rng: Generator) -> P:
    """One parent: any of them, or under `ageing` the best of a few."""
    if settings.selection == "ageing":
        size = min(settings.tournament, len(parents))
        return parents[int(rng.choice(len(parents), size=size, replace=False).min())]
    return parents[int(rng.integers(len(parents)))]


def picked_pair(parents: Sequence[P], settings: Settings, rng: Generator) -> tuple[P, P]:
    """Two different parents."""
    if settings.selection == "ageing":
        one = picked(parents, settings, rng)
        return one, picked([each for each in parents if each is not one], settings, rng)
    first, second = rng.choice(len(parents), size=2, replace=False)
    return parents[int(first)], parents[int(second)]


def _by_fitness(finished: Sequence[P], settings: Settings) -> Sequence[P]:
    """In the order that the settings ask for; given by fitness, then index."""
    if settings.tolerance == 0 and settings.objectives == "fitness":
        return finished
    best = max(map(_ap, finished), default=0.0)

    def steps(seen: P) -> float:
        """How far behind the best one."""
        behind = best - _ap(seen)
        return math.floor(behind / settings.tolerance) if settings.tolerance else behind

    def key(seen: P) -> tuple[Any, ...]:
        return (steps(seen), seen.size, -_ap(seen), seen.index)

    order = sorted(finished, key=key)
    if settings.objectives == "fitness":
        return order
    fronts = _fronts([(steps(seen), seen.size) for seen in order])
    return [seen for _, seen in sorted(zip(fronts, order, strict=True), key=lambda pair: pair[0])]


def _fronts(points: Sequence[tuple[float, int]]) -> list[int]:
    """The Pareto front of each point, 0 for the first; both numbers are to be small.

    Args:
        points: sorted. So one is dominated by a front if that front's last point, which has its
            smallest second number, is not the point itself and not larger in the second number.
    """
    last: list[tuple[float, int]] = []
    found = []
    for point in points:
        front = 0
        while front < len(last) and last[front] != point and last[front][1] <= point[1]:
            front += 1
        last[front : front + 1] = [point]
        found.append(front)
    return found


def _niches(ranking: Sequence[P], settings: Settings) -> list[P]:
    """The best of each niche, at most P: clearing (Petrowski, 1996) with a capacity of one.

    A poor loss far away from all others has a niche of its own, so one that was stopped at a rung
    has none as soon as there is any with a fitness.
    """
    able = [each for each in ranking if each.fitness is not None] or ranking
    winners: list[P] = []
    centers: list[Any] = []
    for seen in able:
        if len(winners) == settings.parents:
            break
        own = structure(seen.expressions)
        if all(distance(own, center) > settings.radius for center in centers):
            winners.append(seen)
            centers.append(own)
    return winners


def _place(seen: Parent) -> tuple[float, ...]:
    """By fitness; without one by the last rung that was reached; else by the score."""
    if seen.fitness is not None:
        return (0, -seen.fitness, seen.index)
    if seen.rungs:
        step = max(seen.rungs)
        return (1, -step, -seen.rungs[step], seen.index)
    return (2, -(seen.score or 0.0), seen.index)


def _ap(seen: Parent) -> float:
    return seen.fitness or 0.0


def _index(seen: Parent) -> int:
    return seen.index
