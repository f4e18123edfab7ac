"""apply_loss: what it writes into a config, for mmdet's own configs and for tiny ones."""

import copy
import textwrap

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import MODELS as ROOT_MODELS

from losses import (
    CATALOG,
    DefinitionError,
    UnsupportedHeadError,
    apply_loss,
    detector_family,
)

TWO_STAGE = ("faster", "cascade", "mask")
DENSE = ("retinanet", "fcos", "atss")
FAMILIES = (*TWO_STAGE, *DENSE)
SPACES_OF = dict.fromkeys(TWO_STAGE, "multi_cls") | dict.fromkeys(DENSE, "binary_cls")
NO_IOU_CLS = {"multi_cls": "Neg(Dot(Y,Log(Softmax(X))))", "binary_cls": "Softplus(X)"}


def heads(config):
    owner = config.model.get("roi_head", config.model)
    return owner.bbox_head if isinstance(owner.bbox_head, list) else [owner.bbox_head]


@pytest.mark.parametrize("family", FAMILIES)
def test_family_is_found(family, tiny_config):
    found = detector_family(tiny_config(family))
    assert found.name == family
    assert found.cls_space == SPACES_OF[family]
    assert found.two_stage == (family in TWO_STAGE)
    assert detector_family(tiny_config(family).model) == found


@pytest.mark.parametrize("family", FAMILIES)
def test_expressions_weights_and_decoding(family, tiny_config, definition):
    space = SPACES_OF[family]
    wanted = definition(cls=NO_IOU_CLS[space], bbox="Sub(1,Div(I,U))", space=space)
    applied = apply_loss(tiny_config(family), wanted)
    for head in heads(applied):
        assert head.type != "IoUAwareHead"
        assert head.loss_bbox.loss_weight == (10.0 if family in TWO_STAGE else 1.0)
        assert head.loss_cls.loss_weight == 1.0
        assert head.get("reg_decoded_bbox") is (None if family == "fcos" else True)
        if family in DENSE:
            assert head.loss_cls.use_sigmoid is True
            built = MODELS.build(copy.deepcopy(head))
            assert built.cls_out_channels == head.num_classes
    assert MODELS.build(applied.model) is not None


@pytest.mark.parametrize("family", ["faster", "cascade", "mask", "retinanet"])
def test_delta_losses_turn_decoding_off_again(family, tiny_config):
    name = "ce" if family in TWO_STAGE else "focal"
    decoded = apply_loss(tiny_config(family), CATALOG[f"{name}-giou"])
    assert all(head.reg_decoded_bbox for head in heads(decoded))
    back = apply_loss(decoded, CATALOG[f"{name}-smooth-l1"])
    for head in heads(back):
        assert head.reg_decoded_bbox is False
        assert head.loss_bbox == {"type": "SmoothL1Loss", "beta": 1.0, "loss_weight": 1.0}


def test_given_weights_win_over_defaults(tiny_config):
    data = CATALOG["ce-giou"].to_json()
    data["bbox"]["loss_weight"], data["cls"]["loss_weight"] = 3.5, 0.0
    head = heads(apply_loss(tiny_config("faster"), type(CATALOG["default"]).from_json(data)))[0]
    assert (head.loss_bbox.loss_weight, head.loss_cls.loss_weight) == (3.5, 0.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_given_config_and_the_rpn_are_untouched(family, tiny_config):
    config = tiny_config(family)
    before = copy.deepcopy(config.to_dict())
    name = "cse-autoloss-a" if family in TWO_STAGE else "qfl-giou"
    applied = apply_loss(config, CATALOG[name])
    assert config.to_dict() == before
    applied.model.backbone.depth = 50
    assert config.to_dict() == before
    assert applied.model.get("rpn_head") == config.model.get("rpn_head")
    assert applied.custom_imports.imports == ["losses"]


@pytest.mark.parametrize("family", FAMILIES)
def test_null_branches_keep_the_detector_s_own(family, tiny_config):
    config = tiny_config(family)
    applied = apply_loss(config, CATALOG["default"])
    assert applied.model == config.model


def test_applying_twice_leaves_nothing_of_the_first(tiny_config):
    once = apply_loss(tiny_config("fcos"), CATALOG["cse-autoloss-b"])
    assert heads(once)[0].iou_centerness is True
    twice = apply_loss(once, CATALOG["focal-giou"])
    fresh = apply_loss(tiny_config("fcos"), CATALOG["focal-giou"])
    assert twice.to_dict() == fresh.to_dict()
    assert apply_loss(once, CATALOG["cse-autoloss-b"]).to_dict() == once.to_dict()


def test_a_kept_expression_keeps_its_ious(tiny_config, definition):
    """A searched detector gets another box loss; its classification loss still reads IoUs."""
    once = apply_loss(tiny_config("faster"), CATALOG["cse-autoloss-a"])
    again = apply_loss(once, definition(bbox={"type": "DIoULoss"}))
    head = heads(again)[0]
    assert (head.type, head.head) == ("IoUAwareHead", "Shared2FCBBoxHead")
    assert head.loss_cls == heads(once)[0].loss_cls


def test_custom_imports_are_merged_with_losses_first(tiny_config):
    config = tiny_config("atss")
    config.custom_imports = {"imports": ["torch", "losses", "numpy"], "allow_failed_imports": True}
    applied = apply_loss(config, CATALOG["focal-giou"])
    assert applied.custom_imports == {
        "imports": ["losses", "torch", "numpy"],
        "allow_failed_imports": True,
    }
    config.custom_imports = {"imports": "torch"}
    assert apply_loss(config, CATALOG["default"]).custom_imports.imports == ["losses", "torch"]


@pytest.mark.parametrize(
    ("family", "name", "words"),
    [
        ("faster", "cse-autoloss-b", r"binary_cls.*faster.*multi_cls"),
        ("atss", "cse-autoloss-a", r"multi_cls.*atss.*binary_cls"),
        ("faster", "focal-giou", r"FocalLoss.*faster.*CrossEntropyLoss"),
        ("fcos", "focal-l1", r"L1Loss.*fcos.*GIoULoss"),
        ("atss", "focal-smooth-l1", r"SmoothL1Loss.*atss"),
    ],
)
def test_losses_that_do_not_fit(family, name, words, tiny_config):
    data = CATALOG[name].to_json() | {"iou_centerness": False}
    with pytest.raises(DefinitionError, match=words):
        apply_loss(tiny_config(family), type(CATALOG["default"]).from_json(data))


@pytest.mark.parametrize(
    ("family", "loss", "words"),
    [
        ("atss", {"type": "QualityFocalLoss"}, "qfl-giou"),
        ("retinanet", {"type": "VarifocalLoss"}, "vfl-giou"),
        ("retinanet", {"type": "FocalLoss", "use_sigmoid": False}, "must be true"),
        ("faster", {"type": "CrossEntropyLoss", "use_sigmoid": True}, "must be false"),
        ("faster", {"type": "UnheardOfLoss"}, "UnheardOfLoss"),
    ],
)
def test_stock_classification_losses_that_do_not_fit(family, loss, words, tiny_config, definition):
    with pytest.raises(DefinitionError, match=words):
        apply_loss(tiny_config(family), definition(cls=loss))


def test_unknown_box_loss(tiny_config, definition):
    with pytest.raises(DefinitionError, match=r"UnheardOfLoss.*known are IoULoss"):
        apply_loss(tiny_config("faster"), definition(bbox={"type": "UnheardOfLoss"}))


DECODED_LOSSES = ["IoULoss", "GIoULoss", "DIoULoss", "CIoULoss", "EIoULoss", "SIoULoss"]
OTHER_BOX_LOSSES = ["L1Loss", "SmoothL1Loss", "BalancedL1Loss", "MSELoss", "GHMR", "BoundedIoULoss"]


@pytest.mark.parametrize("family", ["faster", "retinanet", "fcos", "atss"])
@pytest.mark.parametrize("kind", [*DECODED_LOSSES, *OTHER_BOX_LOSSES])
def test_every_stock_box_loss_trains_or_is_refused(
    family, kind, tiny_config, tiny_batch, build, loss_dict, definition
):
    try:
        applied = apply_loss(tiny_config(family), definition(bbox={"type": kind}))
    except DefinitionError:
        assert family in ("fcos", "atss")
        assert kind in OTHER_BOX_LOSSES
        return
    loss = loss_dict(build(applied), tiny_batch())["loss_bbox"]
    loss.backward()
    assert torch.isfinite(loss)


@pytest.mark.parametrize("family", DENSE)
@pytest.mark.parametrize("kind", ["FocalLoss", "CrossEntropyLoss", "GHMC"])
def test_every_stock_classification_loss_of_dense_heads(
    family, kind, tiny_config, tiny_batch, build, loss_dict, definition
):
    if (kind, family) == ("GHMC", "fcos"):  # FCOS passes no label weights, which it needs
        with pytest.raises(DefinitionError, match=r"GHMC.*fcos"):
            apply_loss(tiny_config(family), definition(cls={"type": kind}))
        return
    model = build(apply_loss(tiny_config(family), definition(cls={"type": kind})))
    assert torch.isfinite(loss_dict(model, tiny_batch())["loss_cls"])


@pytest.mark.parametrize("family", ["faster", "mask", "retinanet"])
def test_iou_centerness_without_centerness(family, tiny_config):
    with pytest.raises(UnsupportedHeadError, match=r"iou_centerness.*FCOSHead, ATSSHead"):
        apply_loss(tiny_config(family), CATALOG["default-iou-centerness"])


MMDET = {
    "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py": ("faster", "cse-autoloss-a"),
    "faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco.py": ("faster", "ce-giou"),
    "mask_rcnn/mask-rcnn_x101-32x4d_fpn_1x_coco.py": ("mask", "cse-autoloss-a"),
    "cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py": ("cascade", "cse-autoloss-a"),
    "dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py": ("faster", "ce-l1"),
    "gn+ws/mask-rcnn_r50_fpn_gn-ws-all_2x_coco.py": ("mask", "cse-autoloss-a"),
    "seesaw_loss/mask-rcnn_r50_fpn_seesaw-loss_random-ms-2x_lvis-v1.py": (
        "mask",
        "giou-expression",
    ),
    "swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py": ("mask", "cse-autoloss-a"),
    "swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py": ("retinanet", "qfl-giou"),
    "pvt/retinanet_pvt-t_fpn_1x_coco.py": ("retinanet", "focal-l1"),
    "efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco.py": ("retinanet", "qfl-giou"),
    "retinanet/retinanet_r50_fpn_1x_coco.py": ("retinanet", "vfl-giou"),
    "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py": ("fcos", "cse-autoloss-b"),
    "fcos/fcos_r50-dcn-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py": (
        "fcos",
        "cse-autoloss-b",
    ),
    "atss/atss_r50_fpn_1x_coco.py": ("atss", "cse-autoloss-b"),
    "dyhead/atss_r50-caffe_fpn_dyhead_1x_coco.py": ("atss", "default-iou-centerness"),
}


@pytest.mark.parametrize("path", MMDET)
def test_mmdet_s_own_configs(path, mmdet_configs):
    family, name = MMDET[path]
    config = Config.fromfile(str(mmdet_configs / path))
    assert detector_family(config).name == family
    applied = apply_loss(config, CATALOG[name])
    assert Config.fromstring(applied.pretty_text, ".py").to_dict() == applied.to_dict()
    untouched = ("optim_wrapper", "param_scheduler", "train_dataloader", "val_evaluator")
    for key in untouched:
        assert applied[key] == config[key]
    for head in heads(applied):
        MODELS.build(head)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("retinanet/retinanet_r18_fpn_1x_coco.py", "qfl-giou"),
        ("cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py", "cse-autoloss-a"),
    ],
)
def test_mmdet_s_own_configs_build_whole(path, name, mmdet_configs):
    applied = apply_loss(mmdet_configs / path, CATALOG[name])
    applied.model.backbone.init_cfg = None
    assert MODELS.build(applied.model) is not None


@pytest.mark.parametrize(
    ("path", "head"),
    [
        ("gfl/gfl_r50_fpn_1x_coco.py", "GFLHead"),
        ("yolox/yolox_s_8xb8-300e_coco.py", "YOLOXHead"),
        ("yolo/yolov3_d53_8xb8-320-273e_coco.py", "YOLOV3Head"),
        ("detr/detr_r50_8xb2-150e_coco.py", "DETRHead"),
        ("vfnet/vfnet_r50_fpn_1x_coco.py", "VFNetHead"),
        ("tood/tood_r50_fpn_1x_coco.py", "TOODHead"),
        ("paa/paa_r50_fpn_1x_coco.py", "PAAHead"),
        ("sabl/sabl-faster-rcnn_r50_fpn_1x_coco.py", "SABLHead"),
        ("pisa/faster-rcnn_r50_fpn_pisa_1x_coco.py", "PISARoIHead"),
        ("sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py", "DIIHead"),
        ("rpn/rpn_r50_fpn_1x_coco.py", "RPN"),
        (
            "soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py",
            "SoftTeacher",
        ),
    ],
)
def test_unsupported_heads_are_named(path, head, mmdet_configs):
    with pytest.raises(UnsupportedHeadError, match=rf"'{head}'.*supported.*FCOSHead") as caught:
        apply_loss(mmdet_configs / path, CATALOG["default"])
    assert caught.value.head == head


def test_a_config_without_a_model_or_with_an_unknown_head(tiny_config):
    with pytest.raises(UnsupportedHeadError, match="no model"):
        apply_loss(Config({"train_cfg": {}}), CATALOG["default"])
    config = tiny_config("fcos")
    config.model.bbox_head.type = "NoSuchHead"
    with pytest.raises(UnsupportedHeadError, match=r"NoSuchHead.*not|NoSuchHead.*registered"):
        apply_loss(config, CATALOG["default"])
    config.model.bbox_head.type = "no.such.Head"
    with pytest.raises(UnsupportedHeadError, match="Head"):
        apply_loss(config, CATALOG["default"])


LAZY = """
from mmengine.config import read_base
from torch.nn import BatchNorm2d
from torch.optim import SGD
from mmdet.models import (
    DetDataPreprocessor, FCOS, FCOSHead, FPN, ResNet, FocalLoss, IoULoss, CrossEntropyLoss,
)

default_scope = None
model = dict(
    type=FCOS,
    data_preprocessor=dict(type=DetDataPreprocessor, pad_size_divisor=32),
    backbone=dict(type=ResNet, depth=18, base_channels=8, norm_cfg=dict(type=BatchNorm2d)),
    neck=dict(type=FPN, in_channels=[8, 16, 32, 64], out_channels=16, num_outs=4),
    bbox_head=dict(
        type=FCOSHead, num_classes=3, in_channels=16, feat_channels=16, stacked_convs=1,
        strides=[4, 8, 16, 32], regress_ranges=((-1, 16), (16, 32), (32, 64), (64, 1e8)),
        norm_cfg=dict(type='GN', num_groups=4),
        loss_cls=dict(type=FocalLoss, use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type=IoULoss, loss_weight=1.0),
        loss_centerness=dict(type=CrossEntropyLoss, use_sigmoid=True, loss_weight=1.0)),
)
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.01), classes=[SGD])
"""


def test_lazy_configs(tmp_path, tiny_batch, loss_dict):
    path = tmp_path / "lazy.py"
    path.write_text(textwrap.dedent(LAZY))
    config = Config.fromfile(str(path))
    assert isinstance(config.model.bbox_head.type, type)
    assert detector_family(config).name == "fcos"
    applied = apply_loss(config, CATALOG["cse-autoloss-b"])
    assert applied.model.type.endswith("FCOS")
    assert applied.optim_wrapper.optimizer.type == "torch.optim.SGD"
    assert applied.optim_wrapper.classes == ["torch.optim.SGD"]
    assert "ResNet" not in applied
    again = Config.fromstring(applied.pretty_text, ".py")
    assert again.to_dict() == applied.to_dict()
    model = ROOT_MODELS.build(again.model).train()
    assert type(model.bbox_head).__name__ == "IoUAwareFCOSHead"
    values = loss_dict(model, tiny_batch())
    assert all(torch.isfinite(value) for value in values.values())


def test_classes_in_a_python_config(tiny_config):
    """As somebody writes them who builds the config in a script."""
    config = tiny_config("atss")
    config.model.type = MODELS.get("ATSS")
    config.model.bbox_head.type = MODELS.get("ATSSHead")
    config.model.train_cfg.assigner.type = "mmdet.ATSSAssigner"
    applied = apply_loss(config, CATALOG["qfl-giou"])
    assert isinstance(applied.model.type, str)
    assert applied.model.bbox_head.head.endswith("ATSSHead")
    assert MODELS.build(Config.fromstring(applied.pretty_text, ".py").model) is not None


def test_a_user_s_space_is_written_into_the_config(tiny_config, tiny_batch, build, loss_dict):
    space = {
        "name": "mine",
        "inputs": {"X": "per_class", "Q": "per_class"},
        "constants": [5],
        "operators": ["Sub", "Mul", "Softplus"],
        "root": "per_class",
    }
    wanted = type(CATALOG["default"]).from_json(
        {
            "name": "mine",
            "cls": {
                "type": "expression",
                "space": space,
                "expression": "Sub(Softplus(X),Mul(Q,X))",
            },
        }
    )
    applied = apply_loss(tiny_config("atss"), wanted)
    assert applied.model.bbox_head.type == "IoUAwareHead"
    again = Config.fromstring(applied.pretty_text, ".py")
    assert torch.isfinite(loss_dict(build(again), tiny_batch())["loss_cls"])
