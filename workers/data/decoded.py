"""The images of a split decoded once a machine: one file under the home folder that all map.

A trial of a few hundred steps reads every image of a small data set several times, and so does
every other trial of a search. Decoding is most of what reading costs.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from workers.home import lossforge_home

LIMIT_VARIABLE = "LOSSFORGE_DECODED_MB"
DEFAULT_LIMIT = 256  # MB a split
_UNUSED_FOR = 30 * 24 * 3600.0  # seconds, after which a file is removed; `workers.folders` too
_PIXELS, _INDEX = "pixels.npy", "index.json"


@dataclass(frozen=True)
class DecodedImages:
    """Images by path, as OpenCV decodes them: (H, W, 3), uint8, BGR.

    Attributes:
        pixels: of all images, flat; usually a mapped file.
        places: first pixel and shape by path.
    """

    pixels: np.ndarray
    places: Mapping[str, tuple[int, tuple[int, int, int]]]

    def get(self, path: str) -> np.ndarray | None:
        """A copy of an image; None when it is not among them."""
        place = self.places.get(path)
        if place is None:
            return None
        start, shape = place
        return np.array(self.pixels[start : start + shape[0] * shape[1] * shape[2]]).reshape(shape)


def provide_decoded(images: Sequence[Mapping[str, Any]], image_folder: str) -> DecodedImages | None:
    """The images of a split, decoded; the first to ask for them decodes, others wait for it.

    What is kept belongs to the files' paths, sizes and modification times: a file that changes is
    decoded anew. What no trial has used for thirty days is removed.

    Args:
        images: of an annotation file in COCO format.
        image_folder: what their file names are relative to.

    Returns:
        None when there would be more than ``$LOSSFORGE_DECODED_MB`` (256; 0 for never) of them, or
        one cannot be read, or the home folder cannot be written: then they are read as ever.
    """
    limit = _limit()
    expected = sum(3 * image.get("width", 0) * image.get("height", 0) for image in images)
    if not images or not 0 < expected <= limit:
        return None
    paths = [os.path.join(image_folder, image["file_name"]) for image in images]
    folder = lossforge_home() / "decoded"
    try:
        name = _name(paths)
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / name
        if not kept.exists():
            with (folder / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not kept.exists() and not _decode(paths, kept, limit):
                    return None
        return _load(kept)
    except (OSError, ValueError):
        return None


def _limit() -> int:
    """In bytes."""
    given = os.environ.get(LIMIT_VARIABLE, "")
    return int(given) * 10**6 if given.isascii() and given.isdigit() else DEFAULT_LIMIT * 10**6


def _name(paths: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        about = os.stat(path)
        digest.update(f"{path}\0{about.st_size}\0{about.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def _decode(paths: Sequence[str], kept: Path, limit: int) -> bool:
    """Whether they are kept now; stops at the first that is too much or no image."""
    import mmcv

    images: list[np.ndarray] = []
    total = 0
    for path in paths:
        image = mmcv.imfrombytes(Path(path).read_bytes(), flag="color", backend="cv2")
        if image is None or image.dtype != np.uint8 or image.ndim != 3:
            return False
        total += image.size
        if total > limit:
            return False
        images.append(image)
    starts = np.cumsum([0] + [image.size for image in images]).tolist()
    places = {
        path: (start, image.shape)
        for path, start, image in zip(paths, starts[:-1], images, strict=True)
    }
    _remove_unused(kept.parent)
    with TemporaryDirectory(dir=kept.parent, prefix=".") as name:
        fresh = Path(name) / "fresh"
        fresh.mkdir()
        with (fresh / _PIXELS).open("wb") as file:
            np.save(file, np.concatenate([image.reshape(-1) for image in images]))
            file.flush()
            os.fsync(file.fileno())
        (fresh / _INDEX).write_text(json.dumps(places), encoding="utf-8")
        fresh.rename(kept)
    return True


def _load(kept: Path) -> DecodedImages | None:
    """None for what a crash has torn; it is removed, and decoded anew next time."""
    os.utime(kept)
    try:
        pixels = np.load(kept / _PIXELS, mmap_mode="r")
        places = json.loads((kept / _INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError, EOFError):
        shutil.rmtree(kept, ignore_errors=True)
        return None
    return DecodedImages(
        pixels, {path: (start, tuple(shape)) for path, (start, shape) in places.items()}
    )


def _remove_unused(folder: Path) -> None:
    """What no trial has used for long. Whoever has mapped a file keeps it until he is done."""
    before = time.time() - _UNUSED_FOR
    for kept in folder.iterdir():
        if kept.is_dir() and kept.stat().st_mtime < before:
            shutil.rmtree(kept, ignore_errors=True)
