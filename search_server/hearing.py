"""What is heard of a job's trials, kept for as long as a decision can depend on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from search_server.funnel.outcomes import Heard, Outcome, TrialKey
from search_server.funnel.past import Fate, PastMeans
from search_server.funnel.stages import Stages
from search_server.step_budget import StepBudget
from search_server.store import TrialRecord
from workers import TrialResult


class Hearing:
    """The trials of open candidates, of the baseline and of the last stage; of the others what they
    came to. So a search of 100,000 trials holds a few hundred of them.

    Attributes:
        heard: for the rules of the funnel.
        outcomes, rungs, open: see `Heard`.
        ended: by stage, the trials at their end, those of candidates stopped at a rung included.
        budget: the training steps that were spent; nothing is counted where there is no limit.
    """

    def __init__(self, stages: Stages, budget: StepBudget) -> None:
        self.outcomes: dict[TrialKey, Outcome] = {}
        self.rungs: dict[TrialKey, dict[int, float]] = {}
        self.open: set[int] = set()
        self.ended: Counter[str] = Counter()
        self.budget = budget
        self._stages = stages
        self._past = PastMeans()
        self.heard = Heard(self.outcomes, self.rungs, self.open, self._past)
        self._seconds: dict[str, float] = {}
        self._timed: Counter[str] = Counter()
        self._timing: set[TrialKey] = set()  # trials of open candidates that seconds are known of
        self._simulated: set[int] = set()  # resolved ones that their cohort is still compared with

    def load(self, trial: TrialRecord) -> None:
        """The row of a trial, when a job is opened."""
        key = TrialKey(trial.candidate, trial.stage, trial.seed)
        if trial.rungs:  # of a trial that was left running too: it was paused there
            self.rungs[key] = dict(trial.rungs)
        self._state(key, trial.state, trial.fitness, trial.reason, trial.curves)
        self._note_seconds(key, trial.seconds.get("total"))

    def end(self, key: TrialKey, result: TrialResult) -> None:
        """How a trial ended that this process had handed out, or that it is paused."""
        if result.rungs:  # as in the row: what it showed before it was lost still holds
            self.rungs[key] = {**self.rungs.get(key, {}), **result.rungs}
        self._state(key, result.status, result.fitness, result.reason, result.curves)
        self._note_seconds(key, result.seconds.get("total"))

    def take_over(self, key: TrialKey, trial: TrialRecord) -> None:
        """A trial that need not be trained: its row has the result of an earlier one."""
        if trial.rungs:
            self.rungs[key] = dict(trial.rungs)
        self._state(key, trial.state, trial.fitness, trial.reason, trial.curves)

    def resolve(self, index: int) -> None:
        """A candidate is resolved: its trials at the proxy task are summed up."""
        self.open.discard(index)
        self._past.note(index, self._stages.halving.means(index, self.heard))
        if index == 0:  # all the others are measured by its trials
            return
        for seed in self._stages.proxy_seeds:
            key = TrialKey(index, "proxy", seed)
            if key in self.rungs and key not in self.outcomes:
                self.ended[key.stage] += 1
            self._forget(key)
        self.heard.cleared.pop(index, None)
        if self._stages.keep is not None:
            self._simulated.add(index)

    def close_cohorts(self, candidates: Mapping[int, Fate], last: int) -> None:
        """Forgets the simulations of cohorts of which nobody is to be simulated any more."""
        over = {
            cohort
            for cohort in {self._stages.cohort(index, last) for index in self._simulated}
            if all(
                other in candidates and not _in_simulation(candidates[other]) for other in cohort
            )
        }
        for index in list(self._simulated):
            if self._stages.cohort(index, last) in over:
                self._forget(TrialKey(index, "simulate", self._stages.seed))
                self._simulated.remove(index)

    def means(self, index: int) -> dict[int, float]:
        """The mean APs of a resolved candidate at the rungs that it reached."""
        return self._past.of(index)

    def mean_seconds(self) -> dict[str, float]:
        """By stage, what a trial took on average."""
        return {stage: self._seconds[stage] / count for stage, count in self._timed.items()}

    def _state(
        self,
        key: TrialKey,
        state: str,
        fitness: float | None,
        reason: str,
        curves: Mapping[str, Sequence[float | None]],
    ) -> None:
        if state == "running":
            return
        if state != "paused":
            self.outcomes[key] = Outcome(state, fitness, reason)
            self.ended[key.stage] += 1
        if self.budget.limit is not None:
            self.budget.note(key, state, self.rungs.get(key, {}), curves)

    def _note_seconds(self, key: TrialKey, seconds: float | None) -> None:
        """Adds what a part of a trial took; nothing of a result that was not trained here."""
        if seconds is None:
            return
        self._seconds[key.stage] = self._seconds.get(key.stage, 0.0) + seconds
        if key not in self._timing:
            self._timing.add(key)
            self._timed[key.stage] += 1

    def _forget(self, key: TrialKey) -> None:
        self.outcomes.pop(key, None)
        self.rungs.pop(key, None)
        self._timing.discard(key)


def _in_simulation(candidate: Fate) -> bool:
    return candidate.state == "open" and candidate.stage == "simulate"
