"""What a report shows, gathered from a job's rows; no drawing here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search_server.errors import JobError
from search_server.report.judged_records import (
    ConfirmedLoss,
    RungCurve,
    Sized,
    confirmed_losses,
    proxy_steps,
    rung_curves,
    sized,
)
from search_server.report.policy_records import PolicySearch, policy_search
from search_server.seed_statistics import Spread, by_seed, paired_difference, spread
from search_server.store.records import NOTHING_YET

if TYPE_CHECKING:
    from search_server.store import CandidateRecord, JobRecord, Store, TrialRecord

STAGES = ("drawn", "verified", "simulated", "proxy")
ORIGIN_ORDER = (
    *("named", "random", "mutation", "crossover", "refined", "tuned", "policy", "mean"),
)


@dataclass(frozen=True)
class Dot:
    """One ended proxy trial.

    Attributes:
        position: 1 for the first proxy trial that ended, 2 for the second, and so on.
        fitness: AP in [0, 1].
    """

    position: int
    candidate: int
    origin: str
    fitness: float


@dataclass(frozen=True)
class Step:
    """From proxy trial ``position`` on, ``candidate`` with mean AP ``fitness`` was the best."""

    position: int
    candidate: int
    fitness: float


@dataclass(frozen=True)
class Findings:
    """Everything the panels draw.

    Attributes:
        funnel: stage -> origin -> count, for the stages of :data:`STAGES`; no baseline in it.
        best: the best fully trained candidate that is not the baseline, None before the first one;
            of confirmed ones that of the largest difference on `confirm`; or the one asked for.
        difference: best minus baseline, paired by seed; None without both.
        trained: how many candidates were trained to the end, the baseline not counted.
        policy: the rounds of a policy search; None for another search.
        confirmed: what was confirmed, rivals too, the best first.
        sizes: the trained candidates by size; empty where there are no expressions.
        curves: AP over the rungs of the proxy task.
        asked: whether `best` was asked for, and need not be the best at all.
    """

    job: JobRecord
    baseline: CandidateRecord | None
    baseline_spread: Spread
    best: CandidateRecord | None
    best_spread: Spread
    difference: Spread | None
    trained: int
    dots: tuple[Dot, ...]
    steps: tuple[Step, ...]
    funnel: Mapping[str, Mapping[str, int]]
    policy: PolicySearch | None = None
    confirmed: tuple[ConfirmedLoss, ...] = ()
    sizes: tuple[Sized, ...] = ()
    curves: tuple[RungCurve, ...] = ()
    asked: bool = False

    @property
    def answer(self) -> CandidateRecord | None:
        """What the search found: a policy search's final mean once it is trained, else the best."""
        if self.policy is not None and self.policy.mean is not None and not self.asked:
            return self.policy.mean
        return self.best

    @property
    def shown_name(self) -> str:
        """What `shown` is, in a word or two."""
        if self.asked and self.best is not None:
            return f"candidate {self.best.index}"
        if self.policy is None or not (self.policy.samples and self.policy.found):
            return "best"
        return "final mean" if self.policy.mean is not None else "policy's mean"

    @property
    def shown(self) -> Mapping[str, Any] | None:
        """The definition whose formula and curves are drawn; None before there is one.

        Of a policy search the policy's mean, which is there after the first round already.
        """
        if not self.asked and self.policy and self.policy.samples and self.policy.found:
            branches = {name: branch.to_json() for name, branch in self.policy.found.items()}
            return {"name": "mean", **branches}
        return None if self.answer is None else self.answer.definition


def gather(store: Store, job_id: str, candidate: int | None = None) -> Findings:
    """Reads a job's rows, in whatever state the job is.

    Args:
        candidate: its index: the one to show in place of the best.

    Raises:
        JobError: there is no such job, or it has not trained that candidate to the end.
    """
    job = store.job(job_id)
    candidates = store.candidates(job_id)
    rows = store.trials(job_id)
    trials = [trial for trial in rows if trial.stage == "proxy"]
    confirmed = confirmed_losses(candidates, rows)
    baseline = next((c for c in candidates if c.origin == "baseline"), None)
    trained = trained_candidates(candidates)
    chosen = next((each.index for each in confirmed if not each.rival), None)
    if candidate is None:
        best = best_of([c for c in trained if c.index == chosen] or trained)
    else:
        best = _asked(job_id, trained, candidate)
    baseline_values = by_seed(trials, baseline.index) if baseline else {}
    best_values = by_seed(trials, best.index) if best else {}
    return Findings(
        job=job,
        baseline=baseline,
        baseline_spread=spread(baseline_values),
        best=best,
        best_spread=spread(best_values),
        difference=paired_difference(best_values, baseline_values) if best and baseline else None,
        trained=len(trained),
        dots=_dots(candidates, trials),
        steps=_steps(candidates, trials),
        funnel=_funnel(candidates, store.counts(job_id), trials),
        policy=policy_search(job, candidates, trials, baseline_values),
        confirmed=confirmed,
        sizes=sized(candidates, [each.index for each in confirmed]),
        curves=rung_curves(candidates, trials, proxy_steps(job.spec)),
        asked=candidate is not None,
    )


def _asked(job: str, trained: Sequence[CandidateRecord], index: int) -> CandidateRecord:
    found = next((each for each in trained if each.index == index), None)
    if found is None:
        raise JobError(
            f"{job}:{index} was not trained to the end, or is the baseline: there is nothing of "
            f"its own to draw; lossforge leaderboard {job} lists what was trained"
        )
    return found


def trained_candidates(candidates: Sequence[CandidateRecord]) -> list[CandidateRecord]:
    """The candidates that were trained on all seeds of the proxy task; no baseline among them."""
    return [
        c
        for c in candidates
        if c.origin != "baseline" and c.state == "done" and c.fitness is not None
    ]


def best_of(trained: Sequence[CandidateRecord]) -> CandidateRecord | None:
    """The candidate of highest fitness, the first of equals; None where there is none."""
    return max(trained, key=lambda c: (c.fitness, -c.index), default=None)


def _in_order(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    ended = [t for t in trials if t.state in ("done", "diverged")]
    return sorted(ended, key=lambda t: (str(t.finished_at or ""), t.candidate, t.seed))


def _dots(candidates: Sequence[CandidateRecord], trials: Sequence[TrialRecord]) -> tuple[Dot, ...]:
    origins = {c.index: c.origin for c in candidates}
    return tuple(
        Dot(position, t.candidate, origins.get(t.candidate, "?"), t.fitness or 0.0)
        for position, t in enumerate(_in_order(trials), start=1)
    )


def _steps(
    candidates: Sequence[CandidateRecord], trials: Sequence[TrialRecord]
) -> tuple[Step, ...]:
    # A candidate counts from the end of its last seed on: before that its mean is not known.
    last = {t.candidate: position for position, t in enumerate(_in_order(trials), start=1)}
    trained = [
        (last[c.index], c.index, c.fitness or 0.0)
        for c in trained_candidates(candidates)
        if c.index in last
    ]
    steps: list[Step] = []
    for position, index, fitness in sorted(trained):
        if not steps or fitness > steps[-1].fitness:
            steps.append(Step(position, index, fitness))
    return tuple(steps)


def _funnel(
    candidates: Sequence[CandidateRecord],
    counts: Mapping[tuple[str, str], int],
    trials: Sequence[TrialRecord],
) -> dict[str, dict[str, int]]:
    funnel: dict[str, dict[str, int]] = {stage: {} for stage in STAGES}

    def add(stage: str, origin: str, count: int = 1) -> None:
        funnel[stage][origin] = funnel[stage].get(origin, 0) + count

    for (origin, outcome), count in counts.items():
        if origin in ("baseline", "rival"):
            continue
        add("drawn", origin, count)
        if outcome == "accepted":
            add("verified", origin, count)
    trained = {t.candidate for t in trials if t.state not in NOTHING_YET}
    for candidate in candidates:
        if candidate.origin in ("baseline", "rival"):
            continue
        if candidate.simulate_score is not None:
            add("simulated", candidate.origin)
        if candidate.index in trained:
            add("proxy", candidate.origin)
    return funnel
