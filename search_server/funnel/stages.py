"""The stages after verification as pure functions of rows: which trials are due, who goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from search_server.store import CandidateRecord
from search_server.store.records import Stage


class TrialKey(NamedTuple):
    """Which trial of a job: candidate, stage, seed."""

    candidate: int
    stage: Stage
    seed: int


@dataclass(frozen=True)
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
class Change:
    """A change of one candidate: the fields of `Store.update_candidate`."""

    index: int
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Stages:
    """The rules of the funnel for one job.

    Every decision depends on the candidates and on how their trials ended, never on when: so it
    comes out the same under any timing, and again after an interruption.

    Attributes:
        population: size of a cohort; candidates 1 .. population are the first.
        keep: how many of a cohort go on to the proxy task; None: there is no simulation.
        seed: of the simulation.
        proxy_seeds: one proxy trial each.
    """

    population: int
    keep: int | None
    seed: int
    proxy_seeds: tuple[int, ...]

    @property
    def first(self) -> Stage:
        """The stage at which a new candidate starts."""
        return "proxy" if self.keep is None else "simulate"

    def trials(self, candidate: CandidateRecord) -> Iterator[TrialKey]:
        """The trials that a candidate's present stage consists of."""
        if candidate.stage == "simulate":
            yield TrialKey(candidate.index, "simulate", self.seed)
        else:
            for seed in self.proxy_seeds:
                yield TrialKey(candidate.index, "proxy", seed)

    def cohort(self, index: int, last: int) -> range:
        """The indices of the cohort of candidate `index`; `last` is the job's last candidate."""
        start = (index - 1) // self.population * self.population + 1
        return range(start, min(start + self.population - 1, last) + 1)

    def decide(
        self,
        candidate: CandidateRecord,
        outcomes: Mapping[TrialKey, Outcome],
        last: int,
    ) -> Change | None:
        """What is now to be done with an open candidate; None while its trials, or those of its
        cohort, are still under way."""
        ended = [outcomes[key] for key in self.trials(candidate) if key in outcomes]
        if len(ended) < len(list(self.trials(candidate))):
            return None
        if candidate.stage == "proxy":
            return _judged(candidate, ended)
        if candidate.simulate_score is None:
            return _simulated(candidate, ended[0])
        return self._promoted(candidate, outcomes, last)

    def _promoted(
        self,
        candidate: CandidateRecord,
        outcomes: Mapping[TrialKey, Outcome],
        last: int,
    ) -> Change | None:
        """The best `keep` of a cohort go on, by score, then by index."""
        cohort = self.cohort(candidate.index, last)
        keys = {index: TrialKey(index, "simulate", self.seed) for index in cohort}
        if not all(key in outcomes for key in keys.values()):
            return None
        able = [index for index, key in keys.items() if outcomes[key].state == "done"]
        ranked = sorted(able, key=lambda index: (-outcomes[keys[index]].value, index))
        rank = ranked.index(candidate.index)
        if self.keep is None or rank < self.keep:
            return Change(candidate.index, {"stage": "proxy"})
        reason = f"rank {rank + 1} of {len(cohort)} in its cohort's simulation, {self.keep} go on"
        return Change(candidate.index, {"state": "dropped", "reason": reason})


def _simulated(candidate: CandidateRecord, outcome: Outcome) -> Change:
    fields: dict[str, Any] = {"simulate_score": outcome.value}
    if outcome.state == "diverged":
        fields |= {"state": "dropped", "reason": f"simulation diverged: {outcome.reason}"}
    elif not outcome.known:
        reason = f"simulation {outcome.state}: {outcome.reason}"
        fields = {"state": "failed", "reason": reason}
    return Change(candidate.index, fields)


def _judged(candidate: CandidateRecord, ended: list[Outcome]) -> Change:
    """The fitness is the mean over the seeds; without all of them there is none."""
    reasons = [f"{each.state}: {each.reason}" for each in ended if each.state != "done"]
    reason = "; ".join(dict.fromkeys(reasons))
    if not all(each.known for each in ended):
        return Change(candidate.index, {"state": "failed", "reason": reason})
    fitness = sum(each.value for each in ended) / len(ended)
    return Change(candidate.index, {"state": "done", "fitness": fitness, "reason": reason})
