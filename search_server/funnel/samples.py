"""Five fixed samples per family of losses: predictions that can be moved, targets, a real metric.

They stand in for the training samples whose predictions AutoLoss-Zero optimises. What is moved is
what a head puts out: logits, or box deltas in the usual units (a tenth of the anchor's side for a
centre, a fifth of a logarithm for an extent).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from search_server.funnel.verification.pairs import SMALL_AREA, make_pairs

Array = NDArray[np.float64]

SAMPLES = 5
ROWS = 20
"""Predictions in a sample: anchors or regions of interest."""
CLASSES = 3
POSITIVE = 0.35
"""Share of rows that are assigned to an object; the others are background."""
OFFSETS = np.array([-6.0, -3.0, 0.0, 3.0, 6.0])
"""Mean of the logits by sample (softmax: of the background's). Detections of all images are ranked
together, so a loss has to make the scores of different images comparable."""
SIDES = (8.0, 24.0, 64.0, 160.0, 400.0)
"""Square root of the targets' area in pixels, by sample."""
LEAST_IOU = 0.15
"""Anchors that are assigned to an object overlap it at least so much."""
STDS = np.array([0.1, 0.1, 0.2, 0.2])
LARGEST_LOG = 4.0
THRESHOLDS = np.linspace(0.5, 0.95, 10)


class Samples(ABC):
    """The samples of one family; rows of all samples stand one below the other.

    Attributes:
        start: `(SAMPLES * ROWS, D)`, the predictions before anything is optimised.
        moving: names of the inputs that depend on the predictions.
    """

    start: Array
    moving: tuple[str, ...]

    @abstractmethod
    def inputs(self, predictions: Array) -> tuple[dict[str, Array], Mapping[str, Array]]:
        """Every input of the family's losses, and the derivatives of those that move.

        Returns:
            Inputs by name; and by name `(SAMPLES * ROWS, D)` derivatives by the predictions of
            the same row. An input without derivatives is the predictions themselves.
        """

    @abstractmethod
    def metric(self, predictions: Array) -> float:
        """How good the predictions of all samples are together, in [0, 1]."""

    def gradient(self, slopes: Mapping[str, Array], along: Mapping[str, Array]) -> Array:
        """Gradient by the predictions, from that by the moving inputs and their derivatives."""
        parts = [
            slope[:, None] * along[name] if name in along else slope
            for name, slope in slopes.items()
        ]
        return np.sum(parts, axis=0) if parts else np.zeros_like(self.start)


class ScoreSamples(Samples):
    """Logits and labels; the metric is the average precision over all samples, rows and classes.

    Args:
        softmax: whether there is a column for the background, last; scores are softmax values
            then, else the logits rank as they are.
    """

    moving = ("X",)

    def __init__(self, softmax: bool) -> None:
        rng = np.random.default_rng(17)
        rows, columns = SAMPLES * ROWS, CLASSES + softmax
        labels = np.full(rows, CLASSES)
        for first in range(0, rows, ROWS):  # as many positives in each sample
            places = first + rng.permutation(ROWS)[: round(POSITIVE * ROWS)]
            labels[places] = rng.integers(0, CLASSES, places.size)
        hot = (labels[:, None] == np.arange(columns)).astype(float)
        ious = rng.uniform(0.3, 1.0, (rows, 1))
        self.start = rng.normal(0.0, 1.0, (rows, columns))
        offsets = np.repeat(OFFSETS, ROWS)
        if softmax:
            self.start[:, -1] += offsets
            iou_of_row = np.where(labels[:, None] < CLASSES, ious, 1.0)
            self._fixed = {"Y": hot, "Z": np.repeat(iou_of_row, columns, axis=1)}
        else:
            self.start += offsets[:, None]
            self._fixed = {"Q": hot * ious, "PY": hot, "NY": 1.0 - hot}
        self._softmax = softmax
        self._wanted = hot[:, :CLASSES].ravel()

    def inputs(self, predictions: Array) -> tuple[dict[str, Array], Mapping[str, Array]]:
        """See `Samples.inputs`."""
        return {"X": predictions, **self._fixed}, {}

    def metric(self, predictions: Array) -> float:
        """See `Samples.metric`."""
        scores = predictions
        if self._softmax:
            scores = predictions - predictions.max(axis=1, keepdims=True)
            scores = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        return average_precision(scores[:, :CLASSES].ravel(), self._wanted)


class BoxSamples(Samples):
    """Anchors that overlap their targets; the metric is the average recall of COCO, over IoU
    thresholds of 0.5 to 0.95."""

    moving = ("U", "I", "E")

    def __init__(self) -> None:
        anchors, targets = [], []
        for number, side in enumerate(SIDES):
            rng = np.random.default_rng([19, number])
            pred, target = make_pairs(side, 6 * ROWS, rng, same_size=False)
            areas, _ = areas_with_slopes(pred, target)
            kept = np.flatnonzero(areas["I"] >= LEAST_IOU * areas["U"])[:ROWS]
            anchors.append(pred[kept])
            targets.append(target[kept])
        anchor, self._target = np.concatenate(anchors), np.concatenate(targets)
        self._extent = anchor[:, 2:] - anchor[:, :2]
        self._centre = (anchor[:, 2:] + anchor[:, :2]) / 2
        self.start = np.zeros_like(anchor)

    def inputs(self, predictions: Array) -> tuple[dict[str, Array], Mapping[str, Array]]:
        """See `Samples.inputs`."""
        boxes, extent = self._decoded(predictions)
        areas, slopes = areas_with_slopes(boxes, self._target)
        along = {}
        for name, slope in slopes.items():
            low, high = slope[:, :2], slope[:, 2:]
            along[name] = np.concatenate(
                [(low + high) * self._extent * STDS[:2], (high - low) * extent / 2 * STDS[2:]],
                axis=1,
            )
        return areas, along

    def metric(self, predictions: Array) -> float:
        """See `Samples.metric`."""
        areas, _ = areas_with_slopes(self._decoded(predictions)[0], self._target)
        iou = areas["I"] / areas["U"]
        return float((iou[:, None] >= THRESHOLDS).mean())

    def _decoded(self, predictions: Array) -> tuple[Array, Array]:
        """Boxes `(N, 4)` xyxy and their extents `(N, 2)`, in pixels."""
        deltas = predictions * STDS
        centre = self._centre + deltas[:, :2] * self._extent
        extent = self._extent * np.exp(np.clip(deltas[:, 2:], -LARGEST_LOG, LARGEST_LOG))
        return np.concatenate([centre - extent / 2, centre + extent / 2], axis=1), extent


@lru_cache(maxsize=3)
def samples_of(family: str) -> Samples:
    """The samples of a family of losses: "softmax", "sigmoid" or "box"."""
    return BoxSamples() if family == "box" else ScoreSamples(softmax=family == "softmax")


def average_precision(scores: Array, wanted: Array) -> float:
    """Area under precision and recall; among equal scores, those that are not wanted come first.

    Args:
        scores: `(M,)`.
        wanted: `(M,)`, 1 where a score should be high, else 0; not all 0.
    """
    hits = wanted[np.lexsort((wanted, -scores))]
    precision = np.cumsum(hits) / np.arange(1, hits.size + 1)
    return float((precision * hits).sum() / hits.sum())


def areas_with_slopes(pred: Array, target: Array) -> tuple[dict[str, Array], dict[str, Array]]:
    """Union U, intersection I, hull E of pairs of boxes, and how they change with `pred`.

    Args:
        pred, target: `(N, 4)` xyxy in pixels.

    Returns:
        Areas in square pixels `(N,)` by name, and their derivatives by `pred`, `(N, 4)`. U and E
        have 1e-7 added, as the box losses add it.
    """
    inner = np.minimum(pred[:, 2:], target[:, 2:]) - np.maximum(pred[:, :2], target[:, :2])
    inner = np.where((inner > 0).all(axis=1, keepdims=True), inner, 0.0)
    outer = np.maximum(pred[:, 2:], target[:, 2:]) - np.minimum(pred[:, :2], target[:, :2])
    extent = pred[:, 2:] - pred[:, :2]
    d_inner, d_outer, d_extent = inner[:, ::-1], outer[:, ::-1], extent[:, ::-1]
    low_in, high_in = pred[:, :2] > target[:, :2], pred[:, 2:] < target[:, 2:]
    low_out, high_out = pred[:, :2] < target[:, :2], pred[:, 2:] > target[:, 2:]
    d_i = np.concatenate([-d_inner * low_in, d_inner * high_in], axis=1)
    d_e = np.concatenate([-d_outer * low_out, d_outer * high_out], axis=1)
    d_a = np.concatenate([-d_extent, d_extent], axis=1)
    intersection = inner.prod(axis=1)
    target_area = (target[:, 2:] - target[:, :2]).prod(axis=1)
    areas = {
        "U": extent.prod(axis=1) + target_area - intersection + SMALL_AREA,
        "I": intersection,
        "E": outer.prod(axis=1) + SMALL_AREA,
    }
    return areas, {"U": d_a - d_i, "I": d_i, "E": d_e}
