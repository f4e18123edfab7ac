"""Simulated predictions and targets as boxes, and how their areas change on the way together."""

from __future__ import annotations

import numpy as np

from search_server.funnel.verification.probes import Array

SMALL_AREA = 1e-7
"""Added to union and hull, as the box losses add it."""


def make_pairs(
    side: float, count: int, rng: np.random.Generator, *, same_size: bool
) -> tuple[Array, Array]:
    """Random predictions and targets, `(count, 4)` xyxy in pixels.

    Two pairs of three overlap by more or less; one of six is disjoint, near or far, and one of six
    is nested, the prediction inside or outside.

    Args:
        side: square root of the targets' area, in pixels.
        same_size: all targets have the same area, else sides differ by a factor of about 1.4.
    """
    kind = np.arange(count) % 6
    shape = np.exp(rng.normal(0.0, 0.3, count))
    size = side if same_size else side * np.exp(rng.normal(0.0, 0.35, count))
    extent = np.stack([size * shape, size / shape], axis=1)
    centre = rng.uniform(0.0, 4.0 * side, (count, 2))
    target = np.concatenate([centre - extent / 2, centre + extent / 2], axis=1)

    pred_extent = extent * np.exp(rng.normal(0.0, 0.3, (count, 2)))
    shift = rng.normal(0.0, 0.3, (count, 2)) * extent
    nested = kind == 4
    ratio = np.where(np.arange(count) % 12 < 6, 0.6, 1.7) * np.exp(rng.normal(0.0, 0.15, count))
    pred_extent[nested] = (extent * ratio[:, None])[nested]
    shift[nested] = (0.4 * np.abs(extent - pred_extent) * rng.uniform(-1, 1, (count, 2)))[nested]
    disjoint = kind == 5
    angle = rng.uniform(0.0, 2 * np.pi, count)
    gap = rng.uniform(1.1, 4.0, count) * (extent + pred_extent).max(axis=1)
    away = np.stack([np.cos(angle), np.sin(angle)], axis=1) * gap[:, None]
    shift[disjoint] = away[disjoint]

    pred_centre = centre + shift
    return np.concatenate([pred_centre - pred_extent / 2, pred_centre + pred_extent / 2], 1), target


def way_to_target(pred: Array, target: Array, steps: Array) -> tuple[Array, Array, Array, Array]:
    """Boxes on straight ways: predictions, targets, motion and side of origin, each `(N x S, 4)`.

    The side of origin (-1, 0, 1 per coordinate) tells which box a shared border belongs to at the
    end of the way, where both coincide: the derivative there is the one from before.
    """
    count = steps.size
    motion = np.repeat(target - pred, count, axis=0)
    start, goal = np.repeat(pred, count, axis=0), np.repeat(target, count, axis=0)
    return start + motion * np.tile(steps, len(pred))[:, None], goal, motion, np.sign(start - goal)


def areas_along(pred: Array, target: Array, motion: Array, origin: Array) -> dict[str, Array]:
    """Union U, intersection I, hull E in square pixels, and dU, dI, dE as `pred` moves, `(N,)`.

    Args:
        pred, target: `(N, 4)` xyxy in pixels.
        motion: `(N, 4)`, derivative of `pred`.
        origin: `(N, 4)`, sign of prediction minus target, see `way_to_target`.
    """
    inner_low = np.where(origin[:, :2] > 0, pred[:, :2], target[:, :2])
    inner_high = np.where(origin[:, 2:] < 0, pred[:, 2:], target[:, 2:])
    d_inner = np.where(origin[:, 2:] < 0, motion[:, 2:], 0.0) - np.where(
        origin[:, :2] > 0, motion[:, :2], 0.0
    )
    outer_low = np.where(origin[:, :2] < 0, pred[:, :2], target[:, :2])
    outer_high = np.where(origin[:, 2:] > 0, pred[:, 2:], target[:, 2:])
    d_outer = np.where(origin[:, 2:] > 0, motion[:, 2:], 0.0) - np.where(
        origin[:, :2] < 0, motion[:, :2], 0.0
    )
    inner = inner_high - inner_low
    apart = (inner <= 0).any(axis=1)
    intersection = np.where(apart, 0.0, inner.prod(axis=1))
    d_intersection = np.where(apart, 0.0, _d_area(inner, d_inner))
    outer = outer_high - outer_low
    extent, d_extent = pred[:, 2:] - pred[:, :2], motion[:, 2:] - motion[:, :2]
    target_area = (target[:, 2:] - target[:, :2]).prod(axis=1)
    return {
        "U": extent.prod(axis=1) + target_area - intersection + SMALL_AREA,
        "I": intersection,
        "E": outer.prod(axis=1) + SMALL_AREA,
        "dU": _d_area(extent, d_extent) - d_intersection,
        "dI": d_intersection,
        "dE": _d_area(outer, d_outer),
    }


def _d_area(extent: Array, d_extent: Array) -> Array:
    return d_extent[:, 0] * extent[:, 1] + extent[:, 0] * d_extent[:, 1]
