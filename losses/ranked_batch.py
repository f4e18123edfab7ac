"""What a ranking loss gets to see of a batch, and how good the boxes in it are."""

from dataclasses import dataclass

import torch
from torch import Tensor

from losses.boxes import paired_areas
from losses.ranking.inputs import graph_zero

BOX_OVERLAPS = ("giou", "iou", "l1")
# an area that is divided by is not below this; that of an anchor is 1 in its own frame
_SMALLEST_AREA = 1e-6


@dataclass(frozen=True)
class RankedBatch:
    """All scores of a batch, and the boxes of its positives.

    A anchors (or regions of interest) of all levels and images, C classes, P positives.

    Attributes:
        scores: (A, C) logits, float32 or wider.
        labels: (A,) int64, class of each positive, anything else elsewhere.
        counted: (A,) bool, False where the anchor is left out of the ranking.
        positive: (P,) int64 rows of the positives, rising; all are counted.
        boxes: (P, 4) their predicted boxes, xyxy, in the frame of their anchor (center 0, width
            and height 1), with gradient.
        goals: (P, 4) their ground truth in the same frame.
        tau: IoU from which an anchor is a positive, in [0, 1).
    """

    scores: Tensor
    labels: Tensor
    counted: Tensor
    positive: Tensor
    boxes: Tensor
    goals: Tensor
    tau: float = 0.5

    @property
    def logits(self) -> Tensor:
        """(A * C,)."""
        return self.scores.reshape(-1)

    @property
    def places(self) -> Tensor:
        """(P,) positions in ``logits`` of each positive's score for its own class."""
        return self.positive * self.scores.size(1) + self.labels[self.positive]

    @property
    def targets(self) -> Tensor:
        """(A * C,): 1 at the positives' own class, -1 where nothing counts, else 0."""
        counted = self.counted[:, None].expand_as(self.scores).reshape(-1)
        targets = counted.to(self.scores.dtype) - 1.0
        targets[self.places] = 1.0
        return targets

    def at_places(self, values: Tensor) -> Tensor:
        """(A * C,) zeros with the (P,) values of the positives at their own class."""
        values = values.to(self.scores.dtype)
        return torch.zeros_like(self.logits).index_put((self.places,), values)

    @property
    def zero(self) -> Tensor:
        """0 that gives every output of the head a gradient of zeros."""
        return graph_zero(self.scores, self.boxes)


def box_overlaps(boxes: Tensor, goals: Tensor, kind: str) -> Tensor:
    """How well each pair of boxes agrees: 1 is equal.

    Args:
        boxes: (P, 4) xyxy.
        goals: (P, 4) xyxy.
        kind: ``iou``; ``giou``: (GIoU + 1) / 2; or ``l1``: 1 less the sum of the four differences.

    Returns:
        (P,) in [0, 1], differentiable.
    """
    if kind == "l1":
        return (1.0 - (boxes - goals).abs().sum(dim=1)).clamp(min=0.0, max=1.0)
    union, intersection, hull = paired_areas(boxes, goals)
    iou = intersection / union.clamp(min=_SMALLEST_AREA)
    if kind == "iou":
        return iou
    giou = iou - (hull - union) / hull.clamp(min=_SMALLEST_AREA)
    return (giou + 1.0) / 2.0
