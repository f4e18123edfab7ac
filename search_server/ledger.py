"""The rows of a running job: every change goes to the store first, then into memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from losses import LossDefinition
from search_server.candidates import Draws, observation, rival_record
from search_server.checkpoints import Checkpoints
from search_server.funnel.confirm import confirmed, paired_trials, rivals_of
from search_server.funnel.outcomes import Heard, Outcome, TrialKey
from search_server.funnel.stages import Change
from search_server.jobs import Job
from search_server.same_losses import SameLosses, trained_key
from search_server.searchers import Observation
from search_server.step_budget import StepBudget
from search_server.store import CandidateRecord, Store, TrialRecord
from search_server.store.records import Due
from workers import TrialResult, TrialSpec

AT_ONCE = 64  # trials whose rows are written in one transaction
_WORDS = {"failed": "failed", "timeout": "took too long", "out_of_memory": "ran out of memory"}


class Ledger:
    """What has been decided and what has been heard, and so: what is next.

    All questions are answered from the rows alone, so a ledger loaded from the store of a killed
    process goes on exactly where that process was.

    Attributes:
        candidates: by index, without a gap; rivals come after the last one that was searched.
        outcomes: of the trials that have ended.
        rungs: AP by training step, of the trials that passed a rung.
        running: the trials that were handed to the executor by this process.
        reused: how many trials the last `hand_out` found done, by this or another job.
        awaited: how many it left for later, because another live job trains them.
        same: tells which candidates are one loss.
        last: index of the last candidate that the searcher proposes.
        seconds: by stage, what each trial took so far.
        budget: the training steps that were spent; nothing is counted where there is no limit.
    """

    def __init__(self, store: Store, job: Job) -> None:
        self._store = store
        self._job = job
        self.last = job.spec.candidates
        self.candidates = {each.index: each for each in store.candidates(job.id)}
        rivals = [each.index for each in self.candidates.values() if each.origin == "rival"]
        if rivals:  # a search that ended early, and was interrupted while it confirmed
            self.last = min(rivals) - 1
        self.outcomes: dict[TrialKey, Outcome] = {}
        self.rungs: dict[TrialKey, dict[int, float]] = {}
        self.seconds: dict[str, dict[TrialKey, float]] = {}
        self.running: dict[TrialKey, TrialSpec] = {}
        self.counts = store.counts(job.id)
        self.known = {each.key for each in self.candidates.values()}
        self.budget = StepBudget(job.spec)
        self.reused = self.awaited = 0
        self.same = SameLosses(job)
        self._checkpoints = Checkpoints(job.id, store.url)
        self._open = {i for i, each in self.candidates.items() if each.state == "open"}
        self._heard = Heard(self.outcomes, self.rungs, self._open)
        self._told = 0
        for candidate in list(self.candidates.values()):
            self._know(candidate)
        for trial in store.trials(job.id, curves=self.budget.limit is not None):
            key = TrialKey(trial.candidate, trial.stage, trial.seed)
            if trial.rungs:  # of a trial that was left running too: it was paused there
                self.rungs[key] = dict(trial.rungs)
            if trial.state not in ("running", "paused"):
                self.outcomes[key] = Outcome(trial.state, trial.fitness, trial.reason)
            if trial.state != "running":
                self._spend(key, trial.state, trial.curves)
            self._note_seconds(key, trial.seconds.get("total"))

    @property
    def next(self) -> int:
        """Index of the candidate to be made next."""
        return len(self.candidates)

    @property
    def searched(self) -> bool:
        """Whether every candidate is made and resolved; rivals are none."""
        return self.next > self.last and all(index > self.last for index in self._open)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be trained."""
        if not self.searched or self._open or len(self._missing_rivals()) > 0:
            return False
        return all(key in self.outcomes for key in self._confirming())

    @property
    def confirmed(self) -> tuple[int, ...]:
        """Who is trained in the stage `confirm`; nobody while the search goes on."""
        if not self.searched:
            return ()
        return confirmed(self.candidates, self._job.spec.funnel.confirm)

    def is_confirmed(self, index: int) -> bool:
        """Whether all trials of a candidate in the stage `confirm` have ended."""
        keys = paired_trials((index,), "confirm", self._job.stages.confirm_seeds)
        return all(key in self.outcomes for key in keys)

    @property
    def ended(self) -> Counter[str]:
        """By stage, the trials at their end, those of candidates stopped at a rung included."""
        found: Counter[str] = Counter(key.stage for key in self.outcomes)
        stopped = (key for key in self.rungs if key not in self.outcomes)
        found.update(key.stage for key in stopped if key.candidate not in self._open)
        return found

    def broken_baseline(self) -> str:
        """Why the search is hopeless: no trial of the baseline came to an AP, or diverged; else an
        empty text."""
        if not self.candidates:
            return ""
        keys = list(self._job.stages.trials(self.candidates[0]))
        ended = [self.outcomes[key] for key in keys if key in self.outcomes]
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
        return self.next <= self.last and all(index > newest for index in self._open)

    def spent(self) -> str:
        """Why there is no room for candidate `next` in the budget of steps; empty if there is."""
        return self.budget.refuses(self.next, self._job.searcher.sees(self.next))

    def news(self) -> Iterator[Observation]:
        """The results that candidate `next` sees and the one before it did not, in order."""
        while self._told <= self._job.searcher.sees(self.next):
            candidate, rungs = self.candidates[self._told], {}
            if candidate.state != "failed":  # what was lost is nobody's parent
                rungs = self._job.stages.halving.means(self._told, self._heard)
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
        self.candidates[candidate.index] = candidate
        self.known.add(candidate.key)
        self._open.add(candidate.index)
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
        name = trained_key(spec, self.candidates[key.candidate].loss_id)
        return Due(*key, spec.key, name, spec.pause_after)

    def _end(self, key: TrialKey, result: TrialResult) -> None:
        spec = self.running.pop(key)
        if result.rungs:  # as in the row: what it showed before it was lost still holds
            self.rungs[key] = {**self.rungs.get(key, {}), **result.rungs}
        if result.status != "paused":
            self.outcomes[key] = Outcome(result.status, result.fitness, result.reason)
            if spec.checkpoint is not None:
                self._checkpoints.drop(spec)
        self._spend(key, result.status, result.curves)
        self._note_seconds(key, result.seconds.get("total"))

    def _take_over(self, key: TrialKey, spec: TrialSpec, trial: TrialRecord) -> None:
        """A trial that need not be trained: its row has the result of an earlier one."""
        self.reused += 1
        if trial.rungs:
            self.rungs[key] = dict(trial.rungs)
        if trial.state != "paused":
            self.outcomes[key] = Outcome(trial.state, trial.fitness, trial.reason)
            if spec.checkpoint is not None:
                self._checkpoints.drop(spec)
        self._spend(key, trial.state, trial.curves)

    def decide(self) -> None:
        """Take every decision that the results allow, in the order of the candidates."""
        changed = True
        while changed:
            changed = False
            for index in sorted(self._open):
                candidate = self.candidates[index]
                change = self._job.stages.decide(candidate, self._heard, self.last)
                if change is not None:
                    self._apply(change)
                    changed = True

    def close(self) -> None:
        """The job is at its end: no trial of it will go on."""
        self._checkpoints.clear()

    def _know(self, candidate: CandidateRecord) -> None:
        """A candidate of the store; those of an earlier version do not say which loss they are."""
        found = self.same.fingerprint(candidate.definition)
        self.same.add(candidate.index, found)
        if candidate.loss_id is None:
            known = self._store.identify(self._job.id, candidate.index, found, self.same.scales)
            self.candidates[candidate.index] = replace(candidate, loss_id=known)

    def _apply(self, change: Change) -> None:
        self._store.update_candidate(self._job.id, change.index, **change.fields)
        candidate = replace(self.candidates[change.index], **change.fields)
        self.candidates[change.index] = candidate
        if candidate.state != "open":
            self._open.remove(change.index)
            for key in self._job.stages.trials(candidate):
                if key in self.rungs and key not in self.outcomes:
                    self._checkpoints.drop(self._job.trial(key, candidate.definition))

    def _due(self) -> Iterator[TrialKey]:
        """The trials that can be handed out now."""
        stages = self._job.stages
        for index in sorted(self._open):
            if index <= self.last:  # the others are rivals, which are trained along with the rest
                for key in stages.due(self.candidates[index], self._heard):
                    if key not in self.running:
                        yield key
        for key in self._confirming():
            if key not in self.outcomes and key not in self.running:
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
        spec = self._job.trial(key, self.candidates[key.candidate].definition)
        pause = self._job.stages.pause(key, self._heard)
        if pause is None and key not in self.rungs:
            return spec
        return replace(spec, pause_after=pause, checkpoint=str(self._checkpoints.folder))

    def _spend(
        self, key: TrialKey, state: str, curves: Mapping[str, Sequence[float | None]]
    ) -> None:
        """Counts the steps of a trial that has ended, or is paused, where there is a budget."""
        if self.budget.limit is not None:
            self.budget.note(key, state, self.rungs.get(key, {}), curves)

    def _note_seconds(self, key: TrialKey, seconds: float | None) -> None:
        """Adds what a part of a trial took; nothing of a result that was not trained here."""
        if seconds is not None:
            stage = self.seconds.setdefault(key.stage, {})
            stage[key] = stage.get(key, 0.0) + seconds
