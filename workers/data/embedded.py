"""The embedded data set: real handwritten digits in cluttered scenes, in COCO format.

1,797 scans (UCI "Optical Recognition of Handwritten Digits", Alpaydin and Kaynak, as shipped by
scikit-learn) are dealt out to four splits before any scene is drawn: no scan is in two splits.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from workers.data.errors import DataError
from workers.data.png import encode_grey_png
from workers.data.scenes import SIDE, draw_scene
from workers.data.split import Split
from workers.home import lossforge_home

NAME = "digits-v1"
CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
IMAGES: Mapping[str, int] = MappingProxyType(
    {"search_train": 800, "search_val": 300, "confirm": 300, "test": 500}
)
# In sixths of every class's scans: training sees half of them.
_SCAN_SHARES = {"search_train": 3, "search_val": 1, "confirm": 1, "test": 1}
_SEED = 1797
_README = Path(__file__).with_name("digits_readme.txt")


@dataclass(frozen=True)
class DigitsData:
    """The digits on disk.

    Attributes:
        root: Folder of this version of the data set.
        splits: 'search_train', 'search_val', 'confirm' and 'test'.
        classes: The ten class names, in the order of their category ids.
    """

    root: Path
    splits: Mapping[str, Split]
    classes: tuple[str, ...]


def digits(cache: Path | None = None) -> DigitsData:
    """The embedded digits; written on first use (seconds, about 18 MB), then only looked up.

    Safe to call from many processes at once: each writes a folder of its own and moves it into
    place in one step, the first one wins. The content is the same bytes each time.

    Args:
        cache: Folder to hold the data set's folder; default ``lossforge_home() / "data"``.

    Raises:
        DataError: The folder exists, but files are missing in it.
    """
    parent = lossforge_home() / "data" if cache is None else Path(cache).absolute()
    root = parent / NAME
    if not root.exists():
        _create(parent, root)
    splits = {name: Split(str(root / f"{name}.json"), str(root / name)) for name in IMAGES}
    for split in splits.values():
        for path in (split.annotations, split.images):
            if not os.path.exists(path):
                raise DataError(path, f"missing; remove {root} to have it written again")
    return DigitsData(root, MappingProxyType(splits), CLASSES)


def deal_scans(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Splits scan indices by class: split name -> sorted indices, disjoint, all scans used."""
    rng = np.random.default_rng(_SEED)
    dealt: dict[str, list[np.ndarray]] = {name: [] for name in IMAGES}
    for label in range(len(CLASSES)):
        scans = rng.permutation(np.flatnonzero(labels == label))
        ends = np.cumsum(list(_SCAN_SHARES.values()))[:-1] * len(scans) // 6
        for name, part in zip(IMAGES, np.split(scans, ends), strict=True):
            dealt[name].append(part)
    return {name: np.sort(np.concatenate(parts)) for name, parts in dealt.items()}


def _create(parent: Path, root: Path) -> None:
    parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{NAME}-", dir=parent))
    try:
        fresh.chmod(0o755)  # mkdtemp makes it private; a shared cache is to be readable
        _write(fresh)
        try:
            fresh.rename(root)
        except OSError:
            if not root.exists():  # else another process was first, with the same content
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _write(root: Path) -> None:
    from sklearn.datasets import load_digits  # slow to import, and needed only once

    source = load_digits()
    shutil.copyfile(_README, root / "README.txt")
    for number, (name, pool) in enumerate(deal_scans(source.target).items()):
        (root / name).mkdir()
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in range(IMAGES[name]):
            rng = np.random.default_rng([_SEED, number, index])
            scene, pasted = draw_scene(source.images, source.target, pool, rng)
            file_name = f"{index:04d}.png"
            (root / name / file_name).write_bytes(encode_grey_png(scene))
            images.append({"id": index, "file_name": file_name, "height": SIDE, "width": SIDE})
            for digit in pasted:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": index,
                        "category_id": digit.label,
                        "bbox": list(digit.bbox),
                        "area": digit.area,
                        "iscrowd": 0,
                        "segmentation": digit.polygons,
                        "scan": digit.scan,
                    }
                )
        content = {
            "info": {"description": f"Lossforge {NAME}, {name}", "version": NAME},
            "licenses": [
                {
                    "id": 1,
                    "name": "Creative Commons Attribution 4.0 International (CC BY 4.0)",
                    "url": "https://creativecommons.org/licenses/by/4.0/",
                }
            ],
            "categories": [{"id": i, "name": label} for i, label in enumerate(CLASSES)],
            "images": images,
            "annotations": annotations,
        }
        text = json.dumps(content, separators=(",", ":"))
        (root / f"{name}.json").write_text(text + "\n", encoding="utf-8")
