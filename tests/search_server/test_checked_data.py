"""Annotations are read once, and again when they have changed."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from search_server import checked_data
from search_server.checked_data import classes_of, look_at
from workers import Split
from workers.data import DataError


def coco(folder: Path, name: str, *classes: str) -> Split:
    """A split of one image with a box of each class."""
    (folder / "images").mkdir(exist_ok=True)
    (folder / "images" / "a.png").write_bytes(b"")
    box: dict[str, Any] = {"image_id": 1, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 32, "height": 32}],
        "annotations": [{**box, "id": n, "category_id": n} for n, _ in enumerate(classes, start=1)],
        "categories": [{"id": n, "name": name} for n, name in enumerate(classes, start=1)],
    }
    file = folder / name
    file.write_text(json.dumps(content))
    return Split(str(file), str(folder / "images"))


def test_a_file_is_read_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, reads = coco(tmp_path, "a.json", "cat", "dog"), []
    read = checked_data.read_classes
    monkeypatch.setattr(checked_data, "read_classes", lambda path: reads.append(path) or read(path))
    assert classes_of(split) == classes_of(split) == ("cat", "dog")
    assert len(reads) == 1
    coco(tmp_path, "a.json", "cat", "cow")
    os.utime(split.annotations, ns=(1, 1))
    assert classes_of(split) == ("cat", "cow")


def test_what_is_wrong_is_not_remembered(tmp_path: Path) -> None:
    train, val = coco(tmp_path, "train.json", "cat", "dog"), coco(tmp_path, "val.json", "cat")
    with pytest.raises(DataError):
        look_at({"search_train": train, "search_val": val})
    coco(tmp_path, "val.json", "cat", "dog")
    look_at({"search_train": train, "search_val": val})
    Path(val.annotations).unlink()
    with pytest.raises(DataError):
        look_at({"search_train": train, "search_val": val})
