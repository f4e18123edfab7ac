"""What a loss is compared by: text that has to be equal, gradients and scales that have to agree.

Two losses are the same when they move every prediction alike. `identity` measures that; here is
only what comes out, and when two of them count as equal. Equal gradients differ by rounding, so
nothing is rounded before it is compared: a number beside a step would fall on either side of it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

AGREES = 2e-6
"""Largest difference of two vectors' entries, whose mean square is 1, that counts as rounding."""
SCALES_AGREE = 1e-6
"""Largest relative difference of scales that counts as rounding."""
CALIBRATED_SCALES_AGREE = 1e-5
"""The same where scales come from a calibration: that sums gradients at other predictions, where
losses that are equal but for the guards of their divisions differ by a little more."""
CELL = 1e-5
"""Width of a bucket; wider than what the numbers in equal losses' buckets can differ by."""


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """A loss by what it does.

    Attributes:
        form: what must be equal, as JSON text: what a branch is and all that is not a gradient.
        vector: `(n,)`, the gradients' directions, see `identity`; empty where text says it all.
        scales: branch -> norm of its gradient, weights included, above 0; branches of which the
            form is the text have none.
    """

    form: str
    vector: Vector
    scales: Mapping[str, float]

    @cached_property
    def form_hash(self) -> str:
        """SHA-256 of the form and the vector's length, hex."""
        return hashlib.sha256(f"{self.vector.size} {self.form}".encode()).hexdigest()

    @cached_property
    def bucket(self) -> int:
        """A whole number that equal losses have the same of, or one that differs by 1."""
        if not self.vector.size:
            return 0
        return math.floor(float(_direction(self.vector.size) @ self.vector) / CELL)

    def same(self, other: Fingerprint, scales: float | None = SCALES_AGREE) -> bool:
        """Whether both are one loss.

        Args:
            scales: largest relative difference of the scales; None: scales do not count.
        """
        if self.form != other.form or self.vector.size != other.vector.size:
            return False
        if scales is not None and not scales_agree(self.scales, other.scales, scales):
            return False
        return self.distance(other) <= AGREES

    def distance(self, other: Fingerprint) -> float:
        """Largest difference of the vectors' entries; the vectors must be of one form."""
        return float(np.abs(self.vector - other.vector).max(initial=0.0))


def scales_agree(one: Mapping[str, Any], other: Mapping[str, Any], tolerance: float) -> bool:
    """Whether the scales of two losses are the same, branch by branch."""
    return one.keys() == other.keys() and all(
        math.isclose(value, other[branch], rel_tol=tolerance) for branch, value in one.items()
    )


class Known:
    """Fingerprints by number, to be asked which of them a loss is.

    Args:
        scales: see `Fingerprint.same`.
    """

    def __init__(self, scales: float | None = SCALES_AGREE) -> None:
        self._scales = scales
        self._places: dict[tuple[str, int], list[tuple[int, Fingerprint]]] = {}

    def add(self, number: int, fingerprint: Fingerprint) -> None:
        """Remember a loss."""
        place = (fingerprint.form_hash, fingerprint.bucket)
        self._places.setdefault(place, []).append((number, fingerprint))

    def find(self, fingerprint: Fingerprint) -> int | None:
        """The lowest number of a loss that is the same; None where there is none."""
        same = (
            number for number, other in self._near(fingerprint) if self._same(fingerprint, other)
        )
        return min(same, default=None)

    def _same(self, one: Fingerprint, other: Fingerprint) -> bool:
        return one.same(other, self._scales)

    def _near(self, fingerprint: Fingerprint) -> Iterator[tuple[int, Fingerprint]]:
        for bucket in near(fingerprint.bucket):
            yield from self._places.get((fingerprint.form_hash, bucket), ())


def near(bucket: int) -> Iterable[int]:
    """The buckets in which an equal loss can be."""
    return range(bucket - 1, bucket + 2)


def form_text(parts: Mapping[str, Any]) -> str:
    """A form from its parts; numbers are written so that they are read back as they are."""
    return json.dumps(parts, sort_keys=True, separators=(",", ":"))


@lru_cache(maxsize=64)
def _direction(size: int) -> Vector:
    """`(size,)`, fixed; entries' sizes sum to 1, so dot products differ by `AGREES` at most."""
    drawn = np.random.default_rng(23).normal(size=size)
    return drawn / np.abs(drawn).sum()
