# FCOS (Tian et al., 2019) for the embedded digits: focal, IoU and centerness losses.
_base_ = ["./_base.py"]

model = dict(
    type="FCOS",
    data_preprocessor={{_base_.data_preprocessor}},
    backbone={{_base_.backbone}},
    neck={{_base_.neck}},
    bbox_head=dict(
        type="FCOSHead",
        num_classes={{_base_.num_classes}},
        in_channels=32,
        feat_channels=48,
        stacked_convs=2,
        norm_cfg=dict(type="BN", requires_grad=True),
        strides=[4, 8, 16],
        regress_ranges=((-1, 11), (11, 22), (22, 1e8)),  # pixels, longest of the four distances
        center_sampling=True,
        center_sample_radius=1.5,
        norm_on_bbox=True,
        centerness_on_reg=True,
        conv_bias=True,
        dcn_on_last_conv=False,
        init_cfg=dict(
            type="Normal",
            layer="Conv2d",
            std=0.01,
            override=[
                dict(type="Normal", name="conv_cls", std=0.01, bias_prob=0.01),
                # Distances are clamped at 0 and have no gradient below: begin at two strides.
                dict(type="Normal", name="conv_reg", std=0.01, bias=2.0),
            ],
        ),
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="IoULoss", loss_weight=1.0),
        loss_centerness=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
    ),
    test_cfg=dict(
        nms_pre=300, min_bbox_size=0, score_thr=0.02, nms=dict(type="nms", iou_threshold=0.5), max_per_img=50
    ),
)
