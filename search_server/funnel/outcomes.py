"""What is known of a job's trials, as far as decisions depend on it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from search_server.funnel.past import PastMeans
from search_server.store.records import Stage


class TrialKey(NamedTuple):
    """Which trial of a job: candidate, stage, seed."""

    candidate: int
    stage: Stage
    seed: int


@dataclass(frozen=True, slots=True)  # a job has as many as trials
class Outcome:
    """How a trial ended, as far as decisions depend on it.

    Attributes:
        state: done, diverged, timeout or failed.
        fitness: AP in [0, 1] of a trial that is done.
    """

    state: str
    fitness: float | None = None
    reason: str = ""

    @property
    def known(self) -> bool:
        """Whether it says how good the loss is: a diverged training does, a lost one does not."""
        return self.state in ("done", "diverged")

    @property
    def value(self) -> float:
        """AP in [0, 1]; 0 for a training that diverged."""
        return self.fitness if self.state == "done" and self.fitness is not None else 0.0


@dataclass(frozen=True)
class Heard:
    """All that has been heard of the trials of a job, as far as a decision can depend on it.

    Attributes:
        outcomes: of the trials that have ended; not those of candidates that are in `past`.
        rungs: AP in [0, 1] by training step, of every trial that passed a rung, ended or not; again
            without those in `past`.
        open: candidates that are not resolved.
        past: what the resolved ones came to at the rungs.
        cleared: how many rungs a candidate was found to have cleared; it stays so.
    """

    outcomes: Mapping[TrialKey, Outcome]
    rungs: Mapping[TrialKey, Mapping[int, float]]
    open: Collection[int]
    past: PastMeans = field(default_factory=PastMeans)
    cleared: dict[int, int] = field(default_factory=dict)
