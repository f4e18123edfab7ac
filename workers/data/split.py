"""One split of a data set on disk: an annotation file in COCO format and its image folder."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Split:
    """What a detector is trained or evaluated on.

    Attributes:
        annotations: Absolute path of a COCO JSON file with bounding boxes.
        images: Absolute path of the folder that the file names in `annotations` are relative to.
    """

    annotations: str
    images: str
