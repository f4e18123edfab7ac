# What the six digits detectors share: data, schedule, backbone. Sized for one CPU thread:
# 96 x 96 images, digits of 14 to 44 pixels, 600 steps of batch 8, nothing pretrained.
default_scope = "mmdet"
classes = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
num_classes = 10

# Data: written by `lossforge data digits`. A mirrored digit is another sign, so nothing is flipped;
# Resize leaves the pixels as they are and notes the scale factor that mmdet asks for.
data_root = "data/digits-v1/"
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="Resize", scale=(96, 96), keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(96, 96), keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="CocoDataset",
        data_root=data_root,
        ann_file="search_train.json",
        data_prefix=dict(img="search_train/"),
        metainfo=dict(classes=classes),
        filter_cfg=dict(filter_empty_gt=True, min_size=1),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=20,
    num_workers=0,
    persistent_workers=False,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CocoDataset",
        data_root=data_root,
        ann_file="search_val.json",
        data_prefix=dict(img="search_val/"),
        metainfo=dict(classes=classes),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="CocoMetric", ann_file=data_root + "search_val.json", metric="bbox")
test_evaluator = val_evaluator

# Schedule, in steps. AdamW: its step does not depend on the scale of the loss, so that a candidate
# loss is not judged by its constant factor.
train_cfg = dict(type="IterBasedTrainLoop", max_iters=600, val_interval=600)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=8e-3, betas=(0.9, 0.99), weight_decay=0.02),
    clip_grad=dict(max_norm=35, norm_type=2),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=50, end=600, T_max=550, eta_min=8e-5),
]
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=20),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=600, max_keep_ckpts=1),
    sampler_seed=dict(type="DistSamplerSeedHook"),
)
log_processor = dict(type="LogProcessor", window_size=20, by_epoch=False)
env_cfg = dict(cudnn_benchmark=False)
log_level = "INFO"

# Model parts.
data_preprocessor = dict(
    type="DetDataPreprocessor",
    mean=[128.0, 128.0, 128.0],
    std=[64.0, 64.0, 64.0],
    pad_size_divisor=16,
)
backbone = dict(
    type="ResNet",
    depth=18,
    base_channels=16,
    num_stages=3,
    strides=(1, 2, 2),
    dilations=(1, 1, 1),
    out_indices=(0, 1, 2),  # strides 4, 8, 16 with 16, 32, 64 channels
    norm_cfg=dict(type="BN", requires_grad=True),
    norm_eval=False,
)
neck = dict(
    type="FPN",
    in_channels=[16, 32, 64],
    out_channels=32,
    num_outs=3,
    norm_cfg=dict(type="BN", requires_grad=True),  # untrained, dense heads learn slowly without it
)
