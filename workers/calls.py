"""What a capture holds (see `workers.calibration`); arrays only, so that reading one is quick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class BranchCalls:
    """The loss calls of one branch over the calibration batches.

    Attributes:
        norm: size of the gradient of the detector's own loss by the head's outputs: the root of
            the sum of squares over all outputs and batches. With the loss's weight, and with all
            that the head does to the loss afterwards.
        calls: one mapping of arrays a call. Of a classification loss: ``scores`` (N, C) or
            (N, C + 1), ``labels`` (N,), maybe ``weights`` (N,) or (N, C), ``ious`` (P,) of the
            positives, and ``counts`` (N,), for how many rows each stands. Of a box loss:
            ``pred`` and ``target`` (N, 4) xyxy in pixels, maybe ``weights`` (N,) or (N, 4), and
            ``metric`` (N, 4, 4): ``J J^T`` of the box's derivative ``J`` by the outputs. Of both:
            ``divisor``, by which the sum over rows (elements, for sigmoid losses) is divided, and
            ``factor``, the derivative of the detector's total loss by the call's value.
    """

    norm: float
    calls: tuple[Mapping[str, np.ndarray], ...] = field(hash=False)
