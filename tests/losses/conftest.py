"""Tiny detectors of the six families and synthetic batches, all in memory."""

import copy
from collections.abc import Callable
from logging import FileHandler
from pathlib import Path
from typing import Any

import losses  # the stand-in for mmcv's ops has to precede mmdet

# isort: split
import mmdet
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData

torch.set_num_threads(1)
register_all_modules(init_default_scope=True)

CLASSES = 3
SIZE = 64
STRIDES = [4, 8, 16, 32]


def _delta_coder(stds: tuple[float, ...]) -> dict[str, Any]:
    return {"type": "DeltaXYWHBBoxCoder", "target_means": [0.0] * 4, "target_stds": list(stds)}


def _base(kind: str, out_channels: int = 16) -> dict[str, Any]:
    return {
        "type": kind,
        "data_preprocessor": {"type": "DetDataPreprocessor", "pad_size_divisor": 32},
        "backbone": {
            "type": "ResNet",
            "depth": 18,
            "base_channels": 8,
            "norm_cfg": {"type": "BN", "requires_grad": True},
            "norm_eval": False,
            "frozen_stages": -1,
        },
        "neck": {
            "type": "FPN",
            "in_channels": [8, 16, 32, 64],
            "out_channels": out_channels,
            "num_outs": 4,
        },
    }


def _max_iou(pos: float, neg: float, **extra: Any) -> dict[str, Any]:
    return {
        "type": "MaxIoUAssigner",
        "pos_iou_thr": pos,
        "neg_iou_thr": neg,
        "min_pos_iou": 0.0,
        "ignore_iof_thr": -1,
        **extra,
    }


def _two_stage(kind: str) -> dict[str, Any]:
    sampler = {
        "type": "RandomSampler",
        "num": 32,
        "pos_fraction": 0.5,
        "neg_pos_ub": -1,
        "add_gt_as_proposals": True,
    }
    box_head = {
        "type": "Shared2FCBBoxHead",
        "in_channels": 16,
        "fc_out_channels": 32,
        "roi_feat_size": 7,
        "num_classes": CLASSES,
        "bbox_coder": _delta_coder((0.1, 0.1, 0.2, 0.2)),
        "reg_class_agnostic": False,
        "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
        "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
    }
    extractor = {
        "type": "SingleRoIExtractor",
        "roi_layer": {"type": "RoIAlign", "output_size": 7, "sampling_ratio": 0},
        "out_channels": 16,
        "featmap_strides": STRIDES,
    }
    rcnn = {
        "assigner": _max_iou(0.5, 0.5, match_low_quality=False),
        "sampler": {**sampler, "neg_pos_ub": -1},
        "pos_weight": -1,
        "debug": False,
        "mask_size": 28,
    }
    model = {
        **_base(kind),
        "rpn_head": {
            "type": "RPNHead",
            "in_channels": 16,
            "feat_channels": 16,
            "anchor_generator": {
                "type": "AnchorGenerator",
                "scales": [4],
                "ratios": [0.5, 1.0, 2.0],
                "strides": STRIDES,
            },
            "bbox_coder": _delta_coder((1.0,) * 4),
            "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_weight": 1.0},
            "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
        },
        "roi_head": {
            "type": "StandardRoIHead",
            "bbox_roi_extractor": extractor,
            "bbox_head": box_head,
        },
        "train_cfg": {
            "rpn": {
                "assigner": _max_iou(0.7, 0.3, match_low_quality=True),
                "sampler": {**sampler, "num": 64, "add_gt_as_proposals": False},
                "allowed_border": -1,
                "pos_weight": -1,
                "debug": False,
            },
            "rpn_proposal": {
                "nms_pre": 100,
                "max_per_img": 50,
                "nms": {"type": "nms", "iou_threshold": 0.7},
                "min_bbox_size": 0,
            },
            "rcnn": rcnn,
        },
        "test_cfg": {
            "rpn": {
                "nms_pre": 100,
                "max_per_img": 50,
                "nms": {"type": "nms", "iou_threshold": 0.7},
                "min_bbox_size": 0,
            },
            "rcnn": {
                "score_thr": 0.01,
                "nms": {"type": "nms", "iou_threshold": 0.5},
                "max_per_img": 20,
                "mask_thr_binary": 0.5,
            },
        },
    }
    if kind == "MaskRCNN":
        model["roi_head"]["mask_roi_extractor"] = {
            **extractor,
            "roi_layer": {"type": "RoIAlign", "output_size": 14, "sampling_ratio": 0},
        }
        model["roi_head"]["mask_head"] = {
            "type": "FCNMaskHead",
            "num_convs": 1,
            "in_channels": 16,
            "conv_out_channels": 16,
            "num_classes": CLASSES,
            "loss_mask": {"type": "CrossEntropyLoss", "use_mask": True, "loss_weight": 1.0},
        }
    if kind == "CascadeRCNN":
        model["roi_head"].update(
            type="CascadeRoIHead",
            num_stages=2,
            stage_loss_weights=[1.0, 0.5],
            bbox_head=[
                {**copy.deepcopy(box_head), "reg_class_agnostic": True},
                {
                    **copy.deepcopy(box_head),
                    "reg_class_agnostic": True,
                    "bbox_coder": _delta_coder((0.05, 0.05, 0.1, 0.1)),
                },
            ],
        )
        model["train_cfg"]["rcnn"] = [rcnn, copy.deepcopy(rcnn)]
    return model


_TEST = {
    "nms_pre": 100,
    "min_bbox_size": 0,
    "score_thr": 0.01,
    "nms": {"type": "nms", "iou_threshold": 0.5},
    "max_per_img": 20,
}
_FOCAL = {"type": "FocalLoss", "use_sigmoid": True, "gamma": 2.0, "alpha": 0.25, "loss_weight": 1.0}
_GN = {"type": "GN", "num_groups": 4, "requires_grad": True}


def _dense(kind: str, head: dict[str, Any], assigner: dict[str, Any] | None) -> dict[str, Any]:
    train = {"allowed_border": -1, "pos_weight": -1, "debug": False}
    common = {
        "num_classes": CLASSES,
        "in_channels": 16,
        "feat_channels": 16,
        "stacked_convs": 1,
        "loss_cls": dict(_FOCAL),
    }
    return {
        **_base(kind),
        "bbox_head": {**common, **head},
        "train_cfg": None if assigner is None else {**train, "assigner": assigner},
        "test_cfg": dict(_TEST),
    }


def _model(family: str) -> dict[str, Any]:
    if family == "retinanet":
        return _dense(
            "RetinaNet",
            {
                "type": "RetinaHead",
                "anchor_generator": {
                    "type": "AnchorGenerator",
                    "octave_base_scale": 4,
                    "scales_per_octave": 2,
                    "ratios": [0.5, 1.0, 2.0],
                    "strides": STRIDES,
                },
                "bbox_coder": _delta_coder((1.0,) * 4),
                "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
            },
            _max_iou(0.5, 0.4),
        )
    if family == "fcos":
        return _dense(
            "FCOS",
            {
                "type": "FCOSHead",
                "strides": STRIDES,
                "regress_ranges": ((-1, 16), (16, 32), (32, 64), (64, 1e8)),
                "norm_cfg": _GN,
                "loss_bbox": {"type": "IoULoss", "loss_weight": 1.0},
            },
            None,
        )
    if family == "atss":
        return _dense(
            "ATSS",
            {
                "type": "ATSSHead",
                "anchor_generator": {
                    "type": "AnchorGenerator",
                    "ratios": [1.0],
                    "octave_base_scale": 4,
                    "scales_per_octave": 1,
                    "strides": STRIDES,
                },
                "bbox_coder": _delta_coder((0.1, 0.1, 0.2, 0.2)),
                "norm_cfg": _GN,
                "loss_bbox": {"type": "GIoULoss", "loss_weight": 2.0},
            },
            {"type": "ATSSAssigner", "topk": 9},
        )
    return _two_stage(
        {"faster": "FasterRCNN", "mask": "MaskRCNN", "cascade": "CascadeRCNN"}[family]
    )


def make_config(family: str) -> Config:
    return Config({"model": copy.deepcopy(_model(family)), "default_scope": "mmdet"})


def make_batch(images: int = 2, boxes: int = 3, seed: int = 0) -> dict[str, Any]:
    """A training batch: noise images, random boxes of 12 to 40 pixels, with box-shaped masks."""
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(images):
        sizes = rng.uniform(12, 40, (boxes, 2))
        corners = rng.uniform(0, 1, (boxes, 2)) * (SIZE - sizes)
        box = np.concatenate([corners, corners + sizes], axis=1).astype(np.float32)
        masks = np.zeros((boxes, SIZE, SIZE), dtype=np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, box.astype(int), strict=True):
            mask[y1:y2, x1:x2] = 1
        instances = InstanceData(
            bboxes=torch.from_numpy(box).reshape(-1, 4),
            labels=torch.from_numpy(rng.integers(0, CLASSES, boxes)),
            masks=BitmapMasks(masks, SIZE, SIZE),
        )
        sample = DetDataSample(
            metainfo={
                "img_shape": (SIZE, SIZE),
                "ori_shape": (SIZE, SIZE),
                "pad_shape": (SIZE, SIZE),
                "batch_input_shape": (SIZE, SIZE),
                "scale_factor": (1.0, 1.0),
            }
        )
        sample.gt_instances = instances
        sample.ignored_instances = InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
        )
        samples.append(sample)
    images_tensor = torch.from_numpy(rng.normal(size=(images, 3, SIZE, SIZE)).astype(np.float32))
    return {"inputs": images_tensor, "data_samples": samples}


def build_model(config: Config, seed: int = 0) -> torch.nn.Module:
    # mmengine logs every initialised tensor, also to a file that an earlier training has closed
    logger = MMLogger.get_current_instance()
    logger.setLevel("ERROR")
    logger.handlers = [each for each in logger.handlers if not isinstance(each, FileHandler)]
    torch.manual_seed(seed)
    model = MODELS.build(config.model)
    model.init_weights()
    return model.train()


def loss_values(model: torch.nn.Module, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """mmdet's loss dictionary of one batch; entries of a list are summed."""
    losses_of = model.loss(batch["inputs"], copy.deepcopy(batch["data_samples"]))
    return {
        name: sum(value) if isinstance(value, list) else value for name, value in losses_of.items()
    }


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def tiny_config() -> Callable[[str], Config]:
    return make_config


@pytest.fixture
def tiny_batch() -> Callable[..., dict[str, Any]]:
    return make_batch


@pytest.fixture
def build() -> Callable[..., torch.nn.Module]:
    return build_model


@pytest.fixture
def loss_dict() -> Callable[..., dict[str, torch.Tensor]]:
    return loss_values


@pytest.fixture
def definition() -> Callable[..., losses.LossDefinition]:
    """A definition from branches; texts are expressions, mappings mmdet losses."""

    def make(
        cls: Any = None, bbox: Any = None, space: str = "multi_cls", **fields: Any
    ) -> losses.LossDefinition:
        def branch(value: Any, where: str) -> Any:
            if isinstance(value, str):
                return {"type": "expression", "space": where, "expression": value}
            return None if value is None else {"type": "stock", "loss": value}

        return losses.LossDefinition.from_json(
            {"name": "test", "cls": branch(cls, space), "bbox": branch(bbox, "box"), **fields}
        )

    return make


@pytest.fixture(scope="session")
def mmdet_configs() -> Path:
    """mmdet's own configs, text style; ``pip`` installs them with the package."""
    return Path(mmdet.__file__).parent / ".mim" / "configs"
