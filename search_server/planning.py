"""What a search will take: trials and hours per stage, before a single one is spent."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from search_server.errors import JobError
from search_server.funnel.outcomes import TrialKey
from search_server.jobs import Job, prepare_job
from search_server.progress import expected_confirmations, expected_trials
from search_server.spec import JobSpec, PolicySearcher
from search_server.store.records import Stage
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
    """One stage of a plan, or the part of one between two rungs.

    Attributes:
        trials: how many are expected.
        steps: training steps at its end.
        hours: the time of its trials on all slots together.
        start: training steps at its beginning; above 0 the trials are some of those before.
    """

    stage: str
    trials: int
    steps: int
    hours: float
    start: int = 0


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
        return sum(stage.trials for stage in self.stages if not stage.start)

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
    simulate, proxy, confirm = spec.funnel.simulate, spec.funnel.proxy, spec.funnel.confirm
    if isinstance(seconds_per_step, Mapping):
        timings = seconds_per_step
    else:
        timings = {"proxy": Timing(seconds_per_step, 0.0)}
        batches = {} if simulate is None else {"simulate": simulate.batch_size}
        if confirm is not None:
            batches["confirm"] = confirm.batch_size or proxy.batch_size
        for stage, batch in batches.items():
            timings[stage] = Timing(seconds_per_step * batch / proxy.batch_size, 0.0)
    trials = _trials(spec, _candidates(spec))
    searcher, slots = spec.searcher, max(1, slots)

    def part(stage: str, count: int, end: int, start: int = 0) -> StagePlan:
        timing = timings[stage]
        seconds = timing.step * (end - start) + timing.evaluate + OVERHEAD
        turns = count / slots
        if stage == "proxy" and isinstance(searcher, PolicySearcher):
            turns = _turns(searcher, len(proxy.seeds), slots)
        return StagePlan(stage, count, end, turns * seconds / 3600, start)

    stages = [] if simulate is None else [part("simulate", trials["simulate"], simulate.steps)]
    stages += [part("proxy", *given) for given in _parts(spec, trials["proxy"])]
    if confirm is not None:
        stages.append(part("confirm", expected_confirmations(spec), confirm.steps or proxy.steps))
    if isinstance(searcher, PolicySearcher):
        return Plan(tuple(stages), slots, searcher.rounds, searcher.samples)
    return Plan(tuple(stages), slots)


def _trials(spec: JobSpec, candidates: int) -> dict[str, int]:
    """Trials by stage of so many candidates and the baseline."""
    simulate = spec.funnel.simulate
    keep = None if simulate is None else simulate.keep
    return expected_trials(candidates, spec.searcher.population, keep, len(spec.funnel.proxy.seeds))


def _parts(spec: JobSpec, trials: int) -> Iterator[tuple[int, int, int]]:
    """The proxy trials between two rungs: how many, the steps at the end and at the beginning."""
    proxy = spec.funnel.proxy
    starts, ends = (0, *proxy.rungs), (*proxy.rungs, proxy.steps)
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        yield _left(spec, trials, number), end, start


def _candidates(spec: JobSpec) -> int:
    """How many candidates are made: those that the spec wants, or that its budget of steps pays
    for, which are the more, the more are stopped early."""
    limit, simulate, proxy = spec.limits.steps, spec.funnel.simulate, spec.funnel.proxy

    def steps(candidates: int) -> float:
        """What they take, in steps of the proxy's batch size, as `StepBudget` counts."""
        trials = _trials(spec, candidates)
        first = 0.0
        if simulate is not None:
            first = trials["simulate"] * simulate.steps * simulate.batch_size / proxy.batch_size
        return first + sum(n * (end - start) for n, end, start in _parts(spec, trials["proxy"]))

    if limit is None:
        return spec.candidates
    return max(0, bisect_right(range(spec.candidates + 1), float(limit), key=steps) - 1)


def _left(spec: JobSpec, trials: int, rungs: int) -> int:
    """Of the proxy trials, those that pass so many rungs, if each keeps what it is meant to: all
    of the baseline and of the candidates that have too few predecessors to be measured by."""
    proxy = spec.funnel.proxy
    first = min(trials, len(proxy.seeds) * (1 + spec.window + proxy.reduction))
    return first + round((trials - first) / proxy.reduction**rungs)


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
    stages: list[Stage] = ["proxy"]
    if spec.funnel.simulate is not None:
        stages.insert(0, "simulate")
    if spec.funnel.confirm is not None:
        stages.append("confirm")
    with TrialWorker() as worker:
        return {stage: _timed(job, stage, worker) for stage in stages}


def _timed(job: Job, stage: Stage, worker: TrialWorker) -> Timing:
    key = TrialKey(0, stage, job.spec.seed)
    trial = job.trial(key, job.baseline.to_json())
    trial = replace(trial, steps=TIMED_STEPS, time_limit=None, rungs=(), warm_start=None)
    result: TrialResult = run_trial(trial, worker)
    if result.status != "done":
        raise JobError(f"ten steps of the {stage} stage ended as {result.status}: {result.reason}")
    return Timing(result.seconds["train"] / TIMED_STEPS, result.seconds["evaluate"])
