"""The IoUs that reach the classification loss, against mmdet's own decoding and overlaps."""

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps

from losses import CATALOG, apply_loss
from losses.head_factory import iou_aware_class

TWO_STAGE = ("faster", "cascade", "mask")
DENSE = ("retinanet", "fcos", "atss")
IOU_CLS = {True: "Neg(Dot(Mul(Y,Z),Log(Softmax(X))))", False: "Mul(Q,Softplus(Neg(X)))"}


def heads_of(model):
    owner = model.roi_head if hasattr(model, "roi_head") else model
    return list(owner.bbox_head) if hasattr(owner.bbox_head, "__len__") else [owner.bbox_head]


class Recorder:
    """Keeps the IoUs lent to the classification loss, and the boxes given to the box loss."""

    def __init__(self, head):
        self.ious, self.labels, self.boxes, self.centerness = [], [], [], []
        head.loss_cls.register_forward_pre_hook(self.on_cls, with_kwargs=True)
        head.loss_bbox.register_forward_pre_hook(self.on_bbox, with_kwargs=True)
        if hasattr(head, "loss_centerness"):
            head.loss_centerness.register_forward_pre_hook(self.on_centerness, with_kwargs=True)

    def on_cls(self, module, args, kwargs):
        self.ious.append(getattr(module, "lent_ious", None))
        self.labels.append(args[1])

    def on_bbox(self, module, args, kwargs):
        weight = kwargs.get("weight", args[2] if len(args) > 2 else None)
        pred, target = args[0].detach(), args[1].detach()
        rows = weight.reshape(len(pred), -1).sum(1) > 0
        self.boxes.append((pred[rows], target[rows], weight, kwargs.get("avg_factor")))

    def on_centerness(self, module, args, kwargs):
        self.centerness.append(args[1])


@pytest.mark.parametrize("family", [*TWO_STAGE, *DENSE])
def test_lent_ious_are_those_of_the_decoded_boxes(
    family, tiny_config, tiny_batch, build, loss_dict, definition
):
    two_stage = family in TWO_STAGE
    wanted = definition(
        cls=IOU_CLS[two_stage],
        bbox="Sub(1,Div(I,U))",
        space="multi_cls" if two_stage else "binary_cls",
    )
    model = build(apply_loss(tiny_config(family), wanted))
    recorders = [Recorder(head) for head in heads_of(model)]
    loss_dict(model, tiny_batch(boxes=4))
    seen = []
    for recorder, head in zip(recorders, heads_of(model), strict=True):
        boxes = iter(recorder.boxes)
        for ious, labels in zip(recorder.ious, recorder.labels, strict=True):
            positives = int(((labels >= 0) & (labels < head.num_classes)).sum())
            assert ious.shape == (positives,)
            assert not ious.requires_grad
            if positives == 0:
                if family == "retinanet":  # its box loss is called for every level
                    next(boxes)
                continue
            pred, target, *_ = next(boxes)
            expected = bbox_overlaps(pred, target, is_aligned=True)
            torch.testing.assert_close(ious, expected.clamp(min=1e-7), rtol=1e-4, atol=1e-6)
            seen.append(ious)
        assert head.loss_cls.lent_ious is None, "IoUs outlive the batch"
    assert torch.cat(seen).max() > 1.3 * torch.cat(seen).min()


@pytest.mark.parametrize("agnostic", [True, False])
def test_box_head_ious_do_not_depend_on_the_regression_target_form(
    agnostic, tiny_config, tiny_batch, build, loss_dict, definition
):
    """Deltas and decoded targets, class-agnostic and class-specific: the same boxes, same IoUs."""
    found = []
    for bbox in ({"type": "L1Loss"}, {"type": "GIoULoss"}):
        config = tiny_config("faster")
        config.model.roi_head.bbox_head.reg_class_agnostic = agnostic
        config = apply_loss(config, definition(cls=IOU_CLS[True], bbox=bbox))
        head_config = config.model.roi_head.bbox_head
        assert head_config.reg_decoded_bbox is (bbox["type"] == "GIoULoss")
        model = build(config)
        head = heads_of(model)[0]
        with torch.no_grad():  # let the predicted boxes differ between classes
            head.fc_reg.weight.mul_(300)
        recorder = Recorder(head)
        torch.manual_seed(3)
        loss_dict(model, tiny_batch(boxes=4))
        found.append(recorder.ious[0])
    assert found[0].std() > 0.01
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


def test_class_specific_regression_uses_the_label_s_own_box(tiny_config, build):
    config = apply_loss(tiny_config("faster"), CATALOG["cse-autoloss-a"])
    head = heads_of(build(config))[0]
    rois = torch.tensor([[0.0, 10, 10, 30, 30], [0, 20, 20, 40, 44], [0, 1, 1, 9, 9]])
    deltas = torch.randn(3, 3, 4)
    labels = torch.tensor([2, 0, 3])
    targets = torch.tensor([[12.0, 9, 33, 30], [18, 22, 41, 40], [0, 0, 0, 0]])
    ious = head._positive_ious(deltas.reshape(3, 12), rois, labels, targets)
    decoded = head.bbox_coder.decode(rois[:2, 1:], torch.stack([deltas[0, 2], deltas[1, 0]]))
    expected = bbox_overlaps(decoded, targets[:2], is_aligned=True).clamp(min=1e-7)
    torch.testing.assert_close(ious, expected)


@pytest.mark.parametrize("family", ["fcos", "atss"])
@pytest.mark.parametrize("name", ["default-iou-centerness", "cse-autoloss-b"])
def test_iou_centerness_replaces_target_weight_and_normaliser(
    family, name, tiny_config, tiny_batch, build, loss_dict
):
    model = build(apply_loss(tiny_config(family), CATALOG[name]))
    recorder = Recorder(heads_of(model)[0])
    batch = tiny_batch(boxes=4)
    values = loss_dict(model, batch)
    assert recorder.centerness
    total = 0.0
    for target, (pred, wanted, weight, avg_factor) in zip(
        recorder.centerness, recorder.boxes, strict=True
    ):
        ious = bbox_overlaps(pred, wanted, is_aligned=True).clamp(min=1e-7)
        torch.testing.assert_close(target, ious, rtol=1e-4, atol=1e-6)
        assert weight is target
        total += float(ious.sum())
        if family == "fcos":
            assert float(avg_factor) == pytest.approx(float(ious.sum()), rel=1e-4)
    stock = loss_dict(build(tiny_config(family)), batch)
    if name == "default-iou-centerness":
        assert torch.equal(stock["loss_cls"], values["loss_cls"])
        assert not torch.equal(stock["loss_bbox"], values["loss_bbox"])
        assert not torch.equal(stock["loss_centerness"], values["loss_centerness"])
    if family == "atss" and name == "default-iou-centerness":
        head = heads_of(model)[0]
        by_hand = sum(
            head.loss_bbox(pred, wanted, weight=weight, avg_factor=1.0)
            for pred, wanted, weight, _ in list(recorder.boxes)
        ) / max(total, 1.0)
        torch.testing.assert_close(values["loss_bbox"].detach(), by_hand, rtol=1e-4, atol=1e-6)


def test_iou_centerness_does_not_follow_from_the_expression(tiny_config):
    data = CATALOG["cse-autoloss-b"].to_json()
    plain = type(CATALOG["default"]).from_json({**data, "iou_centerness": False})
    config = apply_loss(tiny_config("fcos"), plain)
    assert config.model.bbox_head.type == "IoUAwareHead"
    assert MODELS.build(config.model.bbox_head).iou_centerness is False


def test_fcos_targets_are_computed_once(tiny_config, tiny_batch, build, loss_dict, monkeypatch):
    stock = MODELS.get("FCOSHead")
    calls = []
    original = stock.get_targets
    monkeypatch.setattr(stock, "get_targets", lambda *a, **k: calls.append(1) or original(*a, **k))
    model = build(apply_loss(tiny_config("fcos"), CATALOG["cse-autoloss-b"]))
    loss_dict(model, tiny_batch())
    assert calls == [1]


def test_heads_of_users_get_a_seam_too(tiny_config, tiny_batch, build, loss_dict):
    stock = MODELS.get("FCOSHead")

    @MODELS.register_module(name="TestOwnFCOSHead")
    class OwnHead(stock):
        pass

    try:
        config = tiny_config("fcos")
        config.model.bbox_head.type = "TestOwnFCOSHead"
        model = build(apply_loss(config, CATALOG["cse-autoloss-b"]))
        assert isinstance(model.bbox_head, OwnHead)
        assert torch.isfinite(loss_dict(model, tiny_batch())["loss_cls"])
        assert iou_aware_class(OwnHead) is type(model.bbox_head)
    finally:
        MODELS.module_dict.pop("TestOwnFCOSHead")


def test_fcos_with_distances_in_strides(tiny_config, tiny_batch, build, loss_dict, definition):
    """``norm_on_bbox`` and center sampling: distances are in strides, the IoUs are the same."""
    config = tiny_config("fcos")
    config.model.bbox_head.update(norm_on_bbox=True, center_sampling=True, centerness_on_reg=True)
    wanted = definition(cls=IOU_CLS[False], bbox={"type": "IoULoss"}, space="binary_cls")
    model = build(apply_loss(config, wanted))
    recorder = Recorder(heads_of(model)[0])
    loss_dict(model, tiny_batch(boxes=4))
    pred, target, *_ = recorder.boxes[0]
    expected = bbox_overlaps(pred, target, is_aligned=True).clamp(min=1e-7)
    torch.testing.assert_close(recorder.ious[0], expected, rtol=1e-4, atol=1e-6)
    assert len(expected) > 3
