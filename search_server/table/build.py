"""Trains the losses of a table's plan; can be killed at any time, and goes on where it was."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from search_server.executors import Executor
from search_server.funnel.outcomes import TrialKey
from search_server.table.log import TableKey, TableLog, TableTrial
from search_server.table.plan import PlannedLoss, TablePlan, ordered
from search_server.table.spec import TableSpec
from search_server.table.trials import Trials
from workers import TrialResult, TrialSpec
from workers.warm_start import warm_start_path

PATIENCE = 0.5  # seconds until clock and stop signal are looked at again
ATTEMPTS = 2  # of a trial that failed or ran out of time


@dataclass(frozen=True)
class Progress:
    """A trial that has just ended, and how far the table is.

    Attributes:
        done, of: trials that need not be run any more; all trials.
    """

    loss: PlannedLoss
    trial: TableTrial
    done: int
    of: int


@dataclass
class _Build:
    """The trials that are left, and those under way."""

    plan: TablePlan
    trials: Trials
    log: TableLog
    waiting: list[tuple[int, str, int]] = field(default_factory=list)
    running: dict[TrialKey, TrialSpec] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    total: int = 0

    def __post_init__(self) -> None:
        plan, spec = self.plan, self.trials.spec
        order = ordered(plan, spec.seeds)
        self.total = len(order)
        for place, stage, seed in order:
            given = spec.simulate.seed if seed is None else seed
            attempts = self.log.trials.get(TableKey(plan.losses[place].id, stage, given), [])
            if not any(trial.counts for trial in attempts) and len(attempts) < ATTEMPTS:
                self.waiting.append((place, stage, given))

    def hand_out(self, executor: Executor) -> None:
        """As many trials as there are slots; none waits behind another, so that a stop is soon."""
        while self.waiting and len(self.running) < executor.slots():
            place, stage, seed = self.waiting.pop(0)
            key = TrialKey(place, stage, seed)  # type: ignore[arg-type]
            loss = self.plan.losses[place]
            self.running[key] = self.trials.trial(loss.group, loss.definition, stage, seed)
            executor.submit(key, self.running[key])

    def finish(self, key: TrialKey, result: TrialResult) -> Progress:
        """Writes down how a trial ended; one that was lost is tried again at the end."""
        spec = self.running.pop(key)
        loss = self.plan.losses[key.candidate]
        place = TableKey(loss.id, key.stage, key.seed)
        trial = TableTrial.of(place, result, self._weights(loss.group, spec))
        self.log.add(trial)
        if not trial.counts and len(self.log.trials[place]) < ATTEMPTS:
            self.waiting.append((key.candidate, key.stage, key.seed))
        left = len(self.waiting) + len(self.running)
        return Progress(loss, trial, self.total - left, self.total)

    def _weights(self, group: str, spec: TrialSpec) -> str:
        """Says whether two trials started from the same weights, on whichever machine they ran."""
        if spec.warm_start is None:
            return ""
        if group not in self.weights:
            path = warm_start_path(spec)
            if not path.is_file():  # trained elsewhere, by another node or not at all
                return ""
            self.weights[group] = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        return self.weights[group]


def build_table(
    plan: TablePlan,
    log: TableLog,
    executor: Executor,
    minutes: float | None = None,
    say: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
) -> bool:
    """Trains what the log lacks; returns whether nothing is left.

    What ended is never trained again, but for a trial that failed or ran out of time, once.

    Args:
        minutes: after which no further trial starts; those under way end. None: no limit.
        say: told of every trial that ends.
        stop: when set, running trials are cancelled.
    """
    spec = TableSpec.model_validate(dict(plan.spec))
    build = _Build(plan, Trials(spec), log)
    stop = stop or threading.Event()
    deadline = float("inf") if minutes is None else time.monotonic() + 60 * minutes
    try:
        while not stop.is_set():
            if time.monotonic() < deadline:
                build.hand_out(executor)
            if not build.running:
                break
            for key, result in executor.wait(PATIENCE):
                ended = build.finish(key, result)
                if say is not None:
                    say(ended)
    finally:
        executor.cancel_all()
    return not build.waiting and not build.running
