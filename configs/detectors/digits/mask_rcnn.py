# Mask R-CNN (He et al., 2017) for the embedded digits: Faster R-CNN with a mask branch, judged by boxes.
_base_ = ["./faster_rcnn.py"]

model = dict(
    type="MaskRCNN",
    roi_head=dict(
        mask_roi_extractor=dict(
            type="SingleRoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=2),
            out_channels=32,
            featmap_strides=[4, 8],
            finest_scale=20,
        ),
        mask_head=dict(
            type="FCNMaskHead",
            num_convs=2,
            in_channels=32,
            conv_out_channels=32,
            num_classes={{_base_.num_classes}},
            class_agnostic=True,
            loss_mask=dict(type="CrossEntropyLoss", use_mask=True, loss_weight=1.0),
        ),
    ),
    train_cfg=dict(rcnn=dict(mask_size=14)),
    test_cfg=dict(rcnn=dict(mask_thr_binary=0.5)),
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="Resize", scale=(96, 96), keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
