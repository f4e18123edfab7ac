"""Cluttered scenes with handwritten digits, drawn from a given random generator.

Every value comes from exactly rounded operations (no exp, sin, or sums of non-integers), so that a
scene is the same bits on any machine with the same stream of random numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workers.data.polygons import mask_to_polygons, polygon_area

SIDE = 96  # pixels, height and width of a scene
DIGIT_SIDES = (14.0, 44.0)  # pixels, the longer side of a digit's ink
DIGITS_PER_SCENE = (3, 6)
MAX_COVERED = 0.3  # share of the smaller of two boxes that both may share
CONTRAST = (45, 150)  # grey levels between ink and the mean of what lies behind it
NOISE = 12  # grey levels, uniform in -NOISE .. NOISE
_INK = (0.35, 0.65)  # share of full ink in a scan where opacity begins and where it is complete
_PLACES_TRIED = 30


@dataclass(frozen=True)
class PastedDigit:
    """One digit of a scene.

    Attributes:
        label: The digit, 0 to 9.
        scan: Index of its scan in the source.
        bbox: ``(x, y, width, height)`` in pixels, tight about the ink, hidden parts included.
        polygons: Outlines of the ink, in pixels.
        area: Square pixels within `polygons`.
    """

    label: int
    scan: int
    bbox: tuple[int, int, int, int]
    polygons: list[list[float]]
    area: float


def draw_scene(
    scans: np.ndarray, labels: np.ndarray, pool: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, list[PastedDigit]]:
    """One scene: grey values of shape (96, 96), uint8, and the digits in it from back to front.

    Args:
        scans: All scans, shape (S, 8, 8), ink from 0 to 16.
        labels: Their digits, shape (S,).
        pool: Indices of the scans that may be used.
        rng: Source of all chance; the same state gives the same scene.
    """
    canvas = _background(rng)
    _add_strokes(canvas, rng)
    _add_fragments(canvas, scans, pool, rng)
    digits: list[PastedDigit] = []
    for _ in range(_integer(rng, *DIGITS_PER_SCENE)):
        scan = int(pool[_integer(rng, 0, len(pool) - 1)])
        digit = _paste(canvas, scans[scan], scan, int(labels[scan]), digits, rng)
        if digit is not None:
            digits.append(digit)
    canvas += rng.integers(-NOISE, NOISE, size=canvas.shape, endpoint=True)
    return np.clip(canvas, 0, 255).astype(np.uint8), digits


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resampling of (h, w) to (height, width), pixel centres at halves, edges repeated."""
    rows, row_share = _samples(image.shape[0], height)
    cols, col_share = _samples(image.shape[1], width)
    image = image[rows] * (1 - row_share)[:, None] + image[rows + 1] * row_share[:, None]
    return image[:, cols] * (1 - col_share) + image[:, cols + 1] * col_share


def _samples(size: int, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    position = np.clip((np.arange(wanted) + 0.5) * size / wanted - 0.5, 0, size - 1)
    low = np.minimum(position.astype(np.int64), size - 2)
    return low, position - low


def _integer(rng: np.random.Generator, low: int, high: int) -> int:
    return int(rng.integers(low, high, endpoint=True))


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(rng.random())


def _background(rng: np.random.Generator) -> np.ndarray:
    """Soft light and dark, whole grey levels of shape (96, 96)."""
    cells = _integer(rng, 3, 7)
    spread = _between(rng, 15, 55)
    level = _between(rng, 70, 185)
    return np.floor(resize(level + spread * (2 * rng.random((cells, cells)) - 1), SIDE, SIDE))


def _add_strokes(canvas: np.ndarray, rng: np.random.Generator) -> None:
    """Straight strokes as wide as those of digits, which no box covers."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    for _ in range(_integer(rng, 2, 6)):
        (x1, y1), (dx, dy) = rng.random(2) * SIDE, (2 * rng.random(2) - 1) * SIDE / 3
        half_width = _between(rng, 0.7, 2.2)
        length = dx * dx + dy * dy + 1e-9
        along = np.clip(((x - x1) * dx + (y - y1) * dy) / length, 0, 1)
        apart = (x - x1 - along * dx) ** 2 + (y - y1 - along * dy) ** 2
        _blend(canvas, (apart <= half_width * half_width) * 1.0, rng)


def _add_fragments(
    canvas: np.ndarray, scans: np.ndarray, pool: np.ndarray, rng: np.random.Generator
) -> None:
    """Pieces of scans: curves like those of digits, of which too little is there to be one."""
    for _ in range(_integer(rng, 2, 5)):
        scan = scans[pool[_integer(rng, 0, len(pool) - 1)]]
        top, left = _integer(rng, 0, 4), _integer(rng, 0, 4)
        piece = np.pad(scan[top : top + 4, left : left + 4], 1)
        side = _integer(rng, 10, 26)
        y, x = _integer(rng, 0, SIDE - side), _integer(rng, 0, SIDE - side)
        _blend(canvas[y : y + side, x : x + side], _opacity(resize(piece, side, side)), rng)


def _paste(
    canvas: np.ndarray,
    scan: np.ndarray,
    index: int,
    label: int,
    others: list[PastedDigit],
    rng: np.random.Generator,
) -> PastedDigit | None:
    """Draws a scan at a free place of the canvas; None if no place was free."""
    ink = np.argwhere(scan >= 16 * sum(_INK) / 2)
    (top, left), (bottom, right) = ink.min(0), ink.max(0) + 1
    scan = np.pad(scan, 1)[top : bottom + 2, left : right + 2]
    share = float(rng.random())  # squared: more small digits than large ones
    side = DIGIT_SIDES[0] + (DIGIT_SIDES[1] - DIGIT_SIDES[0]) * (share + share * share) / 2
    zoom = side / max(bottom - top, right - left)
    opacity = _opacity(
        resize(scan, int(zoom * scan.shape[0] + 0.5), int(zoom * scan.shape[1] + 0.5))
    )
    mask = opacity >= 0.5
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    opacity = opacity[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    mask = mask[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    height, width = opacity.shape
    for _ in range(_PLACES_TRIED):
        x, y = _integer(rng, 0, SIDE - width), _integer(rng, 0, SIDE - height)
        bbox = (x, y, width, height)
        if all(_covered(bbox, other.bbox) <= MAX_COVERED for other in others):
            _blend(canvas[y : y + height, x : x + width], opacity, rng)
            polygons = [
                [value + (x, y)[i % 2] for i, value in enumerate(polygon)]
                for polygon in mask_to_polygons(mask)
            ]
            area = sum(polygon_area(polygon) for polygon in polygons)
            return PastedDigit(label, index, bbox, polygons, area)
    return None


def _opacity(ink: np.ndarray) -> np.ndarray:
    low, high = _INK
    return np.clip((ink / 16 - low) / (high - low), 0, 1)


def _blend(region: np.ndarray, opacity: np.ndarray, rng: np.random.Generator) -> None:
    """Draws in place, in whole grey levels, darker or lighter than what lies behind the ink."""
    behind = float(region[opacity > 0].mean()) if (opacity > 0).any() else 128.0
    contrast = _between(rng, *CONTRAST) * (1 if rng.random() < 0.5 else -1)
    level = behind + contrast
    if not 0 <= level <= 255:
        level = behind - contrast
    region[...] = np.floor(region * (1 - opacity) + level * opacity)


def _covered(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Shared area of two ``(x, y, width, height)`` boxes, as a share of the smaller one."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0) / min(a[2] * a[3], b[2] * b[3])
