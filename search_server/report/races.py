"""Jobs side by side: the best AP of what each made itself, over the training steps that it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search_server.errors import JobError
from search_server.funnel.outcomes import TrialKey
from search_server.spec import JobSpec
from search_server.step_budget import StepBudget
from search_server.store.records import NOTHING_YET

if TYPE_CHECKING:
    from search_server.store import JobRecord, Store


@dataclass(frozen=True)
class Race:
    """A job's way to the best candidate of its own making: a loss that it was given to start from
    is no find, however good.

    Steps are those of simulation and proxy task, in batches of the proxy task, the baseline's
    included; candidates count in their order, so the way depends on no timing.

    Attributes:
        points: steps after which a candidate was the best so far, and its AP in [0, 1]; rising.
        steps: of all candidates.
        given: AP of the best loss that it was given, trained as its candidates are; None: it was
            given none.
    """

    job: str
    name: str
    points: tuple[tuple[float, float], ...]
    steps: float
    given: float | None = None

    @property
    def best(self) -> float | None:
        """The last best AP; None before the first candidate was trained to the end."""
        return self.points[-1][1] if self.points else None

    @property
    def took(self) -> float | None:
        """Steps until it had its best."""
        return self.points[-1][0] if self.points else None

    def steps_to(self, ap: float) -> float | None:
        """Steps until a candidate had at least `ap`; None if none has."""
        return next((steps for steps, best in self.points if best >= ap), None)


def race(store: Store, job_id: str) -> Race:
    """The way of one job.

    Raises:
        JobError: there is no such job.
    """
    record = store.job(job_id)
    spec = JobSpec.from_json(record.spec)
    simulated, trained = StepBudget(spec), StepBudget(spec)
    for trial in store.trials(job_id):
        if trial.state not in NOTHING_YET:
            key = TrialKey(trial.candidate, trial.stage, trial.seed)
            budget = simulated if trial.stage == "simulate" else trained
            budget.note(key, trial.state, trial.rungs, trial.curves)
    cohort = spec.searcher.population

    def steps(index: int) -> float:
        """Its cohort is simulated as a whole before one of it is trained."""
        return simulated.upto(-(-index // cohort) * cohort) + trained.upto(index)

    points: list[tuple[float, float]] = []
    candidates = [each for each in store.candidates(job_id) if each.origin != "rival"]
    trained_ones = [each for each in candidates if each.state == "done"]
    for each in trained_ones:
        if each.origin in ("baseline", "named") or each.fitness is None:
            continue
        if not points or each.fitness > points[-1][1]:
            points.append((steps(each.index), each.fitness))
    named = [each.fitness or 0.0 for each in trained_ones if each.origin == "named"]
    best_given = max(named, default=None)
    return Race(job_id, record.name, tuple(points), steps(len(candidates)), best_given)


def races(store: Store, job_id: str, others: Sequence[str]) -> tuple[Race, ...]:
    """A job's way and those of others, which have to be of the same task.

    Raises:
        JobError: there is no such job, or its APs cannot be compared with the first one's.
    """
    own = store.job(job_id)
    for other in map(store.job, others):
        if other.trial_group != own.trial_group:
            here, there = _task(own), _task(other)
            differing = [name for name in here if here[name] != there[name]]
            raise JobError(
                f"job {other.id} cannot be drawn beside {job_id}: their trials differ in "
                f"{', '.join(differing) or 'what they run on'}"
            )
    return tuple(race(store, each) for each in dict.fromkeys((job_id, *others)))


def _task(record: JobRecord) -> dict[str, object]:
    """What people can look at, where the proxy trials of two jobs cannot be compared."""
    spec = JobSpec.from_json(record.spec)
    proxy = spec.funnel.proxy
    start = None if proxy.warm_start is None else (proxy.warm_start, spec.baseline, spec.seed)
    return {
        "detector": record.detector,
        "data": spec.data,
        "steps": proxy.steps,
        "batch size": proxy.batch_size,
        "warm start, its baseline or seed": start,
        "precision": spec.resources.precision,
        "threads": spec.resources.threads,
        "device": spec.resources.device,
        "processes": spec.resources.processes,
    }
