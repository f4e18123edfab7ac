"""Two processes: whose gradient is the whole batch's, and whose the mean of the two halves'.

Both go through `lossforge train`'s own path; no batch norm that learns, no random sampler, no
random augmentation, so that nothing but the loss's own normaliser can tell them apart.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from losses import CATALOG
from workers import Split, TrialSpec
from workers.config_text import config_text
from workers.detector import parse_detector

SCRIPT = Path(__file__).with_name("gradients_of_a_step.py")
IMAGES = 4  # of a step, half of them to each process
TOLERANCE = 1e-5  # of the largest gradient

Gradients = dict[str, torch.Tensor]


def anchor_head(**changes: Any) -> dict[str, Any]:
    """RetinaNet's head, as small as the fixture's ATSS."""
    return {
        "type": "RetinaHead",
        "num_classes": 3,
        "in_channels": 16,
        "feat_channels": 32,
        "stacked_convs": 1,
        "anchor_generator": {
            "type": "AnchorGenerator",
            "ratios": [1.0],
            "octave_base_scale": 3,
            "scales_per_octave": 1,
            "strides": [8, 16],
        },
        "bbox_coder": {"type": "DeltaXYWHBBoxCoder"},
        "loss_cls": {"type": "FocalLoss", "use_sigmoid": True, "loss_weight": 1.0},
        "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
        **changes,
    }


FCOS_HEAD = {
    "type": "FCOSHead",
    "num_classes": 3,
    "in_channels": 16,
    "feat_channels": 32,
    "stacked_convs": 1,
    "strides": [8, 16],
    "regress_ranges": ((-1, 24), (24, 1e8)),
    "norm_cfg": None,
    "loss_cls": {"type": "FocalLoss", "use_sigmoid": True, "loss_weight": 1.0},
    "loss_bbox": {"type": "GIoULoss", "loss_weight": 1.0},
    "loss_centerness": {"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_weight": 1.0},
}
RETINANET_TRAINING = {
    "assigner": {
        "type": "MaxIoUAssigner",
        "pos_iou_thr": 0.5,
        "neg_iou_thr": 0.4,
        "min_pos_iou": 0,
        "ignore_iof_thr": -1,
    },
    "sampler": {"type": "PseudoSampler"},
    "allowed_border": -1,
    "pos_weight": -1,
}


def pap(all_processes: bool) -> dict[str, Any]:
    found = CATALOG["pap-retinanet"].to_json()
    found["cls"]["all_processes"] = all_processes
    return found


# the detector, the loss, and whether the gradient is the whole batch's
CASES: dict[str, tuple[str, dict[str, Any], bool]] = {
    "atss-expressions": ("atss", CATALOG["cse-autoloss-b"].to_json(), True),
    "fcos-expressions": ("fcos", CATALOG["cse-autoloss-b"].to_json(), True),
    "pap-all-processes": ("retinanet", pap(True), True),
    "pap": ("retinanet", pap(False), False),
    "retinanet": ("retinanet", CATALOG["focal-giou"].to_json(), False),
    "retinanet-expressions": ("retinanet", CATALOG["cse-autoloss-b"].to_json(), False),
    "ap": ("retinanet", CATALOG["ap-l1"].to_json(), False),
    "alrp": ("retinanet", CATALOG["alrp"].to_json(), False),
    "rank-sort": ("retinanet", CATALOG["rank-sort"].to_json(), False),
}
for _case in ("pap-all-processes", "pap", "retinanet-expressions"):
    CASES[_case][1]["iou_centerness"] = False


def write_config(path: Path, detector: str, text: str, data: Split, images: int) -> Path:
    """The fixture's detector without anything random, on the first images of its data in order."""
    config = parse_detector(text)
    backbone = {"norm_eval": True, "norm_cfg": {"type": "BN", "requires_grad": False}}
    config.model.backbone.update(backbone)
    if detector == "retinanet":
        config.model.type, config.model.train_cfg = "RetinaNet", RETINANET_TRAINING
        config.model.bbox_head = anchor_head()
    elif detector == "fcos":
        config.model.type, config.model.train_cfg = "FCOS", {}
        config.model.bbox_head = FCOS_HEAD
    else:
        config.model.bbox_head.update(num_classes=3, norm_cfg=None)
    pipeline = [
        step
        for step in config.train_dataloader.dataset.dataset.pipeline
        if step["type"] != "RandomFlip"
    ]
    dataset = {
        "type": "CocoDataset",
        "ann_file": data.annotations,
        "data_prefix": {"img": data.images},
        "metainfo": {"classes": ("square", "bar", "cross")},
    }
    common = {"num_workers": 0, "persistent_workers": False}
    config.train_dataloader = {
        **common,
        "batch_size": images,
        "sampler": {"type": "DefaultSampler", "shuffle": False},
        "dataset": {**dataset, "pipeline": pipeline},
    }
    tests = config.val_dataloader.dataset.pipeline
    config.val_dataloader = {
        **common,
        "batch_size": 1,
        "sampler": {"type": "DefaultSampler", "shuffle": False},
        "dataset": {**dataset, "pipeline": tests, "test_mode": True},
    }
    config.test_dataloader = config.val_dataloader
    config.val_evaluator = {"type": "FullPrecisionCocoMetric", "ann_file": data.annotations}
    config.test_evaluator = config.val_evaluator
    config.optim_wrapper.optimizer.lr = 0.0
    config.custom_imports = {"imports": ["workers.metric"], "allow_failed_imports": False}
    path.write_text(config_text(config.to_dict()))
    return path


def part(split: Split, wanted: list[int], path: Path) -> Split:
    """The images at some positions of a split."""
    content = json.loads(Path(split.annotations).read_text())
    content["images"] = [content["images"][position] for position in wanted]
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in ids]
    path.write_text(json.dumps(content))
    return Split(str(path), split.images)


@pytest.fixture(scope="module")
def alone() -> Callable[..., tuple[Gradients, dict[str, float]]]:
    """One process, this one."""
    spec = importlib.util.spec_from_file_location("gradients_of_a_step", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(config: Path, definition: dict, folder: Path) -> tuple[Gradients, dict[str, float]]:
        return module.gradients(str(config), definition, folder, (), together=False)

    return run


@pytest.fixture(scope="module")
def uneven(tiny_data: dict[str, Split], tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Four images, of which the first process's two have four times the boxes of the other's."""
    path = tmp_path_factory.mktemp("uneven") / "uneven.json"
    split = part(tiny_data["train"], [0, 1, 2, 3], path)
    content = json.loads(path.read_text())
    second = {content["images"][1]["id"], content["images"][3]["id"]}
    seen: dict[int, int] = {}
    kept = []
    for each in content["annotations"]:
        image = each["image_id"]
        seen[image] = seen.get(image, 0) + 1
        if image not in second or (seen[image] == 1 and image == min(second)):
            kept.append(each)
    content["annotations"] = kept
    path.write_text(json.dumps(content))
    return split


@pytest.fixture(scope="module")
def found(
    uneven: Split,
    make_spec: Callable[..., TrialSpec],
    alone: Callable[..., tuple[Gradients, dict[str, float]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, dict[str, Any]]:
    """Of each case: gradients of both processes, of the whole batch, and of each half alone."""
    folder = tmp_path_factory.mktemp("two-processes")
    text = make_spec("atss").detector
    halves = [
        part(uneven, wanted, folder / f"half{number}.json")
        for number, wanted in enumerate(([0, 2], [1, 3]))
    ]
    cases, results = {}, {}
    for name, (detector, definition, _) in CASES.items():
        whole = write_config(folder / f"{detector}-whole.py", detector, text, uneven, IMAGES)
        pair = write_config(folder / f"{detector}-pair.py", detector, text, uneven, IMAGES // 2)
        cases[name] = {"config": str(pair), "definition": definition}
        results[name] = {"whole": alone(whole, definition, folder / f"{name}-whole")}
        for number, half in enumerate(halves):
            one = write_config(
                folder / f"{detector}-half{number}.py", detector, text, half, IMAGES // 2
            )
            results[name][f"half{number}"] = alone(one, definition, folder / f"{name}-{number}")
    (folder / "cases.json").write_text(json.dumps(cases))
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
    command = [sys.executable, *torchrun, str(SCRIPT), str(folder / "cases.json"), str(folder)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo"}
    environment["PYTHONFAULTHANDLER"] = "1"  # an abort says where it was
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    for name in CASES:
        for rank in (0, 1):
            results[name][f"process{rank}"] = torch.load(folder / f"{name}-{rank}.pt")
    return results


def apart(one: Gradients, other: Gradients) -> float:
    """Largest difference, as a part of the largest gradient."""
    assert set(one) == set(other)
    largest = max(float(value.abs().max()) for value in other.values())
    assert largest > 0
    return max(float((one[name] - other[name]).abs().max()) for name in one) / largest


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str, found: dict[str, dict[str, Any]]) -> None:
    case, whole_batch = found[name], CASES[name][2]
    together, other = (case[f"process{rank}"][0] for rank in (0, 1))
    assert apart(together, other) == 0.0  # they stay in step
    whole = case["whole"][0]
    first, second = (case[f"half{number}"][0] for number in (0, 1))
    mean = {key: (first[key] + second[key]) / 2 for key in first}
    assert apart(mean, whole) > 100 * TOLERANCE  # else the two could not be told apart
    assert apart(together, whole if whole_batch else mean) <= TOLERANCE


@pytest.mark.slow
def test_the_evaluation_gathers_what_both_found(found: dict[str, dict[str, Any]]) -> None:
    """The learning rate is 0, so all evaluate the same weights; every image counts once."""
    aps = []
    for case in found.values():
        whole = case["whole"][1]
        aps.append(whole["coco/bbox_mAP"])
        for rank in (0, 1):
            assert case[f"process{rank}"][1] == pytest.approx(whole, abs=1e-9)
    assert max(aps) > 0
