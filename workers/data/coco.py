"""Data sets in COCO format: reading with clear errors, classes, checks and small subsets."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from workers.data.errors import DataError
from workers.data.split import Split

_IMAGES_CHECKED = 8
_NEEDED = {
    "categories": ("id", "name"),
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area"),
}


def load_coco(annotations: Path | str) -> dict[str, Any]:
    """The content of a COCO annotation file with bounding boxes, checked for what detectors need.

    Raises:
        DataError: No such file, not JSON, a list or field is missing, an id or class name appears
            twice, or an annotation names an image or category that is not there.
    """
    path = Path(annotations)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(path, f"is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(path, "is not COCO: expected an object with 'images' and 'annotations'")
    for key in _NEEDED:
        _check_list(path, content, key)
    check_names(path, content["categories"])
    _check_references(path, content, "image", "images")
    _check_references(path, content, "category", "categories")
    return content


def read_classes(annotations: Path | str) -> tuple[str, ...]:
    """The class names of a COCO file in the order of its categories, which is label order in mmdet.

    Raises:
        DataError: The file is no usable COCO file.
    """
    return _classes(load_coco(annotations))


def check_split(split: Split, classes: tuple[str, ...] | None = None) -> None:
    """Finds out whether a detector can be trained on `split`, before it is.

    Args:
        split: The annotation file and image folder.
        classes: The class names expected, in label order. mmdet drops the boxes of a category that
            is not among them in silence, and numbers labels by the order in the file.

    Raises:
        DataError: The first thing found wrong. Of the image files only the first few are looked
            for, so that a large data set on a slow disk is no burden.
    """
    content = load_coco(split.annotations)
    if classes is not None:
        _check_classes(split.annotations, _classes(content), classes)
    for key in ("images", "annotations"):
        if not content[key]:
            raise DataError(split.annotations, f"has no {key}")
    if not os.path.isdir(split.images):
        raise DataError(split.images, "is not a folder; it should hold the images")
    for image in content["images"][:_IMAGES_CHECKED]:
        path = Path(split.images) / image["file_name"]
        if not path.is_file():
            raise DataError(path, f"no such image; {split.annotations} names it")


def one_image_per_class(
    split: Split, out_dir: Path | str, per_class: int = 1, seed: int = 0
) -> Split:
    """A small subset of `split` in which every class has `per_class` images of its own.

    The verification set of CSE-AutoLoss: images are drawn at random, class by class from the
    rarest to the commonest, each only once. A class with too few images takes those it has. Only an
    annotation file is written, named by its content; the images stay where they are.

    Args:
        split: Where to draw from.
        out_dir: Folder for the annotation file; created where missing.
        per_class: Images drawn for each class, at least 1.
        seed: The same seed, split and `per_class` give the same file.

    Raises:
        DataError: `split` is no usable COCO file, or one of its classes has no image.
    """
    if per_class < 1:
        raise ValueError(f"per_class is {per_class}; at least 1 image per class is needed")
    content = load_coco(split.annotations)
    chosen = _draw_images(Path(split.annotations), content, per_class, seed)
    subset = {
        **content,
        "images": [image for image in content["images"] if image["id"] in chosen],
        "annotations": [a for a in content["annotations"] if a["image_id"] in chosen],
    }
    text = json.dumps(subset, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    path = Path(out_dir).absolute() / f"{Path(split.annotations).stem}-{digest}.json"
    _write_once(path, text)
    return Split(str(path), split.images)


def _draw_images(path: Path, content: dict[str, Any], per_class: int, seed: int) -> set[Any]:
    holders: dict[Any, set[Any]] = {category["id"]: set() for category in content["categories"]}
    for annotation in content["annotations"]:
        if not annotation.get("iscrowd"):
            holders[annotation["category_id"]].add(annotation["image_id"])
    names = {category["id"]: category["name"] for category in content["categories"]}
    shuffled = np.random.default_rng(seed).permutation(len(content["images"]))
    order = [content["images"][i]["id"] for i in shuffled]
    chosen: set[Any] = set()
    for category in sorted(holders, key=lambda identity: (len(holders[identity]), identity)):
        if not holders[category]:
            raise DataError(path, f"class {names[category]!r} has no image")
        free = [image for image in order if image in holders[category] and image not in chosen]
        chosen.update(free[:per_class])
    return chosen


def _classes(content: dict[str, Any]) -> tuple[str, ...]:
    return tuple(category["name"] for category in content["categories"])


def _check_classes(path: str, found: tuple[str, ...], expected: tuple[str, ...]) -> None:
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    if missing or extra:
        differences = [f"missing {', '.join(missing)}"] if missing else []
        differences += [f"not expected {', '.join(extra)}"] if extra else []
        raise DataError(path, f"its classes are not the expected ones: {'; '.join(differences)}")
    if found != expected:
        raise DataError(
            path,
            f"its categories are in the order {', '.join(found)}, but expected is"
            f" {', '.join(expected)}: mmdet numbers labels by that order",
        )


def _check_list(path: Path, content: dict[str, Any], key: str) -> None:
    entries = content.get(key)
    if not isinstance(entries, list):
        raise DataError(path, f"is not COCO: it has no list {key!r}")
    seen: set[Any] = set()
    for number, entry in enumerate(entries):
        check_entry(path, key, number, entry, seen)


def check_entry(path: Path, key: str, number: int, entry: Any, seen: set[Any]) -> None:
    """Whether one entry of a list of a COCO file has what detectors need.

    Args:
        path: The file, for errors.
        key: "categories", "images" or "annotations".
        number: Where in the list the entry is, from 0.
        entry: What is there.
        seen: The ids of the entries before it; the entry's own is added.

    Raises:
        DataError: It has not, or its id is that of another one.
    """
    for field in _NEEDED[key]:
        if not isinstance(entry, dict) or field not in entry:
            raise DataError(path, f"is not COCO: {key}[{number}] has no {field!r}")
    if not isinstance(entry["id"], int | str):
        raise DataError(path, f"{key}[{number}] has the id {entry['id']!r}")
    if entry["id"] in seen:
        raise DataError(path, f"{key}[{number}] has the id {entry['id']!r} of another one")
    seen.add(entry["id"])
    if key == "images" and not isinstance(entry["file_name"], str):
        raise DataError(path, f"images[{number}] has the file_name {entry['file_name']!r}")
    if key == "annotations":
        _check_box(path, number, entry["bbox"])


def _check_references(path: Path, content: dict[str, Any], key: str, target: str) -> None:
    known = {entry["id"] for entry in content[target]}
    for annotation in content["annotations"]:
        named = annotation[f"{key}_id"]
        if not isinstance(named, int | str) or named not in known:
            raise DataError(
                path,
                f"annotation {annotation['id']!r} names {key} {named!r},"
                " which the file does not have",
            )


def check_names(path: Path, categories: list[dict[str, Any]]) -> None:
    """Whether categories have names of their own.

    Raises:
        DataError: There is none, or two have one name, or one has none.
    """
    if not categories:
        raise DataError(path, "has no categories")
    names = set()
    for category in categories:
        name = category["name"]
        if not isinstance(name, str) or not name:
            raise DataError(path, f"category {category['id']!r} has the name {name!r}, not text")
        if name in names:
            raise DataError(path, f"two categories have the name {name!r}")
        names.add(name)


def _check_box(path: Path, number: int, box: Any) -> None:
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(side) for side in box):
        raise DataError(path, f"annotations[{number}] has the bbox {box!r}, not 4 finite numbers")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _write_once(path: Path, text: str) -> None:
    """Writes through a temporary file, so that no reader sees half a file."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
