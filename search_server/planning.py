"""What a search will take: trials and hours per stage, before a single one is spent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from search_server.errors import JobError
from search_server.funnel.stages import TrialKey
from search_server.jobs import Job, prepare_job
from search_server.progress import expected_trials
from search_server.spec import JobSpec, PolicySearcher
from workers import TrialResult, TrialWorker, run_trial

TIMED_STEPS = 10
OVERHEAD = 1.0  # seconds a trial beside its steps and its evaluation


@dataclass(frozen=True)
class Timing:
    """What one trial of a stage costs.

    Attributes:
        step: seconds per optimiser step.
        evaluate: seconds of the evaluation at its end.
    """

    step: float
    evaluate: float


@dataclass(frozen=True)
class StagePlan:
    """One stage of a plan; `hours` is the time of its trials on all slots together."""

    stage: str
    trials: int
    steps: int
    hours: float


@dataclass(frozen=True)
class Plan:
    """A search, counted out.

    Attributes:
        stages: cheapest first.
        slots: trials at once that `hours` is reckoned with.
        rounds, samples: of a policy search; 0 elsewhere.
    """

    stages: tuple[StagePlan, ...]
    slots: int
    rounds: int = 0
    samples: int = 0

    @property
    def trials(self) -> int:
        """All trials."""
        return sum(stage.trials for stage in self.stages)

    @property
    def hours(self) -> float:
        """Wall-clock hours, the search for candidates not counted."""
        return sum(stage.hours for stage in self.stages)


def plan(spec: JobSpec, seconds_per_step: float | Mapping[str, Timing], slots: int = 1) -> Plan:
    """Trials and hours of a job by stage.

    Args:
        seconds_per_step: of a proxy step, or what `time_steps` gave. From a single number, a step
            of the simulation is taken to cost the same per image, and evaluations as nothing.
        slots: trials at once.
    """
    simulate, proxy = spec.funnel.simulate, spec.funnel.proxy
    if isinstance(seconds_per_step, Mapping):
        timings = seconds_per_step
    else:
        timings = {"proxy": Timing(seconds_per_step, 0.0)}
        if simulate is not None:
            share = simulate.batch_size / proxy.batch_size
            timings["simulate"] = Timing(seconds_per_step * share, 0.0)
    trials = expected_trials(
        spec.candidates,
        spec.searcher.population,
        None if simulate is None else simulate.keep,
        len(proxy.seeds),
    )
    budgets = {"simulate": simulate, "proxy": proxy}
    searcher = spec.searcher
    stages = []
    for stage, budget in budgets.items():
        if budget is not None:
            timing = timings[stage]
            seconds = timing.step * budget.steps + timing.evaluate + OVERHEAD
            turns = trials[stage] / max(1, slots)
            if isinstance(searcher, PolicySearcher):
                turns = _turns(searcher, len(proxy.seeds), max(1, slots))
            stages.append(StagePlan(stage, trials[stage], budget.steps, turns * seconds / 3600))
    if isinstance(searcher, PolicySearcher):
        return Plan(tuple(stages), slots, searcher.rounds, searcher.samples)
    return Plan(tuple(stages), slots)


def _turns(searcher: PolicySearcher, seeds: int, slots: int) -> int:
    """Trials one after another on the busiest slot: each round waits for the one before it. The
    baseline is trained along with the first round, the final mean after the last one."""
    own = searcher.samples * seeds
    first, other, last = (math.ceil(trials / slots) for trials in (own + seeds, own, seeds))
    return first + (searcher.rounds - 1) * other + last


def time_steps(spec: JobSpec, source: object = "spec") -> dict[str, Timing]:
    """Seconds per step and per evaluation of each stage, from ten real steps with the baseline.

    Raises:
        SpecError: see `create_job`.
        JobError: a trial did not come through; the message says why.
    """
    job = prepare_job(spec, source)
    stages = ["proxy"] if spec.funnel.simulate is None else ["simulate", "proxy"]
    with TrialWorker() as worker:
        return {stage: _timed(job, stage, worker) for stage in stages}


def _timed(job: Job, stage: str, worker: TrialWorker) -> Timing:
    key = TrialKey(0, "simulate" if stage == "simulate" else "proxy", job.spec.seed)
    trial = replace(job.trial(key, job.baseline.to_json()), steps=TIMED_STEPS, time_limit=None)
    result: TrialResult = run_trial(trial, worker)
    if result.status != "done":
        raise JobError(f"ten steps of the {stage} stage ended as {result.status}: {result.reason}")
    return Timing(result.seconds["train"] / TIMED_STEPS, result.seconds["evaluate"])
