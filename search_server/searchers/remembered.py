"""What a searcher remembers of the candidates that it was told of: thousands, so little of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from losses import LossDefinition
from primitives import Expression
from search_server.searchers.base import Observation, Problem

AT_HAND = 512  # losses that stay parsed when they were looked at last

Parsed = tuple[LossDefinition, dict[str, Expression]]


@dataclass(frozen=True, slots=True, eq=False)
class Remembered:
    """An `Observation` whose loss is kept as text and parsed when it is looked at; its rungs count
    only where it has no fitness."""

    index: int
    fitness: float | None
    score: float | None
    rungs: Mapping[int, float]
    size: int
    branches: tuple[str, ...]
    _text: str = field(repr=False)
    _parse: Callable[[str], Parsed] = field(repr=False)

    @property
    def definition(self) -> LossDefinition:
        """See `Observation`."""
        return self._parse(self._text)[0]

    @property
    def expressions(self) -> Mapping[str, Expression]:
        """See `Observation`."""
        return self._parse(self._text)[1]


class Memory:
    """Makes what is remembered in one search."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._parse = lru_cache(maxsize=AT_HAND)(self._parsed)

    def of(self, seen: Observation) -> Remembered:
        """An observation, small."""
        return Remembered(
            seen.index,
            seen.fitness,
            seen.score,
            seen.rungs if seen.fitness is None else {},
            seen.size,
            seen.branches,
            json.dumps(seen.definition.to_json(), separators=(",", ":")),
            self._parse,
        )

    def _parsed(self, text: str) -> Parsed:
        definition = LossDefinition.from_json(json.loads(text))
        return definition, self._problem.expressions(definition)
