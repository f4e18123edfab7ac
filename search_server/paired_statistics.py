"""Statistics of trials paired by seed: mean difference, its t interval and p value, wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import sqrt

from search_server.seed_statistics import paired_difference

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
        p: two-sided p value of a mean difference of 0 (paired t test), in [0, 1]; None with one
            seed. Differences that are all equal: 0, or 1 where they are 0.
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
    p: float | None = None


def paired(values: Mapping[int, float], baseline: Mapping[int, float]) -> Paired | None:
    """``values`` against ``baseline``, both AP by seed; None without a common seed."""
    spread = paired_difference(values, baseline)
    if not spread.count:
        return None
    half = p = None
    if spread.deviation is not None:
        error = spread.deviation / sqrt(spread.count)
        half = t_quantile(spread.count - 1) * error
        p = _p_value(spread.mean, error, spread.count - 1)
    return Paired(
        mean=spread.mean,
        deviation=spread.deviation,
        low=None if half is None else spread.mean - half,
        high=None if half is None else spread.mean + half,
        wins=sum(values[seed] > baseline[seed] for seed in spread.seeds),
        ties=sum(values[seed] == baseline[seed] for seed in spread.seeds),
        count=spread.count,
        p=p,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number, in the order given, each in [0, 1].

    Holm's step-down correction: the chance that any of the hypotheses is rejected falsely stays
    below the level, whatever their dependence (Holm 1979). Differences to one baseline depend on
    each other.
    """
    count = len(p_values)
    corrected = [0.0] * count
    highest = 0.0
    for rank, index in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (count - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def _p_value(mean: float, error: float, freedom: int) -> float:
    from scipy.special import stdtr

    if error == 0.0:
        return 1.0 if mean == 0.0 else 0.0
    return float(2 * stdtr(freedom, -abs(mean) / error))


@cache
def t_quantile(freedom: int, confidence: float = CONFIDENCE) -> float:
    """How many standard errors a two-sided interval reaches to each side.

    Args:
        freedom: degrees of freedom, at least 1.
        confidence: in (0, 1).
    """
    from scipy.stats import t  # most of a second to import

    return float(t.ppf((1 + confidence) / 2, freedom))
