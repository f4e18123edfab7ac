"""The splits of a comparison by their names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from search_server.coco_layout import named_split
from search_server.errors import JobError
from workers import Split
from workers.data import DataError, check_split, digits, read_classes


def choose_splits(
    data: str, names: Sequence[str], images: Path | None = None
) -> tuple[list[Split], tuple[str, ...]]:
    """Splits of a data set by name, and the classes of the first.

    Args:
        data: `digits`, or a folder with annotation files in COCO format.
        names: the splits; `instances_val2017.json` is `val2017` too.
        images: folder of the images, or of the splits' folders, where it cannot be told.

    Raises:
        JobError: no such split.
        LayoutError, DataError: the folder or a file cannot be used.
    """
    if data == "digits":
        known = digits().splits
        for name in names:
            if name not in known:
                raise JobError(f"digits has no split {name!a}; it has {', '.join(known)}")
        splits = [known[name] for name in names]
        return splits, read_classes(splits[0].annotations)
    splits = [named_split(Path(data), name, images) for name in names]
    classes = read_classes(splits[0].annotations)
    for name, split in zip(names, splits, strict=True):
        try:
            check_split(split, classes)
        except DataError as error:
            raise JobError(f"the split {name}: {error}") from error
    return splits, classes
