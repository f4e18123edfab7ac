"""How well each stage of a job ranks: its rank correlation with the confirmed AP."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from search_server.confirmation import CONFIRM
from search_server.rank_correlation import Correlation, rank_correlation
from search_server.seed_statistics import by_seed

if TYPE_CHECKING:
    from search_server.store import CandidateRecord, Store, TrialRecord

PROXY = "proxy"


@dataclass(frozen=True)
class StageRank:
    """One stage against a later one, over the candidates that have both.

    Attributes:
        stage: `simulate`, `rung N`, `proxy`, or `proxy, one seed`: its first seed alone.
        count: candidates that have both, the baseline among them.
        correlation: Spearman's, with a 95% bootstrap interval; None where it cannot be told: fewer
            than three candidates, or all alike.
    """

    stage: str
    against: str
    count: int
    correlation: Correlation | None


def stage_ranks(store: Store, job_id: str) -> list[StageRank]:
    """The rank correlation of every stage with the mean AP on `confirm`, and with the fitness.

    Those with `confirm` are of the few candidates that the proxy task found best, and of the
    baseline: a narrow choice, in which ranks agree less than over all losses. Those with the
    fitness are of all that were trained to the end, but of the same seeds: there they agree more.

    Raises:
        JobError: there is no such job.
    """
    candidates = store.candidates(job_id)
    trials = store.trials(job_id, curves=False)
    scores = _scores(candidates, trials)
    found = []
    for against in (CONFIRM, PROXY):
        goal = scores.get(against, {})
        for stage, values in scores.items():
            if stage in (against, CONFIRM):
                continue
            common = sorted(set(values) & set(goal))
            pairs = [values[i] for i in common], [goal[i] for i in common]
            found.append(StageRank(stage, against, len(common), rank_correlation(*pairs)))
    return found


def _scores(
    candidates: Sequence[CandidateRecord], trials: Sequence[TrialRecord]
) -> dict[str, dict[int, float]]:
    """AP by candidate, for every stage that has any, the cheapest first."""
    own: dict[int, list[TrialRecord]] = defaultdict(list)
    for trial in trials:
        own[trial.candidate].append(trial)
    found: dict[str, dict[int, float]] = defaultdict(dict)
    rungs = sorted({rung for t in trials if t.stage == PROXY for rung in t.rungs})
    for candidate in candidates:
        index = candidate.index
        if candidate.simulate_score is not None:
            found["simulate"][index] = candidate.simulate_score
    for rung in rungs:
        for candidate in candidates:
            if (value := _at(own[candidate.index], rung)) is not None:
                found[f"rung {rung}"][candidate.index] = value
    for candidate in candidates:
        index = candidate.index
        proxy = by_seed(own[index], index, PROXY)
        if candidate.fitness is not None and candidate.state != "failed":
            if len(proxy) > 1:
                found["proxy, one seed"][index] = proxy[min(proxy)]
            found[PROXY][index] = candidate.fitness
    for candidate in candidates:
        confirm = by_seed(own[candidate.index], candidate.index, CONFIRM)
        if confirm:
            found[CONFIRM][candidate.index] = fmean(confirm.values())
    return dict(found)


def _at(trials: Sequence[TrialRecord], rung: int) -> float | None:
    """The mean AP of a candidate's proxy trials at a rung, as `funnel.rungs` has it: of those that
    diverged before it counts 0; None where one has not come there, or none has."""
    proxy = [trial for trial in trials if trial.stage == PROXY]
    if not any(rung in trial.rungs for trial in proxy):
        return None
    if not all(rung in trial.rungs or trial.state == "diverged" for trial in proxy):
        return None
    return fmean(trial.rungs.get(rung, 0.0) for trial in proxy)


def described(rank: StageRank) -> str:
    """`0.82 (0.41 to 0.97)`, or why there is no number."""
    if rank.correlation is None:
        return "too few candidates" if rank.count < 3 else "all alike"
    c = rank.correlation
    return f"{c.value:.2f} ({c.low:.2f} to {c.high:.2f})"
