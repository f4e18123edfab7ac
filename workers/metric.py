"""COCO box AP in full precision, as an mmdet metric.

mmdet's `CocoMetric` rounds to three decimals, a step of 0.1 AP: too coarse to tell two losses
apart, or to check that an exported config trains to the recorded number. This module imports
nothing of this project, so that an export can carry it along.

faster-coco-eval matches boxes ten times as fast as pycocotools, to the same numbers; where it is
not installed, as an export may find, pycocotools does it.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.datasets.api_wrappers import COCOeval
from mmdet.evaluation.metrics import CocoMetric
from mmdet.registry import METRICS

try:
    from faster_coco_eval.core.faster_eval_api import COCOeval_faster
except ImportError:
    COCOeval_faster = None

COCO_STATISTICS = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")


@METRICS.register_module()
class FullPrecisionCocoMetric(CocoMetric):
    """mmdet's `CocoMetric` for boxes, with the same parameters and unrounded results.

    Differences to the stock metric, all else equal (`coco/bbox_mAP` and the other keys, maxDets
    100, 300, 1000): values are not rounded; a detector that finds nothing has AP 0 instead of no
    result at all; -1 stands, as there, for a size of object that the data does not have.

    Args:
        ann_file: path of the COCO annotation file.
        kwargs: of `CocoMetric`; `metric` can only be "bbox".
    """

    def __init__(self, ann_file: str, metric: str = "bbox", **kwargs: Any) -> None:
        if metric != "bbox":
            raise ValueError(f"metric = {metric!r}; only 'bbox' is measured in full precision")
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
            super().__init__(ann_file=ann_file, metric="bbox", **kwargs)

    def compute_metrics(self, results: Sequence[tuple[dict, dict]]) -> dict[str, float]:
        """Box AP of all `results` of `process`, in [0, 1]."""
        coco = self._coco_api
        categories = coco.get_cat_ids(cat_names=self.dataset_meta["classes"])
        found = [
            {
                "image_id": result["img_id"],
                "bbox": self.xyxy2xywh(box),
                "score": float(score),
                "category_id": categories[label],
            }
            for _, result in results
            for box, score, label in zip(
                result["bboxes"], result["scores"], result["labels"], strict=True
            )
        ]
        if not found:
            return {f"bbox_{name}": 0.0 for name in COCO_STATISTICS}
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
            evaluation.params.catIds = categories
            evaluation.params.imgIds = coco.get_img_ids()
            evaluation.params.maxDets = list(self.proposal_nums)
            evaluation.params.iouThrs = self.iou_thrs
            if COCOeval_faster is not None and _whole(evaluation.params.imgIds):
                _match_fast(evaluation)
            else:
                evaluation.evaluate()
                evaluation.accumulate()
            evaluation.summarize()
        values = evaluation.stats[: len(COCO_STATISTICS)]
        return {
            f"bbox_{name}": float(value)
            for name, value in zip(COCO_STATISTICS, values, strict=True)
        }


def _whole(identifiers: Sequence[Any]) -> bool:
    """Whether they are numbers; pycocotools takes texts too, the other does not."""
    return all(isinstance(each, int) for each in identifiers)


def _match_fast(evaluation: Any) -> None:
    """Does what pycocotools does in `evaluate` and `accumulate`, with faster-coco-eval."""
    given, wanted = evaluation.params, ("catIds", "imgIds", "maxDets", "iouThrs")
    fast = COCOeval_faster(
        evaluation.cocoGt, evaluation.cocoDt, "bbox", print_function=lambda *_: None
    )
    for name in wanted:
        setattr(fast.params, name, getattr(given, name))
    fast.evaluate()
    fast.accumulate()
    given.maxDets = sorted(given.maxDets)
    evaluation.eval = {
        name: np.ascontiguousarray(fast.eval[name]) for name in ("precision", "recall")
    }
