"""Runs the trials of a comparison, none of them twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from search_server.comparison import Comparison
from search_server.comparison_file import ComparisonFile
from search_server.executors import Executor
from search_server.funnel.stages import TrialKey
from workers import TrialResult, TrialSpec

PATIENCE = 0.5  # seconds until the stop signal is looked at again
MARGIN = 1  # trials handed out beyond the slots, so that no slot waits

Results = Mapping[tuple[int, int], TrialResult]


@dataclass(frozen=True)
class Ended:
    """A trial that has just ended, and how far the comparison is.

    Attributes:
        done, of: trials that have ended, those of earlier runs included; all trials.
        seconds_left: None before it can be told.
    """

    name: str
    seed: int
    result: TrialResult
    done: int
    of: int
    seconds_left: float | None


@dataclass
class _Run:
    """The trials of a comparison: those that have ended, those that wait, those under way."""

    comparison: Comparison
    file: ComparisonFile | None
    results: dict[tuple[int, int], TrialResult] = field(default_factory=dict)
    specs: dict[str, TrialSpec] = field(default_factory=dict)
    wanted: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    running: dict[TrialKey, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        earlier = {} if self.file is None else self.file.results
        for contender, seed in self.comparison.trials():
            spec = self.comparison.trial(contender, seed)
            key = spec.key
            known = earlier.get(key)
            if known is not None and known.status in ("done", "diverged"):
                self.results[contender, seed] = known
                continue
            if key not in self.specs:  # else the same loss by another name: trained once for both
                self.specs[key] = spec
                self.waiting.append(key)
            self.wanted.setdefault(key, []).append((contender, seed))

    def hand_out(self, executor: Executor) -> None:
        """As many trials as there is room for."""
        while self.waiting and len(self.running) < executor.slots() + MARGIN:
            key = self.waiting.pop(0)
            contender, seed = self.wanted[key][0]
            trial = TrialKey(contender, "proxy", seed)
            self.running[trial] = key
            executor.submit(trial, self.specs[key])

    def finish(self, trial: TrialKey, result: TrialResult) -> None:
        """Writes down how a trial ended."""
        key = self.running.pop(trial)
        name = self.comparison.contenders[trial.candidate].name
        if self.file is not None:
            spec = self.specs[key]
            about = {
                "loss": name,
                "seed": spec.seed,
                "steps": spec.steps,
                "batch_size": spec.batch_size,
                "evaluated": spec.evaluate.annotations,
                "definition": dict(spec.definition),
            }
            self.file.add(spec, result, about)
        for place in self.wanted[key]:
            self.results[place] = result


def run_comparison(
    comparison: Comparison,
    executor: Executor,
    file: ComparisonFile | None = None,
    say: Callable[[Ended], None] | None = None,
    stop: threading.Event | None = None,
) -> Results:
    """Runs all trials that are not in the file yet; their results by contender and seed.

    A trial that is done or has diverged is never run again. One that failed or ran out of time is
    tried again by the next run.

    Args:
        file: where ended trials are kept; None: nowhere.
        say: told of every trial that ends.
        stop: when set, running trials are cancelled, and what has ended is returned.
    """
    run = _Run(comparison, file)
    stop = stop or threading.Event()
    total = len(comparison.seeds) * len(comparison.contenders)
    began, ended = time.monotonic(), 0
    try:
        while (run.waiting or run.running) and not stop.is_set():
            run.hand_out(executor)
            for trial, result in executor.wait(PATIENCE):
                run.finish(trial, result)
                ended += 1
                if say is not None:
                    left = len(run.waiting) + len(run.running)
                    seconds = (time.monotonic() - began) / ended * left
                    name = comparison.contenders[trial.candidate].name
                    say(Ended(name, trial.seed, result, len(run.results), total, seconds))
    finally:
        executor.cancel_all()
    return run.results
