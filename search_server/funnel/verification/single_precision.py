"""The last conditions: values and gradients in float32, as training will compute them.

Only expressions that met every other condition come here, one in a thousand random ones, so
that torch is not imported for the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from primitives import Expression, to_torch
from search_server.funnel.verification.pairs import SMALL_AREA, make_pairs
from search_server.funnel.verification.verdict import Rejected

ROWS = 96

LARGEST_VALUE = 1e6
"""Of one prediction's loss. Next to more, float32 has no digits left for what a loss tells apart
(1e6 + 0.03 is 1e6), and a sum of many may overflow."""


def check_single_precision(expression: Expression, family: str, measures: dict[str, float]) -> None:
    """Value and gradient in float32 are finite at rough inputs ("non-finite"), and no value
    is too large to be summed ("value too large").

    Logits reach +-50 and include many equal ones; boxes include perfect, disjoint, tiny, large,
    nested, touching and empty predictions.

    Args:
        family: "softmax", "sigmoid" or "box".
        measures: gets "largest_gradient", over single predictions.

    Raises:
        Rejected: a value or gradient is not finite, or a value too large.
    """
    import torch

    names = expression.space.kinds
    compute = to_torch(expression)
    for leaf, fixed in _BATCHES[family](torch):
        inputs = _areas(torch, leaf, **fixed) if family == "box" else {"X": leaf, **fixed}
        value = compute(**{name: each for name, each in inputs.items() if name in names})
        if not torch.isfinite(value).all():
            raise Rejected(
                "non-finite",
                f"value not finite in float32 for {int((~torch.isfinite(value)).sum())} of "
                f"{value.numel()} predictions",
            )
        largest = float(value.detach().abs().max())
        if largest > LARGEST_VALUE:
            raise Rejected(
                "value too large",
                f"a single prediction's loss is {largest:.3g} in size, over {LARGEST_VALUE:g}: "
                "summed in float32, it drowns every difference between predictions",
            )
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        if not torch.isfinite(gradient).all():
            raise Rejected(
                "non-finite",
                "torch's gradient is not finite in float32 for "
                f"{int((~torch.isfinite(gradient)).any(dim=1).sum())} of {len(gradient)} rows",
            )
        measures["largest_gradient"] = max(
            measures.get("largest_gradient", 0.0), float(gradient.abs().max())
        )


Batch = tuple[Any, dict[str, Any]]
"""The prediction, which needs a gradient, and the inputs that do not depend on it."""


def _rough_logits(rng: np.random.Generator, columns: int) -> np.ndarray:
    spread = np.array([0.0, 1.0, 5.0, 25.0])[np.arange(ROWS) % 4]
    return np.clip(rng.normal(0.0, 1.0, (ROWS, columns)) * spread[:, None], -50.0, 50.0)


@lru_cache(maxsize=1)
def _softmax_batches(torch: Any) -> list[Batch]:
    batches: list[Batch] = []
    for columns in (2, 11):
        rng = np.random.default_rng(columns)
        leaf = torch.tensor(_rough_logits(rng, columns), dtype=torch.float32, requires_grad=True)
        labels = rng.integers(0, columns, ROWS)
        labels[::3] = columns - 1
        y = torch.nn.functional.one_hot(torch.from_numpy(labels), columns)
        iou = np.where(labels == columns - 1, 1.0, rng.uniform(1e-7, 1.0, ROWS))
        z = torch.tensor(iou, dtype=torch.float32)[:, None].expand(-1, columns)
        batches.append((leaf, {"Y": y, "Z": z}))
    return batches


@lru_cache(maxsize=1)
def _sigmoid_batches(torch: Any) -> list[Batch]:
    batches: list[Batch] = []
    for columns in (1, 10):
        rng = np.random.default_rng(columns)
        leaf = torch.tensor(_rough_logits(rng, columns), dtype=torch.float32, requires_grad=True)
        positive = rng.random((ROWS, columns)) < 0.2
        quality = np.where(positive, rng.choice([1e-7, 0.3, 0.6, 0.9, 1.0], positive.shape), 0.0)
        py = torch.tensor(positive, dtype=torch.float32)
        q = torch.tensor(quality, dtype=torch.float32)
        batches.append((leaf, {"Q": q, "PY": py, "NY": 1 - py}))
    return batches


@lru_cache(maxsize=1)
def _box_batches(torch: Any) -> list[Batch]:
    preds, targets = [], []
    for number, side in enumerate((1.0, 8.0, 64.0, 800.0)):
        pred, target = make_pairs(side, ROWS, np.random.default_rng([13, number]), same_size=False)
        pred[0] = target[0]  # perfect
        pred[1] = target[1] + np.array([1.0, 0.0, 1.0, 0.0]) * (
            target[1, 2] - target[1, 0]
        )  # touch
        pred[2, 2:] = pred[2, :2]  # empty, as clipping to the image leaves it
        preds.append(pred)
        targets.append(target)
    leaf = torch.tensor(np.concatenate(preds), dtype=torch.float32, requires_grad=True)
    target = torch.tensor(np.concatenate(targets), dtype=torch.float32)
    with torch.no_grad():
        leaf[0::ROWS] = target[0::ROWS]
    return [(leaf, {"target": target})]


def _areas(torch: Any, pred: Any, target: Any) -> dict[str, Any]:
    """Union, intersection and hull of `(N, 4)` xyxy boxes, with a graph back to `pred`."""
    low = torch.maximum(pred[:, :2], target[:, :2])
    high = torch.minimum(pred[:, 2:], target[:, 2:])
    intersection = (high - low).clamp(min=0).prod(dim=1)
    union = (pred[:, 2:] - pred[:, :2]).prod(dim=1) + (target[:, 2:] - target[:, :2]).prod(dim=1)
    hull = torch.maximum(pred[:, 2:], target[:, 2:]) - torch.minimum(pred[:, :2], target[:, :2])
    return {
        "U": union - intersection + SMALL_AREA,
        "I": intersection,
        "E": hull.prod(dim=1) + SMALL_AREA,
    }


_BATCHES: dict[str, Callable[[Any], list[Batch]]] = {
    "softmax": _softmax_batches,
    "sigmoid": _sigmoid_batches,
    "box": _box_batches,
}
