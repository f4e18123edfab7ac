"""The stages after verification as pure functions of rows: which trials are due, who goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from search_server.funnel.outcomes import Heard, Outcome, TrialKey
from search_server.funnel.past import Fate
from search_server.funnel.rungs import Halving
from search_server.store import CandidateRecord
from search_server.store.records import Stage

__all__ = ["Change", "Outcome", "Stages", "TrialKey"]


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
        halving: who is stopped at the rungs of the proxy task.
        confirm_seeds: one trial of the stage `confirm` each, of every loss that gets there.
    """

    population: int
    keep: int | None
    seed: int
    proxy_seeds: tuple[int, ...]
    halving: Halving
    confirm_seeds: tuple[int, ...] = ()

    @property
    def first(self) -> Stage:
        """The stage at which a new candidate starts."""
        return "proxy" if self.keep is None else "simulate"

    def trials(self, candidate: CandidateRecord | Fate) -> Iterator[TrialKey]:
        """The trials that a candidate's present stage consists of."""
        if candidate.stage == "simulate":
            yield TrialKey(candidate.index, "simulate", self.seed)
            return
        rival = candidate.stage == "confirm"
        for seed in self.confirm_seeds if rival else self.proxy_seeds:
            yield TrialKey(candidate.index, candidate.stage, seed)

    def due(self, candidate: CandidateRecord, heard: Heard) -> Iterator[TrialKey]:
        """Those of `trials` that have not ended and wait for no decision."""
        cleared = None
        for key in self.trials(candidate):
            if key in heard.outcomes:
                continue
            passed = heard.rungs.get(key)
            if passed and key.stage == "proxy":
                if cleared is None:
                    cleared = self.halving.standing(key.candidate, heard).cleared
                if self.halving.rungs.index(max(passed)) >= cleared:
                    continue
            yield key

    def pause(self, key: TrialKey, heard: Heard) -> int | None:
        """The rung at which a trial that is handed out now has to wait; None: at none."""
        if key.stage != "proxy" or not self.halving.rungs:
            return None
        cleared = self.halving.standing(key.candidate, heard).cleared
        return self.halving.pause(key.candidate, cleared)

    def cohort(self, index: int, last: int) -> range:
        """The indices of the cohort of candidate `index`; `last` is the job's last candidate."""
        start = (index - 1) // self.population * self.population + 1
        return range(start, min(start + self.population - 1, last) + 1)

    def decide(self, candidate: CandidateRecord, heard: Heard, last: int) -> Change | None:
        """What is now to be done with an open candidate; None while its trials, or those of its
        cohort, are still under way."""
        outcomes = heard.outcomes
        ended = [outcomes[key] for key in self.trials(candidate) if key in outcomes]
        if len(ended) < len(list(self.trials(candidate))):
            if candidate.stage != "proxy":
                return None
            stop = self.halving.standing(candidate.index, heard).stop
            fields = {"state": "dropped", "reason": stop}
            return Change(candidate.index, fields) if stop else None
        if candidate.stage == "confirm":
            return _heard_out(candidate, ended)
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


def _heard_out(candidate: CandidateRecord, ended: list[Outcome]) -> Change:
    """A rival has no fitness: it is measured by the stage `confirm` alone."""
    if any(each.known for each in ended):
        return Change(candidate.index, {"state": "done"})
    reason = "; ".join(dict.fromkeys(f"{each.state}: {each.reason}" for each in ended))
    return Change(candidate.index, {"state": "failed", "reason": reason})
