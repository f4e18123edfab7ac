"""The rows of a running job: every change goes to the store first, then into memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from search_server.candidates import Draws, observation
from search_server.funnel.stages import Change, Outcome, TrialKey
from search_server.jobs import Job
from search_server.searchers import Observation
from search_server.store import CandidateRecord, Store
from workers import TrialResult, TrialSpec


class Ledger:
    """What has been decided and what has been heard, and so: what is next.

    All questions are answered from the rows alone, so a ledger loaded from the store of a killed
    process goes on exactly where that process was.

    Attributes:
        candidates: by index, without a gap.
        outcomes: of the trials that have ended.
        running: the trials that were handed to the executor by this process.
        last: index of the job's last candidate.
    """

    def __init__(self, store: Store, job: Job) -> None:
        self._store = store
        self._job = job
        self.last = job.spec.candidates
        self.candidates = {each.index: each for each in store.candidates(job.id)}
        self.outcomes: dict[TrialKey, Outcome] = {}
        self.seconds: dict[str, list[float]] = {"simulate": [], "proxy": []}
        self.running: dict[TrialKey, TrialSpec] = {}
        self.counts = store.counts(job.id)
        self.known = {each.key for each in self.candidates.values()}
        for trial in store.trials(job.id, curves=False):
            if trial.state != "running":
                key = TrialKey(trial.candidate, trial.stage, trial.seed)
                self.outcomes[key] = Outcome(trial.state, trial.fitness, trial.reason)
                self.seconds[trial.stage].append(trial.seconds.get("total", 0.0))
        self._open = {i for i, each in self.candidates.items() if each.state == "open"}
        self._told = 0

    @property
    def next(self) -> int:
        """Index of the candidate to be made next."""
        return len(self.candidates)

    @property
    def finished(self) -> bool:
        """Whether every candidate is made and resolved."""
        return self.next > self.last and not self._open

    def broken_baseline(self) -> str:
        """Why the search is hopeless: every trial of the baseline failed; else an empty text."""
        if not self.candidates:
            return ""
        keys = list(self._job.stages.trials(self.candidates[0]))
        ended = [self.outcomes[key] for key in keys if key in self.outcomes]
        if len(ended) < len(keys) or any(each.state != "failed" for each in ended):
            return ""
        return f"the baseline's training failed: {ended[0].reason}"

    def fruitless(self) -> str:
        """Why no candidate besides the baseline has a fitness; empty if one has."""
        made = [each for each in self.candidates.values() if each.index > 0]
        if any(each.fitness is not None for each in made):
            return ""
        reasons = Counter(each.reason for each in made if each.reason).most_common(1)
        return f"no candidate came to a fitness: {reasons[0][0] if reasons else 'none was made'}"

    def may_ask(self) -> bool:
        """Whether all that candidate `next` must see is resolved; see `Searcher.sees`."""
        newest = self._job.searcher.sees(self.next)
        return self.next <= self.last and all(index > newest for index in self._open)

    def news(self) -> Iterator[Observation]:
        """The results that candidate `next` sees and the one before it did not, in order."""
        while self._told <= self._job.searcher.sees(self.next):
            yield observation(self.candidates[self._told], self._job.problem)
            self._told += 1

    def add(self, candidate: CandidateRecord, draws: Draws) -> None:
        """A candidate that was made, with the draws that led to it."""
        self._store.add_candidate(self._job.id, candidate, draws.counts, draws.traced)
        self.candidates[candidate.index] = candidate
        self.known.add(candidate.key)
        self._open.add(candidate.index)
        for key, count in draws.counts.items():
            self.counts[key] = self.counts.get(key, 0) + count

    def end_at(self, last: int) -> None:
        """No candidate is made after `last`."""
        self.last = last

    def waiting(self, limit: int) -> list[TrialKey]:
        """At most `limit` trials that are due and not handed out, the oldest candidate's first."""
        due: list[TrialKey] = []
        for index in sorted(self._open):
            if len(due) >= limit:
                break
            keys = self._job.stages.trials(self.candidates[index])
            due += [key for key in keys if key not in self.outcomes and key not in self.running]
        return due[: max(0, limit)]

    def start(self, key: TrialKey) -> TrialSpec:
        """Write that a trial starts; returns its spec."""
        spec = self._job.trial(key, self.candidates[key.candidate].definition)
        self._store.start_trial(self._job.id, *key, spec.key)
        self.running[key] = spec
        return spec

    def finish(self, key: TrialKey, result: TrialResult) -> None:
        """Write how a trial ended."""
        self._store.finish_trial(self._job.id, *key, result)
        self.outcomes[key] = Outcome(result.status, result.fitness, result.reason)
        self.seconds[key.stage].append(result.seconds.get("total", 0.0))
        self.running.pop(key, None)

    def decide(self) -> None:
        """Take every decision that the results allow, in the order of the candidates."""
        changed = True
        while changed:
            changed = False
            for index in sorted(self._open):
                change = self._job.stages.decide(self.candidates[index], self.outcomes, self.last)
                if change is not None:
                    self._apply(change)
                    changed = True

    def _apply(self, change: Change) -> None:
        self._store.update_candidate(self._job.id, change.index, **change.fields)
        candidate = replace(self.candidates[change.index], **change.fields)
        self.candidates[change.index] = candidate
        if candidate.state != "open":
            self._open.remove(change.index)
