"""The part of a job spec that names data, and how its paths are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from search_server.spec.budgets import Part
from search_server.spec.places import places_of

PACKAGED = re.compile(r"[a-z0-9_]+/[a-z0-9_]+")  # name of a detector, as digits/atss
Text = Annotated[str, Field(min_length=1, max_length=4096)]


def resolved(value: str, info: ValidationInfo) -> str:
    """An absolute path; a relative one is meant from the folder of the spec."""
    places = places_of(info)
    places.check(value)
    if "\0" in value:
        raise ValueError("it must be a path")
    path = Path(value)
    if path.is_absolute() or places.folder is None:
        return value
    return str((places.folder / path).absolute())


class SplitSpec(Part):
    """One split of a data set in COCO format: annotation file and image folder."""

    annotations: Text
    images: Text

    @field_validator("annotations", "images")
    @classmethod
    def _resolve(cls, value: str, info: ValidationInfo) -> str:
        return resolved(value, info)


class DataSpec(Part):
    """The splits of a data set; a search uses the first two."""

    search_train: SplitSpec
    search_val: SplitSpec
    confirm: SplitSpec | None = None
    test: SplitSpec | None = None
