"""Whether the annotation files that a config names are where it says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search_server.errors import JobError


def check_named_data(config: Mapping[str, Any]) -> None:
    """Finds a missing annotation file before a detector is built.

    Files on other than a file system, and data sets that name none, are left to mmdet.

    Raises:
        JobError: a file is missing; says where it was looked for, and what to do.
    """
    for name in ("train_dataloader", "val_dataloader"):
        loader = config.get(name) or {}
        for path in _annotation_files(loader.get("dataset")):
            if not path.is_file():
                raise JobError(
                    f"the config's annotation file {str(path)!a} ({name}) is not there; start where"
                    " it is, link the data to it, or give --data FOLDER"
                )


def _annotation_files(dataset: Any) -> list[Path]:
    """Of a data set, and of what it wraps."""
    if isinstance(dataset, list | tuple):
        return [path for each in dataset for path in _annotation_files(each)]
    if not isinstance(dataset, Mapping):
        return []
    inner = [dataset.get("dataset"), dataset.get("datasets")]
    found = [path for each in inner for path in _annotation_files(each)]
    file, root = dataset.get("ann_file"), dataset.get("data_root") or ""
    if not file or "://" in f"{root}{file}" or not isinstance(file, str):
        return found
    return [*found, Path(str(root)) / file]
