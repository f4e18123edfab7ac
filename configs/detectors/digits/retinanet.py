# RetinaNet (Lin et al., 2017) for the embedded digits: focal loss and L1 on box deltas.
_base_ = ["./_base.py"]

model = dict(
    type="RetinaNet",
    data_preprocessor={{_base_.data_preprocessor}},
    backbone={{_base_.backbone}},
    neck={{_base_.neck}},
    bbox_head=dict(
        type="RetinaHead",
        num_classes={{_base_.num_classes}},
        in_channels=32,
        feat_channels=48,
        stacked_convs=2,
        norm_cfg=dict(type="BN", requires_grad=True),
        anchor_generator=dict(
            type="AnchorGenerator", octave_base_scale=3.5, scales_per_octave=2, ratios=[1.0, 1.7], strides=[4, 8, 16]
        ),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_stds=[0.1, 0.1, 0.2, 0.2]),
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="L1Loss", loss_weight=1.0),
    ),
    train_cfg=dict(
        assigner=dict(
            type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.0, ignore_iof_thr=-1
        ),
        sampler=dict(type="PseudoSampler"),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=300, min_bbox_size=0, score_thr=0.02, nms=dict(type="nms", iou_threshold=0.5), max_per_img=50
    ),
)
