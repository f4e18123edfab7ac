"""How many seeds a gain needs: the power of the paired t test."""

from __future__ import annotations

from functools import cache
from math import sqrt

import numpy as np
from numpy.typing import NDArray

POWER = 0.8
LEVEL = 0.05
FEWEST = 2  # seeds: with one there is no test
MOST = 100_000


def power(gain: float, deviation: float, seeds: int, level: float = LEVEL) -> float:
    """The chance that a two-sided paired t test finds a gain.

    Args:
        gain: true mean difference, in the unit of `deviation`.
        deviation: true standard deviation of the paired difference, above 0.
        seeds: at least 2.
        level: of the test, in (0, 1); with m tests at once, Holm's first is at level / m.

    Returns:
        In [level, 1]: the tails of the noncentral t distribution, by quadrature over the sample
        deviation. (scipy's `nct` is wrong by much for two to four seeds and large gains.)
    """
    from scipy.stats import chi2, norm, t

    freedom = seeds - 1
    limit = float(t.ppf(1 - level / 2, freedom))
    shift = abs(gain) / deviation * sqrt(seeds)
    nodes, weights = _quadrature()
    sample = np.sqrt(chi2.ppf(nodes, freedom) / freedom)  # sample deviation by the true one
    found = norm.cdf(shift - limit * sample) + norm.cdf(-shift - limit * sample)
    return float(min(1.0, weights @ found))


@cache
def _quadrature() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes in (0, 1) and weights of Gauss and Legendre, closer towards both ends."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    x = (nodes + 1) / 2
    return x * x * (3 - 2 * x), weights / 2 * 6 * x * (1 - x)


def seeds_needed(
    gain: float, deviation: float, level: float = LEVEL, wanted: float = POWER
) -> int | None:
    """The fewest paired seeds with which a gain is found with a chance of `wanted`.

    Returns:
        At least 2; None where even 100,000 seeds are too few.

    Raises:
        ValueError: the gain is not above 0.
    """
    if not gain > 0:
        raise ValueError(f"a gain of {gain} cannot be detected; it must be above 0")
    if deviation == 0.0:
        return FEWEST
    low, high = FEWEST - 1, FEWEST  # power(low) is too little, or low is no number of seeds
    while power(gain, deviation, high, level) < wanted:
        if high >= MOST:
            return None
        low, high = high, min(2 * high, MOST)
    while high - low > 1:
        middle = (low + high) // 2
        if power(gain, deviation, middle, level) < wanted:
            low = middle
        else:
            high = middle
    return high


def detectable_gain(
    deviation: float, seeds: int, level: float = LEVEL, wanted: float = POWER
) -> float:
    """The smallest gain that so many seeds find with a chance of `wanted`; unit of `deviation`."""
    if deviation == 0.0:
        return 0.0
    low, high = 0.0, deviation
    while power(high, deviation, seeds, level) < wanted:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        if power(middle, deviation, seeds, level) < wanted:
            low = middle
        else:
            high = middle
    return high
