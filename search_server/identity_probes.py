"""The fixed predictions and targets at which losses are compared; float64, from a seed.

They are many enough, and spread widely enough, that losses that differ anywhere a training goes
differ here. Rows stand in blocks, such as boxes of one size: inside a block gradients are of
like sizes, so that a difference in one block is not lost beside large numbers in another.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from search_server.funnel.verification.pairs import make_pairs

Array = NDArray[np.float64]

SEED = 29
"""Of the probes that decide which losses are one; a check takes other ones."""
CLASSES = 3
RANGES = ((0.0, 1.5, 24), (-4.0, 1.5, 24), (4.0, 1.5, 12), (0.0, 6.0, 12))
"""Mean, spread and number of the logits' rows by block."""
POSITIVE = 0.5
SIDES = (4.0, 16.0, 64.0, 256.0)
"""Square root of the targets' area in pixels, by block."""
PAIRS = 24
"""Of boxes in a block: overlapping, one of six nested, one of six disjoint, near or far."""
THIN = 4
"""Of a block's pairs, those of which both boxes are ten times as wide as they were."""
DELTA_SIZES = (0.05, 0.5, 3.0)
DELTA_ROWS = 12


@dataclass(frozen=True)
class ScoreProbes:
    """Logits with their labels.

    Attributes:
        logits: `(N, C)`; of a softmax head `(N, C + 1)`, background last.
        labels: `(N,)`, in [0, C]; C is background.
        ious: `(N,)`, IoU of each row's box with its target; only those of positives are read.
        blocks: rows of each block.
    """

    logits: Array
    labels: NDArray[np.int64]
    ious: Array
    blocks: tuple[slice, ...]

    @property
    def positives(self) -> NDArray[np.bool_]:
        """`(N,)`, the rows that are no background."""
        return self.labels < CLASSES


@dataclass(frozen=True)
class BoxProbes:
    """Predicted boxes, or deltas, with their targets.

    Attributes:
        pred, target: `(N, 4)` xyxy in pixels, or deltas.
        sides: `(N,)`, what a coordinate is measured in: the side of the target, 1 for deltas.
        blocks: rows of each block.
    """

    pred: Array
    target: Array
    sides: Array
    blocks: tuple[slice, ...]


@lru_cache(maxsize=8)
def score_probes(softmax: bool, seed: int = SEED) -> ScoreProbes:
    """Logits and labels for a head with or without a background column."""
    rng = np.random.default_rng([seed, softmax])
    counts = [count for _, _, count in RANGES]
    columns = CLASSES + softmax
    drawn = [rng.normal(mean, spread, (count, columns)) for mean, spread, count in RANGES]
    labels = np.full(sum(counts), CLASSES)
    for block in _blocks(counts):
        rows = np.arange(labels.size)[block]
        chosen = rng.permutation(rows)[: round(POSITIVE * rows.size)]
        labels[chosen] = rng.integers(0, CLASSES, chosen.size)
    ious = rng.uniform(0.02, 1.0, labels.size)
    return ScoreProbes(np.concatenate(drawn), labels, ious, _blocks(counts))


@lru_cache(maxsize=8)
def box_probes(seed: int = SEED) -> BoxProbes:
    """Pairs of boxes from tiny to large."""
    pred: list[Array] = []
    target: list[Array] = []
    for number, side in enumerate(SIDES):
        rng = np.random.default_rng([seed, 7, number])
        pair = make_pairs(side, PAIRS, rng, same_size=False)
        for boxes, made in zip((pred, target), pair, strict=True):
            made[:THIN, ::2] *= 10.0
            boxes.append(made)
    return BoxProbes(
        np.concatenate(pred),
        np.concatenate(target),
        np.repeat(SIDES, PAIRS),
        _blocks([PAIRS] * len(SIDES)),
    )


@lru_cache(maxsize=8)
def delta_probes(seed: int = SEED) -> BoxProbes:
    """Deltas that miss their targets by little and by much."""
    rng = np.random.default_rng([seed, 11])
    target = rng.normal(0.0, 1.0, (DELTA_ROWS * len(DELTA_SIZES), 4))
    sizes = np.repeat(DELTA_SIZES, DELTA_ROWS)[:, None]
    pred = target + sizes * rng.normal(0.0, 1.0, target.shape)
    blocks = _blocks([DELTA_ROWS] * len(DELTA_SIZES))
    return BoxProbes(pred, target, np.ones(len(target)), blocks)


def _blocks(counts: list[int]) -> tuple[slice, ...]:
    ends = np.cumsum(counts).tolist()
    return tuple(slice(end - count, end) for end, count in zip(ends, counts, strict=True))
