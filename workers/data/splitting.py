"""Splits a COCO annotation file into files of their own: no image in two, classes shared out.

The file is read twice and never held: once for what is where, which takes some dozens of bytes an
annotation, and once to copy every image and annotation, letter for letter, to its split.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from array import array
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from workers.data.coco import check_entry, check_names
from workers.data.errors import DataError
from workers.data.json_stream import Piece, read_pieces
from workers.data.stratify import stratify

Progress = Callable[[str, float], None]
_LISTS = ("images", "annotations")
_ROUNDING = 1e-9  # of ratios that are to add up to 1


@dataclass(frozen=True)
class WrittenSplit:
    """A split as it was written.

    Attributes:
        annotations: Absolute path of its file.
        images: How many it has; entries that name the same file are one.
        boxes: Annotations of each class by its name, crowds included.
    """

    annotations: Path
    images: int
    boxes: Mapping[str, int]


@dataclass(frozen=True)
class _Survey:
    """What is in an annotation file.

    Attributes:
        numbers: The number of each image by its id, from 0 in the file's order. Entries that name
            the same file have one number: they are one image, which must not be in two splits.
        images: How many different images there are.
        classes: Class names in the file's order.
        owners, labels, crowds: (M,) of each annotation the number of its image, the number of its
            class, and whether it is a crowd.
    """

    numbers: Mapping[Any, int]
    images: int
    classes: tuple[str, ...]
    owners: np.ndarray
    labels: np.ndarray
    crowds: np.ndarray


def split_annotations(
    annotations: Path | str,
    out_dir: Path | str,
    ratios: Mapping[str, float],
    seed: int = 0,
    progress: Progress = lambda doing, share: None,
) -> dict[str, WrittenSplit]:
    """Writes an annotation file for every split into a new folder.

    Images are dealt out by `stratify` over the classes that they hold outside of crowds; images
    without annotations too. Categories, and whatever else the file has beside images and
    annotations, are in every split. The folder appears when all of it is written, or not at all.

    Args:
        annotations: A COCO file.
        out_dir: The folder; it must not exist, or be empty.
        ratios: The share of each split by its name, which is also its file's name. Shares that add
            up to less than 1 leave the rest of the images out.
        seed: The same file, ratios and seed give the same splits.
        progress: Takes what is being done and how much of it is, in [0, 1].

    Raises:
        DataError: The file is no usable COCO file, or the folder is in use or cannot be written.
        ValueError: A ratio is not positive, or they add up to more than 1.
    """
    check_ratios(ratios)
    source, folder = Path(annotations), Path(out_dir).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(folder, "exists and is left as it is; name another folder")
    if not source.is_file():  # a pipe could not be read twice
        raise DataError(source, "is no file; give a COCO annotation file")
    survey = _survey(source, _share_of(source, "reading", progress))
    held = _held(survey)
    progress("dealing out", 0.0)
    chosen = stratify(survey.images, held, _shares(ratios), seed)
    for number, name in enumerate(ratios):
        if not (chosen == number).any():
            raise DataError(source, f"has too few images ({survey.images}) to give {name} one")
    try:
        _write(source, folder, tuple(ratios), survey, chosen, progress)
    except OSError as error:
        raise DataError(folder, f"cannot be written: {error.strerror or error}") from error
    return {
        name: _counted(folder / f"{name}.json", survey, chosen == number)
        for number, name in enumerate(ratios)
    }


def check_ratios(ratios: Mapping[str, float]) -> None:
    """Whether shares of splits are some.

    Raises:
        ValueError: One is not positive, or they add up to more than 1; says which.
    """
    for name, ratio in ratios.items():
        if not math.isfinite(ratio) or ratio <= 0:
            raise ValueError(f"the ratio of {name} is {ratio:g}; it must be above 0")
    total = math.fsum(ratios.values())
    if not ratios or total > 1 + _ROUNDING:
        raise ValueError(f"the ratios add up to {total:g}; they must add up to 1 at most")


def _shares(ratios: Mapping[str, float]) -> list[float]:
    """The shares of the splits and, where they leave images out, of these."""
    rest = 1.0 - math.fsum(ratios.values())
    return [*ratios.values(), rest] if rest > _ROUNDING else list(ratios.values())


def _survey(path: Path, progress: Callable[[int], None]) -> _Survey:
    categories: list[dict[str, Any]] | None = None
    seen: dict[str, set[Any]] = {"categories": set(), "images": set(), "annotations": set()}
    found: set[str] = set()
    numbers: dict[Any, int] = {}
    files: dict[str, int] = {}
    owners, labels, crowds = array("q"), array("q"), array("b")
    images: dict[Any, int] = {}  # number by id as annotations name them
    kinds: dict[Any, int] = {}
    for piece in read_pieces(path, _LISTS, progress):
        if piece.kind == "open":
            found.add(piece.key)
        elif piece.kind == "value" and piece.key == "categories":
            categories = _checked_categories(path, piece.value, seen["categories"])
        elif piece.kind == "entry":
            check_entry(path, piece.key, piece.number, piece.value, seen[piece.key])
            if piece.key == "images":
                number = files.setdefault(piece.value["file_name"], len(files))
                numbers[piece.value["id"]] = number
            else:
                owners.append(_numbered(path, piece, "image_id", images))
                labels.append(_numbered(path, piece, "category_id", kinds))
                crowds.append(bool(piece.value.get("iscrowd")))
    for key in _LISTS:
        if key not in found:
            raise DataError(path, f"is not COCO: it has no list {key!r}")
    if categories is None:
        raise DataError(path, "is not COCO: it has no list 'categories'")
    of_class = {category["id"]: number for number, category in enumerate(categories)}
    return _Survey(
        numbers=numbers,
        images=len(files),
        classes=tuple(category["name"] for category in categories),
        owners=_renumbered(path, "image", images, numbers)[np.asarray(owners)],
        labels=_renumbered(path, "category", kinds, of_class)[np.asarray(labels)],
        crowds=np.asarray(crowds, dtype=bool),
    )


def _checked_categories(path: Path, value: Any, seen: set[Any]) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise DataError(path, "is not COCO: it has no list 'categories'")
    for number, category in enumerate(value):
        check_entry(path, "categories", number, category, seen)
    check_names(path, value)
    return value


def _numbered(path: Path, piece: Piece, field: str, known: dict[Any, int]) -> int:
    """The number under which `known` has what an annotation names; the next one for a new name."""
    named = piece.value[field]
    if not isinstance(named, int | str):
        raise DataError(path, f"annotation {piece.value['id']!r} has the {field} {named!r}")
    return known.setdefault(named, len(known))


def _renumbered(
    path: Path, what: str, named: Mapping[Any, int], known: Mapping[Any, int]
) -> np.ndarray:
    """(K,) the numbers in `known` of all that annotations named, which must be there."""
    for identity in named:
        if identity not in known:
            problem = f"annotations name {what} {identity!r}, which the file does not have"
            raise DataError(path, problem)
    return np.array([known[identity] for identity in named], dtype=np.int64)


def _held(survey: _Survey) -> np.ndarray:
    """(M, 2) image and class of what images hold outside of crowds, each pair once."""
    number = len(survey.classes)
    pairs = np.unique((survey.owners * number + survey.labels)[~survey.crowds])
    return np.stack([pairs // number, pairs % number], axis=1)


def _write(
    source: Path,
    folder: Path,
    names: tuple[str, ...],
    survey: _Survey,
    chosen: np.ndarray,
    progress: Progress,
) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        fresh.chmod(0o755)  # mkdtemp makes it private
        with ExitStack() as stack:
            files = [
                stack.enter_context((fresh / f"{name}.json").open("w", encoding="utf-8"))
                for name in names
            ]
            _copy(source, files, survey.numbers, chosen, _share_of(source, "writing", progress))
        os.replace(fresh, folder)  # fails where something has come to be there meanwhile
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _copy(
    source: Path,
    files: Sequence[TextIO],
    numbers: Mapping[Any, int],
    chosen: np.ndarray,
    progress: Callable[[int], None],
) -> None:
    empty = [True] * len(files)  # whether the object, or the list that is open, has nothing yet
    keys = 0
    for piece in read_pieces(source, _LISTS, progress):
        if piece.kind == "entry":
            identity = piece.value["id" if piece.key == "images" else "image_id"]
            if identity not in numbers:
                raise DataError(source, "has been changed while it was read")
            split = int(chosen[numbers[identity]])
            if split < len(files):
                files[split].write(f"{'' if empty[split] else ','}\n{piece.text}")
                empty[split] = False
            continue
        for file in files:
            if piece.kind == "close":
                file.write("\n]")
            else:
                before = ",\n" if keys else "{\n"
                text = piece.text if piece.kind == "value" else "["
                file.write(f"{before}{json.dumps(piece.key)}: {text}")
        keys += piece.kind != "close"
        empty = [True] * len(files)
    for file in files:
        file.write("\n}\n")


def _counted(path: Path, survey: _Survey, inside: np.ndarray) -> WrittenSplit:
    counts = np.bincount(survey.labels[inside[survey.owners]], minlength=len(survey.classes))
    boxes = dict(zip(survey.classes, counts.tolist(), strict=True))
    return WrittenSplit(path, int(inside.sum()), boxes)


def _share_of(path: Path, doing: str, progress: Progress) -> Callable[[int], None]:
    size = max(1, path.stat().st_size)
    return lambda done: progress(doing, min(1.0, done / size))
