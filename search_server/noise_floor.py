"""The noise of trials: how much an AP varies with the seed, alone and paired with another's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean

Values = Mapping[int, float]


@dataclass(frozen=True)
class Residual:
    """What is left of APs by loss and seed when both have had their say.

    Attributes:
        variance: of one AP around loss mean + seed effect, unbiased, at least 0.
        freedom: its degrees of freedom, (losses - 1)(seeds - 1), at least 1.
        seeds: how many seeds all losses have.
    """

    variance: float
    freedom: int
    seeds: int

    @property
    def paired_deviation(self) -> float:
        """Standard deviation of a difference of two losses within a seed."""
        return sqrt(2 * self.variance)


def residual(losses: Sequence[Values]) -> Residual | None:
    """The residual variance of a two-way layout, losses by seeds, without replication.

    What a seed does to all losses alike cancels in every paired difference, so it is no noise.
    Half the variance of a paired difference, if all losses vary alike. It is the same for APs and
    for their differences to a baseline, whose seed effect cancels as well.

    Args:
        losses: AP (or difference of APs) by seed, for each loss.

    Returns:
        None with fewer than two losses, or fewer than two seeds that all of them have.
    """
    if len(losses) < 2:
        return None
    seeds = sorted(set.intersection(*(set(values) for values in losses)))
    if len(seeds) < 2:
        return None
    rows = [[values[seed] for seed in seeds] for values in losses]
    own = [fmean(row) for row in rows]
    common = [fmean(column) for column in zip(*rows, strict=True)]
    middle = fmean(own)
    squares = sum(
        (value - mean - effect + middle) ** 2
        for row, mean in zip(rows, own, strict=True)
        for value, effect in zip(row, common, strict=True)
    )
    freedom = (len(losses) - 1) * (len(seeds) - 1)
    return Residual(squares / freedom, freedom, len(seeds))


def deviation_limit(deviation: float, freedom: int, confidence: float = 0.8) -> float:
    """What a standard deviation stays below with some confidence, when normal values gave it.

    Args:
        deviation: the estimate, at least 0.
        freedom: its degrees of freedom, at least 1.
        confidence: one-sided, in (0, 1).
    """
    from scipy.stats import chi2

    return float(deviation * sqrt(freedom / chi2.ppf(1 - confidence, freedom)))
