"""A data set of a dozen images and two detectors that train a step in a twentieth of a second."""

import json
from pathlib import Path

import numpy as np

from workers import Split

CLASSES = ("square", "bar", "cross")
SIDE = 64

DETECTOR = """
default_scope = "mmdet"
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="Resize", scale=(64, 64), keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(64, 64), keep_ratio=True),
    dict(
        type="PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(
        type="RepeatDataset",
        times=3,
        dataset=dict(
            type="CocoDataset",
            data_root="data/coco/",
            ann_file="annotations/instances_train2017.json",
            data_prefix=dict(img="train2017/"),
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
            pipeline=train_pipeline,
        ),
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CocoDataset",
        data_root="data/coco/",
        ann_file="annotations/instances_val2017.json",
        data_prefix=dict(img="val2017/"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="CocoMetric", ann_file="data/coco/annotations/instances_val2017.json")
test_evaluator = val_evaluator
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=12, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
]
optim_wrapper = dict(
    type="OptimWrapper", optimizer=dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=0.0001)
)
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", interval=1),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    visualization=dict(type="DetVisualizationHook"),
)
env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0))
model = dict(
    type="%(type)s",
    data_preprocessor=dict(
        type="DetDataPreprocessor", mean=[128.0] * 3, std=[64.0] * 3, pad_size_divisor=16
    ),
    backbone=dict(
        type="ResNet",
        depth=18,
        base_channels=8,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(1, 2),
    ),
    neck=dict(type="FPN", in_channels=[16, 32], out_channels=16, num_outs=2),
    %(heads)s
)
"""

ATSS_HEADS = """
    bbox_head=dict(
        type="ATSSHead",
        num_classes=80,
        in_channels=16,
        feat_channels=32,
        stacked_convs=1,
        anchor_generator=dict(
            type="AnchorGenerator",
            ratios=[1.0],
            octave_base_scale=4,
            scales_per_octave=1,
            strides=[8, 16],
        ),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_stds=[0.1, 0.1, 0.2, 0.2]),
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="GIoULoss", loss_weight=2.0),
        loss_centerness=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
    ),
    train_cfg=dict(assigner=dict(type="ATSSAssigner", topk=9), allowed_border=-1, pos_weight=-1),
    test_cfg=dict(
        nms_pre=50,
        min_bbox_size=0,
        score_thr=0.0,
        nms=dict(type="nms", iou_threshold=0.6),
        max_per_img=20,
    ),
"""

FASTER_HEADS = """
    rpn_head=dict(
        type="RPNHead",
        in_channels=16,
        feat_channels=16,
        anchor_generator=dict(type="AnchorGenerator", scales=[3], ratios=[1.0], strides=[8, 16]),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder"),
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type="L1Loss", loss_weight=1.0),
    ),
    roi_head=dict(
        type="StandardRoIHead",
        bbox_roi_extractor=dict(
            type="SingleRoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=5, sampling_ratio=1),
            out_channels=16,
            featmap_strides=[8],
        ),
        bbox_head=dict(
            type="Shared2FCBBoxHead",
            in_channels=16,
            fc_out_channels=32,
            roi_feat_size=5,
            num_classes=80,
            bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_stds=[0.1, 0.1, 0.2, 0.2]),
            loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
            loss_bbox=dict(type="L1Loss", loss_weight=1.0),
        ),
    ),
    train_cfg=dict(
        rpn=dict(
            assigner=dict(
                type="MaxIoUAssigner", pos_iou_thr=0.6, neg_iou_thr=0.3, min_pos_iou=0.3
            ),
            sampler=dict(type="RandomSampler", num=32, pos_fraction=0.5, add_gt_as_proposals=False),
            allowed_border=-1,
            pos_weight=-1,
        ),
        rpn_proposal=dict(
            nms_pre=50, max_per_img=30, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0
        ),
        rcnn=dict(
            assigner=dict(
                type="MaxIoUAssigner",
                pos_iou_thr=0.5,
                neg_iou_thr=0.5,
                min_pos_iou=0.5,
                match_low_quality=False,
            ),
            sampler=dict(type="RandomSampler", num=16, pos_fraction=0.5, add_gt_as_proposals=True),
            pos_weight=-1,
        ),
    ),
    test_cfg=dict(
        rpn=dict(
            nms_pre=50, max_per_img=20, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0
        ),
        rcnn=dict(score_thr=0.0, nms=dict(type="nms", iou_threshold=0.5), max_per_img=20),
    ),
"""

DETECTORS = {
    "atss": DETECTOR % {"type": "ATSS", "heads": ATSS_HEADS},
    "faster": DETECTOR % {"type": "FasterRCNN", "heads": FASTER_HEADS},
}


def write_split(folder: Path, number: int, seed: int) -> Split:
    """Draws `number` noisy images, two objects each and none on the last one."""
    import cv2

    rng = np.random.default_rng(seed)
    images, annotations = [], []
    folder.mkdir(parents=True)
    for index in range(number):
        image = rng.integers(90, 130, (SIDE, SIDE, 3), dtype=np.uint8)
        for _ in range(0 if index == number - 1 else 2):
            label = int(rng.integers(3))
            w, h = ((20, 20), (28, 10), (24, 24))[label]
            x, y = int(rng.integers(SIDE - w)), int(rng.integers(SIDE - h))
            image[y : y + h, x : x + w, label] = 255
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": label + 1,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
        name = f"{index}.png"
        cv2.imwrite(str(folder / name), image)
        images.append({"id": index + 1, "file_name": name, "width": SIDE, "height": SIDE})
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(CLASSES)]
    file = folder.parent / f"{folder.name}.json"
    file.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return Split(str(file), str(folder))
