"""The shrunken estimate: what is left of the gains of several candidates when noise is taken off.

The best of several noisy means is too high on average: it was picked for its luck too. Shrinking
all of them towards their common mean, by as much of their spread as the noise of the means
explains, takes that off and makes the estimates better as a whole (Stein's effect).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from search_server.noise_floor import residual


def shrunken(differences: Sequence[Mapping[int, float]]) -> list[float | None]:
    """Empirical-Bayes estimates of the mean differences of a job's confirmed candidates.

    True gains are taken as normal around a common mean; the noise of a candidate's mean is the
    residual variance of the two-way layout over its seeds (the baseline's own noise and a seed's
    effect move all candidates alike, and cannot make one of them look best). The variance between
    the candidates comes by the method of moments, not below 0: the share of the spread that is
    noise, ``variance of a mean / variance of the means``, is taken off.

    Morris' correction ``(K - 3) / (K - 1)`` is left out: for the three candidates that are
    confirmed by default it shrinks nothing at all, and the best of them then keeps its luck. In
    simulations of 2 to 10 candidates and 4 or 8 seeds this form had the smaller bias of the best
    (tests/search_server/test_paired_statistics.py has the claim as a test).

    Args:
        differences: candidate minus baseline by seed, AP in [-1, 1], for each candidate.

    Returns:
        An estimate for each, in order. A single candidate's is its mean: nothing was picked on
        these seeds. None where a candidate has no seed, and for all where the noise cannot be
        told: fewer than two seeds in common.
    """
    means = [fmean(values.values()) if values else None for values in differences]
    known = [values for values in differences if values]
    if len(known) < 2:
        return list(means)
    noise = residual(known)
    if noise is None:
        return [None] * len(means)
    target = fmean(mean for mean in means if mean is not None)
    squares = sum((mean - target) ** 2 for mean in means if mean is not None)
    between = squares / (len(known) - 1)

    def estimate(mean: float | None, seeds: int) -> float | None:
        if mean is None:
            return None
        share = 1.0 if between == 0.0 else min(1.0, noise.variance / seeds / between)
        return target + (1 - share) * (mean - target)

    return [estimate(mean, len(values)) for mean, values in zip(means, differences, strict=True)]
