"""How well one reading orders losses as another does: Spearman's correlation and its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEWEST = 3  # pairs; two are always in perfect order
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of two readings of the same things.

    Attributes:
        value: in [-1, 1].
        low, high: bootstrap interval over the pairs (percentiles).
        count: pairs.
    """

    value: float
    low: float
    high: float
    count: int


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rank correlation; equal values share the mean of their ranks.

    Returns:
        In [-1, 1]; None with fewer than three pairs, or where all values of a side are equal.

    Raises:
        ValueError: not the same number of values.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values; they must be pairs")
    if len(a) < FEWEST:
        return None
    return _of_ranks(_ranks(np.asarray(a, float)), _ranks(np.asarray(b, float)))


def rank_correlation(
    a: Sequence[float],
    b: Sequence[float],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = 2000,
    seed: int = 0,
) -> Correlation | None:
    """Spearman's correlation with a bootstrap interval; None where `spearman` has none.

    Pairs are drawn with replacement and ranked anew; a draw in which one side does not vary counts
    as no correlation.

    Args:
        confidence: in (0, 1).
        resamples: draws of the bootstrap, at least 1.
    """
    value = spearman(a, b)
    if value is None:
        return None
    left, right = np.asarray(a, float), np.asarray(b, float)
    rng = np.random.default_rng(seed)
    found = np.empty(resamples)
    for turn in range(resamples):
        pick = rng.integers(len(left), size=len(left))
        drawn = _of_ranks(_ranks(left[pick]), _ranks(right[pick]))
        found[turn] = 0.0 if drawn is None else drawn
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return Correlation(value, float(low), float(high), len(left))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0, equal values sharing their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    first = np.cumsum(counts) - counts
    return (first + (counts - 1) / 2)[inverse]


def _of_ranks(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    left, right = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((left @ left) * (right @ right)))
    return None if scale == 0 else float(left @ right) / scale
