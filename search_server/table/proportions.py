"""Shares with intervals, for counts as small as a table's."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

Z = 1.959964  # of a two-sided interval of 95%


@dataclass(frozen=True)
class Share:
    """A share of things, with Wilson's interval of 95%.

    Attributes:
        hits, count: so many of so many.
        value: their ratio; None of nothing.
        low, high: in [0, 1]; all of [0, 1] of nothing.
    """

    hits: int
    count: int
    value: float | None
    low: float
    high: float


def share(hits: int, count: int) -> Share:
    """A share and its interval (Wilson, 1927).

    Raises:
        ValueError: not 0 <= hits <= count.
    """
    if not 0 <= hits <= count:
        raise ValueError(f"{hits} of {count} is no share")
    if count == 0:
        return Share(0, 0, None, 0.0, 1.0)
    value = hits / count
    scale = 1 + Z * Z / count
    middle = (value + Z * Z / (2 * count)) / scale
    reach = Z * sqrt(value * (1 - value) / count + Z * Z / (4 * count * count)) / scale
    return Share(hits, count, value, max(0.0, middle - reach), min(1.0, middle + reach))


@dataclass(frozen=True)
class Interval:
    """A number and where it may lie, 95%."""

    value: float
    low: float
    high: float
