"""For a report's second row: what was confirmed, AP against size, curves over the rungs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from search_server.confirmation import (
    CONFIRM,
    MEASURED,
    RIVAL,
    TEST,
    Confirmation,
    Judged,
    confirmations,
)
from search_server.paired_statistics import Paired

if TYPE_CHECKING:
    from search_server.store import CandidateRecord, TrialRecord


@dataclass(frozen=True)
class ConfirmedLoss:
    """One line of the panel: a candidate or rival against the baseline.

    Attributes:
        label: its number and origin, or a rival's name.
        test: its difference on `test`; None where it was not published.
        p, shrunken: as in `Confirmation`.
    """

    index: int
    label: str
    rival: bool
    difference: Paired
    test: Paired | None
    p: float | None
    shrunken: float | None


@dataclass(frozen=True)
class Sized:
    """A trained candidate in the panel of AP and size; `fitness` is AP in [0, 1]."""

    index: int
    origin: str
    size: int
    fitness: float
    front: bool
    confirmed: bool


@dataclass(frozen=True)
class RungCurve:
    """Mean AP over the seeds by step, the rungs' and the last one's.

    Attributes:
        points: step and AP in [0, 1], by step; at least one.
        stopped: whether it was stopped at its last rung.
    """

    index: int
    points: tuple[tuple[int, float], ...]
    stopped: bool


def confirmed_losses(
    candidates: Sequence[CandidateRecord], trials: Sequence[TrialRecord]
) -> tuple[ConfirmedLoss, ...]:
    """What stands on `confirm` against the baseline, the best first."""
    known = {candidate.index: candidate for candidate in candidates}
    found = job_confirmations(candidates, trials)
    lines = []
    for index, one in found.items():
        if one.confirm is None or one.confirm.difference is None:
            continue
        candidate = known[index]
        rival = candidate.origin == RIVAL
        name = candidate.name or f"rival {index}"
        label = name if rival else f"{index}, {candidate.origin}"
        test = None if one.test is None else one.test.difference
        lines.append(
            ConfirmedLoss(index, label, rival, one.confirm.difference, test, one.p, one.shrunken)
        )
    return tuple(sorted(lines, key=lambda line: (-line.difference.mean, line.index)))


def job_confirmations(
    candidates: Sequence[CandidateRecord], trials: Sequence[TrialRecord]
) -> dict[int, Confirmation]:
    """`confirmations` from a job's records."""
    origins = {candidate.index: candidate.origin for candidate in candidates}
    return confirmations(
        Judged(
            t.candidate, origins[t.candidate], t.stage, t.seed,
            0.0 if t.state == "diverged" else t.fitness or 0.0, t.reused_from,
        )
        for t in trials
        if t.stage in (CONFIRM, TEST) and t.state in MEASURED
    )  # fmt: skip


def sized(candidates: Sequence[CandidateRecord], confirmed: Sequence[int]) -> tuple[Sized, ...]:
    """The trained candidates by size; empty where none of them has one, as ranking losses."""
    trained = [c for c in candidates if c.state == "done" and c.fitness is not None]
    if not any(c.size for c in trained):
        return ()
    found, best = [], -1.0
    for c in sorted(trained, key=lambda c: (c.size, -(c.fitness or 0.0), c.index)):
        fitness = c.fitness or 0.0
        found.append(
            Sized(c.index, c.origin, c.size, fitness, fitness > best, c.index in confirmed)
        )
        best = max(best, fitness)
    return tuple(found)


def rung_curves(
    candidates: Sequence[CandidateRecord], trials: Sequence[TrialRecord], steps: int | None
) -> tuple[RungCurve, ...]:
    """The curve of every candidate that reached a rung of the proxy task, by index.

    Args:
        steps: of the proxy task; None: where the last step is, is not known.
    """
    values: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for trial in trials:
        if trial.stage != "proxy":
            continue
        for step, ap in trial.rungs.items():
            values[trial.candidate][step].append(ap)
    found = []
    for candidate in candidates:
        points = {step: fmean(aps) for step, aps in values.get(candidate.index, {}).items()}
        if not points:
            continue
        done = candidate.state == "done" and candidate.fitness is not None
        if done and steps is not None:
            points[steps] = candidate.fitness or 0.0
        stopped = candidate.state == "dropped"
        found.append(RungCurve(candidate.index, tuple(sorted(points.items())), stopped))
    return tuple(found)


def proxy_steps(spec: Mapping[str, object]) -> int | None:
    """Steps of the proxy task in a job's spec; None where it does not say."""
    funnel = spec.get("funnel")
    proxy = funnel.get("proxy") if isinstance(funnel, Mapping) else None
    steps = proxy.get("steps") if isinstance(proxy, Mapping) else None
    return steps if isinstance(steps, int) else None
