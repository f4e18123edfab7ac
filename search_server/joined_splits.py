"""Several splits read as one: a larger set to evaluate on, for a steadier AP."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search_server.errors import JobError
from workers import Split, lossforge_home
from workers.data.coco import load_coco

JOIN = "+"


def split_named(splits: Mapping[str, Split], name: str) -> Split:
    """The split of a name, or of several names with ``+`` between them.

    Raises:
        JobError: there is no such split, or one is named twice.
        DataError: a split that is to be joined is no COCO file.
    """
    names = name.split(JOIN)
    for each in names:
        if each not in splits:
            raise JobError(f"the data have no split {each!a}; they have {', '.join(splits)}")
        if names.count(each) > 1:
            raise JobError(f"{name!a} names {each} twice")
    return splits[name] if len(names) == 1 else joined([splits[each] for each in names])


def joined(splits: Sequence[Split], folder: Path | None = None) -> Split:
    """One split with the images and boxes of several of the same classes, ids numbered anew.

    Only an annotation file is written, named by its content; the images stay where they are.

    Args:
        folder: of the file; None: one under Lossforge's home folder.

    Raises:
        DataError: a split is no COCO file.
        JobError: two splits have different classes.
    """
    root = os.path.commonpath([os.path.abspath(split.images) for split in splits])
    merged: dict[str, Any] = {"images": [], "annotations": []}
    for split in splits:
        content = load_coco(split.annotations)
        names = [category["name"] for category in content["categories"]]
        if "categories" not in merged:
            merged["categories"] = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
        known = {category["name"]: category["id"] for category in merged["categories"]}
        if names != list(known):
            raise JobError(f"{split.annotations} has other classes than {splits[0].annotations}")
        category = {each["id"]: known[each["name"]] for each in content["categories"]}
        start = len(merged["images"]) + 1
        image = {each["id"]: start + place for place, each in enumerate(content["images"])}
        where = Path(os.path.relpath(os.path.abspath(split.images), root))
        merged["images"] += [
            {**each, "id": image[each["id"]], "file_name": str(where / each["file_name"])}
            for each in content["images"]
        ]
        first = len(merged["annotations"]) + 1
        merged["annotations"] += [
            {
                **each,
                "id": first + place,
                "image_id": image[each["image_id"]],
                "category_id": category[each["category_id"]],
            }
            for place, each in enumerate(content["annotations"])
        ]
    text = json.dumps(merged, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    path = (folder or lossforge_home() / "subsets") / f"joined-{digest}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, path)
    return Split(str(path.absolute()), root)
