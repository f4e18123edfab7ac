"""Data sets that have been looked at: annotations, which may be large, are read again only after a
change."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from workers import Split
from workers.data import check_split, read_classes

Stamp = tuple[int, int]  # nanoseconds of the last change, bytes


def classes_of(split: Split) -> tuple[str, ...]:
    """See `workers.data.read_classes`, of which this raises the errors."""
    return _classes(split.annotations, _stamp(split))


def check_classes(split: Split, classes: tuple[str, ...]) -> None:
    """See `workers.data.check_split`, of which this raises the errors."""
    _checked(split, classes, _stamp(split))


def look_at(splits: Mapping[str, Split]) -> None:
    """Look at a whole data set now, so that nobody waits for it later.

    Raises:
        DataError: it cannot be used.
    """
    classes = classes_of(splits["search_train"])
    for split in splits.values():
        check_classes(split, classes)


def _stamp(split: Split) -> Stamp:
    try:
        found = Path(split.annotations).stat()
    except (OSError, ValueError):
        return (0, 0)  # whoever reads it says what is wrong
    return (found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=64)
def _classes(annotations: str, stamp: Stamp) -> tuple[str, ...]:
    return read_classes(annotations)


@lru_cache(maxsize=256)
def _checked(split: Split, classes: tuple[str, ...], stamp: Stamp) -> None:
    check_split(split, classes)
