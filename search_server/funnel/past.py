"""What is left of candidates that are resolved: enough for every decision that is still to come."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_server.store import CandidateRecord
from search_server.store.records import CandidateState, Origin, Stage


@dataclass(frozen=True, slots=True)  # a job has as many as candidates
class Fate:
    """What became of a candidate so far, without its loss; fields as in `CandidateRecord`."""

    index: int
    origin: Origin
    stage: Stage
    state: CandidateState
    simulate_score: float | None
    fitness: float | None
    reason: str

    @classmethod
    def of(cls, record: CandidateRecord) -> Fate:
        """That of a record."""
        return cls(
            record.index,
            record.origin,
            record.stage,
            record.state,
            record.simulate_score,
            record.fitness,
            record.reason,
        )


class PastMeans:
    """The mean APs at the rungs of the resolved candidates, one number for each."""

    def __init__(self) -> None:
        self._means: dict[int, array[float]] = {}  # by rung and index; nan: none

    def note(self, index: int, means: Mapping[int, float]) -> None:
        """A candidate is resolved; `means` by rung, as in `Halving.means`."""
        for rung, mean in means.items():
            own = self._means.setdefault(rung, array("d"))
            own.extend([math.nan] * (index + 1 - len(own)))
            own[index] = mean

    def of(self, index: int) -> dict[int, float]:
        """By rung, ascending, the means of one candidate."""
        found = {rung: own[index] for rung, own in sorted(self._means.items()) if index < len(own)}
        return {rung: mean for rung, mean in found.items() if not math.isnan(mean)}

    def upto(self, rung: int, last: int) -> NDArray[np.float64]:
        """The means at a rung of those of the candidates 1 .. `last` that have one."""
        own = np.array(self._means.get(rung, ())[1 : last + 1], dtype=np.float64)
        return own[~np.isnan(own)]
