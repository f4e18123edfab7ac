"""Random expressions for the table: what verification accepts, and a sample of what it rejects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from primitives import (
    Expression,
    Gradient,
    crossover,
    grow,
    hoist,
    mutate_point,
    mutate_subtree,
)
from search_server.funnel.rejection import gradient_at
from search_server.funnel.samples import samples_of
from search_server.funnel.verification import family_of, verify

WAYS = ("random", "mutation", "crossover")
MUTATIONS = ((mutate_subtree, 0.5), (mutate_point, 0.3), (hoist, 0.2))  # and how often each
LARGEST = 40  # nodes; longer ones are bloat that the same search would also have shorter
DIFFERENT = 0.05  # in entries of a direction, whose mean square is 1


class Seen:
    """The directions of the gradients of expressions that the table has in one branch."""

    def __init__(self) -> None:
        self._known: list[NDArray[np.float64]] = []

    def add(self, expression: Expression) -> bool:
        """Remembers an expression; whether it was new, and has a finite gradient at all."""
        found = direction(expression)
        if found is None:
            return False
        for known in self._known:
            if known.shape == found.shape and np.abs(known - found).max() < DIFFERENT:
                return False
        self._known.append(found)
        return True


@dataclass
class Drawn:
    """What came of drawing in one space in one way.

    Attributes:
        draws: how many were drawn and verified.
        conditions: of those rejected, by the condition that failed.
        accepted: those accepted that were wanted, all of different gradients.
        rejected: those rejected that were wanted, with their condition.
    """

    way: str
    draws: int = 0
    conditions: Counter[str] = field(default_factory=Counter)
    passed: int = 0
    accepted: list[Expression] = field(default_factory=list)
    rejected: list[tuple[str, Expression]] = field(default_factory=list)


def draw(
    way: str,
    parents: Sequence[Expression],
    rng: Generator,
    *,
    accept: int,
    reject: int,
    least: int,
    most: int,
    seen: Seen,
) -> Drawn:
    """Draws in one way until enough are found, but at least and at most so many times.

    Args:
        way: random, mutation or crossover; as the searchers do it.
        parents: of mutation and crossover; the first one names the space.
        accept: how many that verification accepts.
        reject: how many for each condition that it rejects by.
        least, most: draws; the counts of all of them are kept.
        seen: the expressions that are in the table already; those found are added.
    """
    found = Drawn(way)
    draws = _drawing(way, parents, rng)
    kept: Counter[str] = Counter()
    while found.draws < most and (found.draws < least or len(found.accepted) < accept):
        expression = next(draws)
        found.draws += 1
        verdict = verify(expression)
        if verdict.accepted:
            found.passed += 1
            wanted = len(found.accepted) < accept and expression.size <= LARGEST
            if wanted and seen.add(expression):
                found.accepted.append(expression)
            continue
        condition = str(verdict.condition)
        found.conditions[condition] += 1
        wanted = kept[condition] < reject and expression.size <= LARGEST
        if wanted and seen.add(expression):
            kept[condition] += 1
            found.rejected.append((condition, expression))
    return found


def direction(expression: Expression) -> NDArray[np.float64] | None:
    """The direction of the loss's gradient at fixed predictions: equal for losses that differ by a
    positive factor or a constant only. None where the gradient is not finite or is zero."""
    samples = samples_of(family_of(expression.space).name)
    with np.errstate(all="ignore"):
        gradient = gradient_at(Gradient(expression, samples.moving), samples, samples.start)
        if gradient is None:
            return None
        flat = np.broadcast_to(gradient, samples.start.shape).ravel()
        size = float(np.sqrt(np.mean(flat * flat)))
        return None if not np.isfinite(size) or size == 0 else flat / size


def _drawing(way: str, parents: Sequence[Expression], rng: Generator) -> Iterator[Expression]:
    space = parents[0].space
    shares = [share for _, share in MUTATIONS]

    def one() -> Expression:
        return parents[int(rng.integers(len(parents)))]

    def mutated() -> Expression:
        change: Callable[..., Expression] = MUTATIONS[int(rng.choice(len(shares), p=shares))][0]
        return change(one(), rng)

    while True:
        if way == "random":
            yield grow(space, rng)
        elif way == "mutation":
            yield mutated()
        else:
            yield crossover(one(), one(), rng)
