"""Outlines of binary masks as COCO polygons, exact to the pixel edge."""

from __future__ import annotations

import numpy as np

Point = tuple[int, int]


def mask_to_polygons(mask: np.ndarray) -> list[list[float]]:
    """Outer outlines of a boolean mask (H, W), each as ``[x1, y1, x2, y2, ...]`` in pixels.

    The outlines run along pixel edges: a mask of one pixel at (0, 0) is the unit square. Parts
    that touch only at a corner are separate polygons; holes are dropped, since COCO polygons
    cannot say "outside". The order is that of the topmost, then leftmost corner.
    """
    return [
        [float(value) for point in _without_straight(loop) for value in point]
        for loop in _loops(_edges(mask))
        if _signed_area(loop) > 0
    ]


def polygon_area(polygon: list[float]) -> float:
    """Area of one polygon ``[x1, y1, ...]`` in square pixels."""
    return abs(_signed_area(list(zip(polygon[0::2], polygon[1::2], strict=True))))


def _edges(mask: np.ndarray) -> dict[Point, list[Point]]:
    """Pixel edges between inside and outside, as start -> ends, with the inside to the right."""
    padded = np.pad(mask.astype(bool), 1)
    inside = padded[1:-1, 1:-1]
    sides = (  # (neighbour, start offset, end offset) of top, right, bottom, left; y points down
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    )
    edges: dict[Point, list[Point]] = {}
    for neighbour, (sx, sy), (ex, ey) in sides:
        for y, x in np.argwhere(inside & ~neighbour).tolist():
            edges.setdefault((x + sx, y + sy), []).append((x + ex, y + ey))
    return edges


def _loops(edges: dict[Point, list[Point]]) -> list[list[Point]]:
    loops = []
    for start in sorted(edges, key=lambda point: (point[1], point[0])):
        while edges[start]:
            loop = [start]
            here = edges[start].pop()
            came = start
            while here != start:
                loop.append(here)
                came, here = here, _turn_right(came, here, edges[here])
            loops.append(loop)
    return loops


def _turn_right(came: Point, here: Point, ends: list[Point]) -> Point:
    """Takes the next edge out of `ends`; at a corner of two parts, the one that stays on its."""
    dx, dy = here[0] - came[0], here[1] - came[1]
    right = (here[0] - dy, here[1] + dx)
    return ends.pop(ends.index(right)) if right in ends else ends.pop()


def _without_straight(loop: list[Point]) -> list[Point]:
    corners = []
    for before, here, after in zip([loop[-1], *loop[:-1]], loop, [*loop[1:], loop[0]], strict=True):
        if (here[0] - before[0]) * (after[1] - here[1]) != (here[1] - before[1]) * (
            after[0] - here[0]
        ):
            corners.append(here)
    return corners


def _signed_area(loop: list[Point] | list[tuple[float, float]]) -> float:
    total = 0.0
    for (x1, y1), (x2, y2) in zip(loop, [*loop[1:], loop[0]], strict=True):
        total += x1 * y2 - x2 * y1
    return total / 2
