"""Statistics of trials paired by seed: mean difference, its t interval, wins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

from search_server.report.statistics import paired_difference

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Paired:
    """One loss against another over the seeds that both have; APs in [0, 1].

    Attributes:
        mean: mean of loss minus baseline.
        deviation: sample standard deviation of the differences; None with one seed.
        low, high: ends of the two-sided 95% interval of the mean by Student's t with
            ``count - 1`` degrees of freedom; None with one seed. Differences that are all equal
            give an interval of no width.
        wins: seeds in which the loss was better; an equal AP is no win.
        ties: seeds with an equal AP.
        count: common seeds, at least 1.
    """

    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    wins: int
    ties: int
    count: int


def paired(values: Mapping[int, float], baseline: Mapping[int, float]) -> Paired | None:
    """``values`` against ``baseline``, both AP by seed; None without a common seed."""
    spread = paired_difference(values, baseline)
    if not spread.count:
        return None
    half = None
    if spread.deviation is not None:
        half = t_quantile(spread.count - 1) * spread.deviation / sqrt(spread.count)
    return Paired(
        mean=spread.mean,
        deviation=spread.deviation,
        low=None if half is None else spread.mean - half,
        high=None if half is None else spread.mean + half,
        wins=sum(values[seed] > baseline[seed] for seed in spread.seeds),
        ties=sum(values[seed] == baseline[seed] for seed in spread.seeds),
        count=spread.count,
    )


def t_quantile(freedom: int, confidence: float = CONFIDENCE) -> float:
    """How many standard errors a two-sided interval reaches to each side.

    Args:
        freedom: degrees of freedom, at least 1.
        confidence: in (0, 1).
    """
    from scipy.stats import t  # most of a second to import

    return float(t.ppf((1 + confidence) / 2, freedom))
