"""Data sets: the embedded digits, and any other in COCO format by path."""

from workers.data.coco import check_split, load_coco, one_image_per_class, read_classes
from workers.data.embedded import DigitsData, digits
from workers.data.errors import DataError
from workers.data.split import Split
from workers.data.splitting import WrittenSplit, split_annotations
from workers.home import lossforge_home

__all__ = [
    "DataError",
    "DigitsData",
    "Split",
    "WrittenSplit",
    "check_split",
    "digits",
    "load_coco",
    "lossforge_home",
    "one_image_per_class",
    "read_classes",
    "split_annotations",
]
