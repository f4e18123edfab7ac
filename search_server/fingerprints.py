"""What a loss is compared by: text that has to be equal, gradients and scales that have to agree.

Two losses are the same when they move every prediction alike. `identity` measures that; here is
only what comes out, and when two of them count as equal. Equal gradients differ by rounding, so
nothing is rounded before it is compared: a number beside a step would fall on either side of it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
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
MARKS = 4
"""Dot products, beside the bucket's, by which losses are told apart without their vectors."""
AT_HAND = 256
"""Fingerprints that are not fetched again when they were fetched last."""


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
        return math.floor(float(_directions(self.vector.size)[0] @ self.vector) / CELL)

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

    Vectors are not kept: a job of 10,000 losses would hold 50 MB of them. What is kept tells nearly
    all other losses apart, for dot products of equal ones differ by no more than their entries do;
    whoever is left is fetched, and compared whole.

    Args:
        fetch: gives the fingerprint of a number again, as it was added.
        scales: see `Fingerprint.same`.
    """

    def __init__(
        self, fetch: Callable[[int], Fingerprint], scales: float | None = SCALES_AGREE
    ) -> None:
        self._scales = scales
        self._whole = lru_cache(maxsize=AT_HAND)(fetch)
        self._forms: dict[str, dict[int, list[_Sketch]]] = {}

    def add(self, number: int, fingerprint: Fingerprint) -> None:
        """Remember a loss."""
        places = self._forms.setdefault(fingerprint.form_hash, {})
        places.setdefault(fingerprint.bucket, []).append(_Sketch(number, fingerprint))

    def find(self, fingerprint: Fingerprint) -> int | None:
        """The lowest number of a loss that is the same; None where there is none."""
        own = _Sketch(-1, fingerprint)
        likely = sorted(
            other.number for other in self._near(fingerprint) if own.may_be(other, self._scales)
        )
        same = (number for number in likely if fingerprint.same(self._whole(number), self._scales))
        return next(same, None)

    def _near(self, fingerprint: Fingerprint) -> Iterator[_Sketch]:
        places = self._forms.get(fingerprint.form_hash, {})
        for bucket in near(fingerprint.bucket):
            yield from places.get(bucket, ())


class _Sketch:
    """A fingerprint of a known form and bucket, small.

    Attributes:
        marks: `MARKS` dot products of the vector; none where text says it all.
        scales: by branch, in the order of their names.
    """

    __slots__ = ("marks", "number", "scales")

    def __init__(self, number: int, fingerprint: Fingerprint) -> None:
        vector = fingerprint.vector
        self.number = number
        self.marks: tuple[float, ...] = ()
        if vector.size:
            self.marks = tuple((_directions(vector.size)[1:] @ vector).tolist())
        self.scales = tuple(value for _, value in sorted(fingerprint.scales.items()))

    def may_be(self, other: _Sketch, scales: float | None) -> bool:
        """Whether both can be one loss; twice what is allowed, so that no rounding matters here."""
        pairs = zip(self.marks, other.marks, strict=True)
        if any(abs(one - two) > 2 * AGREES for one, two in pairs):
            return False
        return scales is None or all(
            math.isclose(one, two, rel_tol=2 * scales)
            for one, two in zip(self.scales, other.scales, strict=False)
        )


def near(bucket: int) -> Iterable[int]:
    """The buckets in which an equal loss can be."""
    return range(bucket - 1, bucket + 2)


def form_text(parts: Mapping[str, Any]) -> str:
    """A form from its parts; numbers are written so that they are read back as they are."""
    return json.dumps(parts, sort_keys=True, separators=(",", ":"))


@lru_cache(maxsize=64)
def _directions(size: int) -> Vector:
    """`(1 + MARKS, size)`, fixed, that of the buckets first; the sizes of a row's entries sum to 1,
    so dot products differ by `AGREES` at most."""
    drawn = np.random.default_rng(23).normal(size=(1 + MARKS, size))
    return drawn / np.abs(drawn).sum(axis=1, keepdims=True)
