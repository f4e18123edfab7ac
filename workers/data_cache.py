"""What trials read again and again is read once: annotation files a process, images a machine.

The config of a trial says nothing of it, and plain mmengine reads the same numbers from the files.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import mmdet.evaluation.metrics.coco_metric as coco_metric
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO

from workers.data import Split
from workers.data.decoded import DecodedImages, provide_decoded

_LARGEST = 32 * 10**6  # bytes of annotation files whose content a process keeps; in memory 10 times
_kept: OrderedDict[tuple[str, str, int, int], COCO] = OrderedDict()


@contextlib.contextmanager
def data_kept(splits: Sequence[Split]) -> Iterator[None]:
    """Inside, mmdet reads `splits` from what is kept of them, and keeps what it reads.

    Images come from `provide_decoded`, pixel by pixel what OpenCV decodes; only those of `splits`,
    and only through `LoadImageFromFile` itself with its usual settings. Annotation files stay
    parsed in this process until they change.
    """
    packs = [pack for split in splits if (pack := _decoded(split)) is not None]
    with contextlib.ExitStack() as stack:
        stack.enter_context(_replaced(CocoDataset, "COCOAPI", _for_data_set))
        stack.enter_context(_replaced(coco_metric, "COCO", _for_metric))
        if packs:
            read = LoadImageFromFile.transform
            stack.enter_context(
                _replaced(LoadImageFromFile, "transform", _reading_from(packs, read))
            )
        yield


def _decoded(split: Split) -> DecodedImages | None:
    """None also for a split that cannot be read: who reads it next says why."""
    try:
        images = _coco(split.annotations, "data set").dataset["images"]
        return provide_decoded(images, split.images)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _reading_from(packs: Sequence[DecodedImages], read: Any) -> Any:
    def transform(self: LoadImageFromFile, results: dict[str, Any]) -> dict[str, Any] | None:
        if not _is_usual(self):
            return read(self, results)
        found = (pack.get(results["img_path"]) for pack in packs)
        image = next((each for each in found if each is not None), None)
        if image is None:
            return read(self, results)
        results["img"] = image.astype(np.float32) if self.to_float32 else image
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        return results

    return transform


def _is_usual(loader: LoadImageFromFile) -> bool:
    """Whether it decodes local files into colour with OpenCV, which is mmdet's default."""
    settings = (loader.color_type, loader.imdecode_backend)
    remote = loader.backend_args is not None or loader.file_client_args is not None
    return settings == ("color", "cv2") and not remote


def _for_data_set(data_set: CocoDataset, path: str) -> COCO:
    """A subclass may change what it has read; it gets its own."""
    return _coco(path, "data set") if type(data_set) is CocoDataset else COCO(path)


def _for_metric(path: str) -> COCO:
    """Apart from the data sets': a metric marks what is to be ignored, which these would heed."""
    return _coco(path, "metric")


def _coco(path: str, purpose: str) -> COCO:
    about = os.stat(path)
    key = (purpose, path, about.st_mtime_ns, about.st_size)
    coco = _kept.pop(key, None) or COCO(path)
    if about.st_size <= _LARGEST:
        _kept[key] = coco
        while sum(size for *_, size in _kept) > _LARGEST:
            _kept.popitem(last=False)
    return copy.copy(coco)


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
