"""The metric: mmdet's own numbers, unrounded."""

import inspect
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import losses  # noqa: F401 - before mmdet
import workers.metric
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


def hard_problem(seed: int, folder: Path) -> tuple[str, list[tuple[dict, dict]]]:
    """Boxes of all sizes, crowds, marks to ignore, equal scores, empty images, too many detections.

    Class d is never there, class e is never found; ids neither start at 1 nor rise by 1.
    """
    rng = np.random.default_rng(seed)
    images, annotations, found = [], [], []
    for index in range(25):
        image_id = 7 * index + 3
        images.append({"id": image_id, "file_name": f"{index}.png", "width": 400, "height": 400})
        number = int(rng.integers(0, 9))
        corners = rng.uniform(0, 200, (number, 2))
        sizes = 2.0 ** rng.uniform(2, 8.5, (number, 2))
        labels = rng.choice([0, 1, 2, 4], number)
        for corner, size, label in zip(corners, sizes, labels, strict=True):
            annotation = {
                "id": 5 * len(annotations) + 11,
                "image_id": image_id,
                "category_id": 10 + 3 * int(label),
                "bbox": [*map(float, corner), *map(float, size)],
                "area": float(size.prod() * rng.uniform(0.5, 1)),
                "iscrowd": int(rng.random() < 0.2),
            }
            if rng.random() < 0.1:
                annotation["ignore"] = 1
            annotations.append(annotation)
        boxes = np.concatenate([corners, corners + sizes], axis=1)
        copies = int(rng.integers(0, 4)) if index else 300  # over maxDets 100 and 1000 in one image
        near = np.repeat(boxes, copies, axis=0)
        near = near + rng.normal(0, 4, near.shape)
        far = rng.uniform(0, 400, (int(rng.integers(0, 6)), 2)).repeat(2, axis=1)
        every = np.concatenate([near, far + [0, 0, 30, 30]]).astype(np.float32)
        result = {
            "img_id": image_id,
            "bboxes": every,
            "scores": rng.integers(0, 20, len(every)).astype(np.float32) / 20,
            "labels": rng.integers(0, 4, len(every)),
        }
        found.append(({"width": 400, "height": 400, "img_id": image_id}, result))
    categories = [{"id": 10 + 3 * index, "name": name} for index, name in enumerate("abcde")]
    path = folder / f"hard-{seed}.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return str(path), found


@pytest.mark.parametrize("seed", range(6))
def test_faster_coco_eval_finds_what_pycocotools_finds(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, found = hard_problem(seed, tmp_path)

    def measured(settings: dict) -> dict[str, float]:
        metric = FullPrecisionCocoMetric(ann_file=path, **settings)
        metric.dataset_meta = {"classes": tuple("abcde")}
        return metric.compute_metrics(found)

    for settings in ({}, {"proposal_nums": (300, 100, 5)}, {"iou_thrs": np.array([0.5, 0.75])}):
        fast = measured(settings)
        with monkeypatch.context() as patch:
            patch.setattr(workers.metric, "COCOeval_faster", None)
            slow = measured(settings)
        assert fast == pytest.approx(slow, rel=0, abs=1e-12)
        assert 0 < fast["bbox_mAP"] < 1 or "proposal_nums" in settings
    assert min(measured({}).values()) >= 0  # every size of object is there


def test_an_export_measures_the_same_where_faster_coco_eval_is_not_installed(
    tiny_data: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module is read anew, as an export carries it along."""
    from mmdet.registry import METRICS

    for name in ("faster_coco_eval", "faster_coco_eval.core.faster_eval_api"):
        monkeypatch.setitem(sys.modules, name, None)  # an import of it fails
    monkeypatch.delitem(METRICS._module_dict, "FullPrecisionCocoMetric")
    alone: dict = {"__name__": "its_loss"}
    exec(compile(inspect.getsource(workers.metric), "its_loss.py", "exec"), alone)
    monkeypatch.undo()
    assert alone["COCOeval_faster"] is None
    split = tiny_data["val"]
    found, measured = results(split, 1.0, number=3), []
    for kind in (alone["FullPrecisionCocoMetric"], FullPrecisionCocoMetric):
        metric = kind(ann_file=split.annotations)
        metric.dataset_meta = {"classes": ("square", "bar", "cross")}
        measured.append(metric.compute_metrics(found))
    assert measured[0] == pytest.approx(measured[1], rel=0, abs=1e-12)


def test_fast_evaluation_is_the_one_that_runs(
    tiny_data: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmdet.datasets.api_wrappers import COCOeval

    def refuse(_: COCOeval) -> None:
        raise AssertionError("pycocotools matched the boxes")

    monkeypatch.setattr(COCOeval, "evaluate", refuse)
    metric = FullPrecisionCocoMetric(ann_file=tiny_data["val"].annotations)
    metric.dataset_meta = {"classes": ("square", "bar", "cross")}
    found = results(tiny_data["val"], 1.0, number=2)
    assert metric.compute_metrics(found)["bbox_mAP"] > 0


def test_image_ids_may_be_texts_as_for_pycocotools(
    tiny_data: dict[str, Split], tmp_path: Path
) -> None:
    split = tiny_data["val"]
    content = json.loads(Path(split.annotations).read_text())
    for image in content["images"]:
        image["id"] = f"image {image['id']}"
    for annotation in content["annotations"]:
        annotation["image_id"] = f"image {annotation['image_id']}"
    path = tmp_path / "texts.json"
    path.write_text(json.dumps(content))
    named = FullPrecisionCocoMetric(ann_file=str(path))
    numbered = FullPrecisionCocoMetric(ann_file=split.annotations)
    named.dataset_meta = numbered.dataset_meta = {"classes": ("square", "bar", "cross")}
    found = results(split, 1.0, number=2)
    renamed = [(i, {**result, "img_id": f"image {result['img_id']}"}) for i, result in found]
    expected = numbered.compute_metrics(found)
    assert named.compute_metrics(renamed) == pytest.approx(expected, rel=0, abs=1e-12)


def test_a_detector_that_finds_nothing_has_ap_0(tiny_data: dict[str, Split]) -> None:
    metric = FullPrecisionCocoMetric(ann_file=tiny_data["val"].annotations)
    metric.dataset_meta = {"classes": ("square", "bar", "cross")}
    assert metric.compute_metrics(results(tiny_data["val"], 0.0, number=0))["bbox_mAP"] == 0.0


def test_only_boxes_are_measured(tiny_data: dict[str, Split]) -> None:
    with pytest.raises(ValueError, match="segm"):
        FullPrecisionCocoMetric(ann_file=tiny_data["val"].annotations, metric="segm")
