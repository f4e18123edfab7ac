"""Which round of a policy search a candidate belongs to, from the job's spec in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rounds:
    """The rounds of a policy search: candidates 1 .. rounds x samples, then the final mean.

    Attributes:
        count: number of rounds.
        samples: candidates in each.
    """

    count: int
    samples: int

    @classmethod
    def of(cls, searcher: object) -> Rounds | None:
        """The rounds that the `searcher` part of a spec asks for; None for another searcher."""
        if not isinstance(searcher, Mapping) or searcher.get("type") != "policy":
            return None
        count, samples = searcher.get("rounds"), searcher.get("samples")
        if not isinstance(count, int) or not isinstance(samples, int) or min(count, samples) < 1:
            return None
        return cls(count, samples)

    @classmethod
    def of_spec(cls, spec: Mapping[str, Any]) -> Rounds | None:
        """The rounds of a job spec; None for another searcher."""
        return cls.of(spec.get("searcher"))

    @property
    def last(self) -> int:
        """Index of the last sampled candidate; the final mean comes after it."""
        return self.count * self.samples

    def round(self, index: int) -> int | None:
        """1 for the first round; None for the baseline and for the final mean."""
        return (index - 1) // self.samples + 1 if 1 <= index <= self.last else None
