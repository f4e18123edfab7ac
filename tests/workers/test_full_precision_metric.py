"""The metric: mmdet's own numbers, unrounded."""

import json
from pathlib import Path

import numpy as np
import pytest

import losses  # noqa: F401 - before mmdet
from workers import Split
from workers.metric import COCO_STATISTICS, FullPrecisionCocoMetric

RNG = np.random.default_rng(4)


def results(split: Split, noise: float, number: int) -> list[tuple[dict, dict]]:
    """Detections near the true boxes, as `CocoMetric.process` keeps them."""
    content = json.loads(Path(split.annotations).read_text())
    found = []
    for image in content["images"]:
        boxes = [a["bbox"] for a in content["annotations"] if a["image_id"] == image["id"]]
        labels = [
            a["category_id"] - 1 for a in content["annotations"] if a["image_id"] == image["id"]
        ]
        xyxy = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes] * number).reshape(-1, 4)
        xyxy = (xyxy + RNG.normal(0, noise, xyxy.shape)).astype(np.float32)
        scores = RNG.random(len(xyxy)).astype(np.float32)
        result = {
            "img_id": image["id"],
            "bboxes": xyxy,
            "scores": scores,
            "labels": np.array(labels * number, dtype=np.int64),
        }
        found.append(({"width": 64, "height": 64, "img_id": image["id"]}, result))
    return found


@pytest.mark.parametrize("noise", [0.0, 1.0, 3.0])
def test_agrees_with_mmdet_to_the_digits_that_mmdet_gives(
    tiny_data: dict[str, Split], noise: float
) -> None:
    from mmdet.evaluation.metrics import CocoMetric

    split = tiny_data["val"]
    ours = FullPrecisionCocoMetric(ann_file=split.annotations)
    stock = CocoMetric(ann_file=split.annotations)
    ours.dataset_meta = stock.dataset_meta = {"classes": ("square", "bar", "cross")}
    found = results(split, noise, number=3)
    precise, rounded = ours.compute_metrics(found), stock.compute_metrics(found)
    assert set(precise) == set(rounded) == {f"bbox_{name}" for name in COCO_STATISTICS}
    assert {key: round(value, 3) for key, value in precise.items()} == rounded
    if noise == 1.0:
        assert precise["bbox_mAP"] != rounded["bbox_mAP"]
        assert 0.0 < precise["bbox_mAP"] < 1.0


def test_a_detector_that_finds_nothing_has_ap_0(tiny_data: dict[str, Split]) -> None:
    metric = FullPrecisionCocoMetric(ann_file=tiny_data["val"].annotations)
    metric.dataset_meta = {"classes": ("square", "bar", "cross")}
    assert metric.compute_metrics(results(tiny_data["val"], 0.0, number=0))["bbox_mAP"] == 0.0


def test_only_boxes_are_measured(tiny_data: dict[str, Split]) -> None:
    with pytest.raises(ValueError, match="segm"):
        FullPrecisionCocoMetric(ann_file=tiny_data["val"].annotations, metric="segm")
