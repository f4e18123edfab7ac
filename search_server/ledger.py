"""The rows of a running job: every change goes to the store first, then into memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial

from losses import LossDefinition
from search_server.candidates import Draws, observation, rival_record
from search_server.checkpoints import Checkpoints
from search_server.funnel.confirm import confirmed, paired_trials, rivals_of
from search_server.funnel.outcomes import TrialKey
from search_server.funnel.past import Fate
from search_server.funnel.stages import Change
from search_server.hearing import Hearing
from search_server.jobs import Job
from search_server.same_losses import SameLosses, trained_key
from search_server.searchers import Observation
from search_server.step_budget import StepBudget
from search_server.store import CandidateRecord, Store, TrialRecord
from search_server.store.records import Due
from workers import TrialResult, TrialSpec

AT_ONCE = 64  # trials whose rows are written in one transaction
LOADED = 500  # candidates whose trials are read at once when a job is opened
AT_HAND = 64  # records of past candidates that are not read again when they were read last
_WORDS = {"failed": "failed", "timeout": "took too long", "out_of_memory": "ran out of memory"}


class Ledger:
    """What has been decided and what has been heard, and so: what is next.

    All questions are answered from the rows alone, so a ledger loaded from the store of a killed
    process goes on exactly where that process was.

    Attributes:
        candidates: by index, without a gap; rivals come after the last one that was searched.
        hearing: what has been heard of the trials.
        running: the trials that were handed to the executor by this process.
        reused: how many trials the last `hand_out` found done, by this or another job.
        awaited: how many it left for later, because another live job trains them.
        known: the candidates by the keys of their losses.
        same: tells which candidates are one loss.
        last: index of the last candidate that the searcher proposes.
    """

    def __init__(self, store: Store, job: Job) -> None:
        self._store = store
        self._job = job
        self.last = job.spec.candidates
        self.candidates: dict[int, Fate] = {}
        self.known: dict[str, int] = {}
        self.running: dict[TrialKey, TrialSpec] = {}
        self.counts = store.counts(job.id)
        self.hearing = Hearing(job.stages, StepBudget(job.spec))
        self.reused = self.awaited = 0
        self.same = SameLosses(job, lambda index: self.record(index).definition)
        self._checkpoints = Checkpoints(job.id, store.url)
        # of the candidates that are open, and of those that the searcher was not told of yet
        self._records: dict[int, CandidateRecord] = {}
        self._read = lru_cache(maxsize=AT_HAND)(partial(store.candidate, job.id))
        self._told = 0
        self._confirmed: tuple[int, tuple[int, ...]] = (0, ())
        for candidate in store.candidates(job.id):
            self._know(candidate)
        rivals = [each.index for each in self.candidates.values() if each.origin == "rival"]
        if rivals:  # a search that ended early, and was interrupted while it confirmed
            self.last = min(rivals) - 1
        self._load_trials()

    @property
    def budget(self) -> StepBudget:
        """The training steps that were spent."""
        return self.hearing.budget

    @property
    def next(self) -> int:
        """Index of the candidate to be made next."""
        return len(self.candidates)

    @property
    def searched(self) -> bool:
        """Whether every candidate is made and resolved; rivals are none."""
        return self.next > self.last and all(index > self.last for index in self.hearing.open)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be trained."""
        if not self.searched or self.hearing.open or len(self._missing_rivals()) > 0:
            return False
        return all(key in self.hearing.outcomes for key in self._confirming())

    @property
    def confirmed(self) -> tuple[int, ...]:
        """Who is trained in the stage `confirm`; nobody while the search goes on."""
        if not self.searched:
            return ()
        if self._confirmed[0] != self.next:
            found = confirmed(self.candidates, self.known, self._job.spec.funnel.confirm)
            self._confirmed = self.next, found
        return self._confirmed[1]

    def is_confirmed(self, index: int) -> bool:
        """Whether all trials of a candidate in the stage `confirm` have ended."""
        keys = paired_trials((index,), "confirm", self._job.stages.confirm_seeds)
        return all(key in self.hearing.outcomes for key in keys)

    def record(self, index: int) -> CandidateRecord:
        """A candidate with its loss; of one that is past, from the store."""
        found = self._records.get(index)
        return self._read(index) if found is None else found

    def broken_baseline(self) -> str:
        """Why the search is hopeless: no trial of the baseline came to an AP, or diverged; else an
        empty text."""
        if not self.candidates:
            return ""
        keys, outcomes = list(self._job.stages.trials(self.candidates[0])), self.hearing.outcomes
        ended = [outcomes[key] for key in keys if key in outcomes]
        if len(ended) < len(keys) or any(each.known for each in ended):
            return ""
        return f"the baseline's training {_WORDS[ended[0].state]}: {ended[0].reason}"

    def fruitless(self) -> str:
        """Why no candidate besides the baseline has a fitness; empty if one has."""
        made = [each for each in self.candidates.values() if 0 < each.index <= self.last]
        if any(each.fitness is not None for each in made):
            return ""
        reasons = Counter(each.reason for each in made if each.reason).most_common(1)
        return f"no candidate came to a fitness: {reasons[0][0] if reasons else 'none was made'}"

    def may_ask(self) -> bool:
        """Whether all that candidate `next` must see is resolved; see `Searcher.sees`."""
        newest = self._job.searcher.sees(self.next)
        return self.next <= self.last and all(index > newest for index in self.hearing.open)

    def spent(self) -> str:
        """Why there is no room for candidate `next` in the budget of steps; empty if there is."""
        return self.budget.refuses(self.next, self._job.searcher.sees(self.next))

    def news(self) -> Iterator[Observation]:
        """The results that candidate `next` sees and the one before it did not, in order."""
        while self._told <= self._job.searcher.sees(self.next):
            candidate, rungs = self._records.pop(self._told), {}
            if candidate.state != "failed":  # what was lost is nobody's parent
                rungs = self.hearing.means(self._told)
            seen = observation(candidate, self._job.problem, rungs)
            yield replace(seen, spent=self.budget.share(self._told))
            self._told += 1

    def add(self, candidate: CandidateRecord, draws: Draws) -> None:
        """A candidate that was made, with the draws that led to it."""
        found = self.same.fingerprint(candidate.definition)
        candidate = self._store.add_candidate(
            self._job.id, candidate, draws.counts, draws.traced, found, self.same.scales
        )
        self.same.add(candidate.index, found)
        self._enter(candidate)
        for key, count in draws.counts.items():
            self.counts[key] = self.counts.get(key, 0) + count

    def end_at(self, last: int) -> None:
        """No candidate is made after `last`."""
        self.last = last

    def add_rivals(self) -> None:
        """The rivals that have no row yet, once the search itself is over."""
        for definition in self._missing_rivals():
            self.add(rival_record(self.next, definition), Draws())

    def hand_out(self, limit: int) -> Iterator[tuple[TrialKey, TrialSpec]]:
        """At most `limit` trials that are due, the oldest candidate's first; their rows are written
        some at a time.

        One that the store has a result of ends at once, as if it had been trained; one that
        another live job trains at this moment is left for later.
        """
        self.reused = self.awaited = 0
        due = list(self._due()) if limit > 0 else []
        while due and limit > 0:
            now, due = due[: min(limit, AT_ONCE)], due[min(limit, AT_ONCE) :]
            specs = {key: self._spec(key) for key in now}
            rows = [self._row(key, spec) for key, spec in specs.items()]
            starts = self._store.start_trials(self._job.id, rows, self.running)
            for (key, spec), start in zip(specs.items(), starts, strict=True):
                if start.trial is not None:
                    self._take_over(key, spec, start.trial)
                self.awaited += start.verdict == "wait"
                if start.verdict == "train":
                    self.running[key] = spec
                    limit -= 1
                    yield key, spec

    def finish(self, results: Sequence[tuple[TrialKey, TrialResult]]) -> None:
        """Write how trials ended, or that they are paused at a rung."""
        for place in range(0, len(results), AT_ONCE):
            some = dict(results[place : place + AT_ONCE])
            rows = {(key.candidate, key.stage, key.seed): each for key, each in some.items()}
            self._store.finish_trials(self._job.id, rows)
            for key, result in some.items():
                self._end(key, result)

    def _row(self, key: TrialKey, spec: TrialSpec) -> Due:
        name = trained_key(spec, self.record(key.candidate).loss_id)
        return Due(*key, spec.key, name, spec.pause_after)

    def _end(self, key: TrialKey, result: TrialResult) -> None:
        spec = self.running.pop(key)
        self.hearing.end(key, result)
        self._drop_checkpoint(key, spec)

    def _take_over(self, key: TrialKey, spec: TrialSpec, trial: TrialRecord) -> None:
        self.reused += 1
        self.hearing.take_over(key, trial)
        self._drop_checkpoint(key, spec)

    def _drop_checkpoint(self, key: TrialKey, spec: TrialSpec) -> None:
        """Of a trial that has ended."""
        if key in self.hearing.outcomes and spec.checkpoint is not None:
            self._checkpoints.drop(spec)

    def decide(self) -> None:
        """Take every decision that the results allow, in the order of the candidates."""
        decide, heard = self._job.stages.decide, self.hearing.heard
        changed = True
        while changed:
            changed = False
            for index in sorted(heard.open):
                change = decide(self._records[index], heard, self.last)
                if change is not None:
                    self._apply(change)
                    changed = True
        self.hearing.close_cohorts(self.candidates, self.last)

    def close(self) -> None:
        """The job is at its end: no trial of it will go on."""
        self._checkpoints.clear()

    def _know(self, candidate: CandidateRecord) -> None:
        """A candidate of the store; those of an earlier version do not say which loss they are."""
        found = self.same.fingerprint(candidate.definition)
        self.same.add(candidate.index, found)
        if candidate.loss_id is None:
            known = self._store.identify(self._job.id, candidate.index, found, self.same.scales)
            candidate = replace(candidate, loss_id=known)
        self._enter(candidate)

    def _enter(self, candidate: CandidateRecord) -> None:
        self.candidates[candidate.index] = Fate.of(candidate)
        self.known[candidate.key] = candidate.index
        self._records[candidate.index] = candidate
        if candidate.state == "open":
            self.hearing.open.add(candidate.index)

    def _load_trials(self) -> None:
        """What the store has of the trials; of some candidates at a time, for they are many."""
        curves = self.budget.limit is not None
        for first in range(0, self.next, LOADED):
            some = range(first, min(first + LOADED, self.next))
            for trial in self._store.trials(self._job.id, some, curves=curves):
                self.hearing.load(trial)
            for index in some:
                if index not in self.hearing.open:
                    self.hearing.resolve(index)
            self.hearing.close_cohorts(self.candidates, self.last)

    def _apply(self, change: Change) -> None:
        self._store.update_candidate(self._job.id, change.index, **change.fields)
        candidate = replace(self._records[change.index], **change.fields)
        self._records[change.index] = candidate
        self.candidates[change.index] = Fate.of(candidate)
        if candidate.state != "open":
            heard = self.hearing.heard
            for key in self._job.stages.trials(candidate):
                if key in heard.rungs and key not in heard.outcomes:
                    self._checkpoints.drop(self._job.trial(key, candidate.definition))
            self.hearing.resolve(change.index)

    def _due(self) -> Iterator[TrialKey]:
        """The trials that can be handed out now."""
        stages, heard = self._job.stages, self.hearing.heard
        for index in sorted(heard.open):
            if index <= self.last:  # the others are rivals, which are trained along with the rest
                for key in stages.due(self._records[index], heard):
                    if key not in self.running:
                        yield key
        for key in self._confirming():
            if key not in heard.outcomes and key not in self.running:
                yield key

    def _confirming(self) -> Iterator[TrialKey]:
        return paired_trials(self.confirmed, "confirm", self._job.stages.confirm_seeds)

    def _missing_rivals(self) -> list[LossDefinition]:
        confirm = self._job.spec.funnel.confirm
        if confirm is None or not self.confirmed:
            return []
        return [each for each in rivals_of(confirm) if each.key not in self.known]

    def _spec(self, key: TrialKey) -> TrialSpec:
        """The trial that a key names, up to where it has to wait."""
        spec = self._job.trial(key, self.record(key.candidate).definition)
        pause = self._job.stages.pause(key, self.hearing.heard)
        if pause is None and key not in self.hearing.rungs:
            return spec
        return replace(spec, pause_after=pause, checkpoint=str(self._checkpoints.folder))
