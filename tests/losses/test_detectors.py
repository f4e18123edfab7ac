"""Every family trains with expression losses, and with stock losses exactly as stock mmdet."""

import copy

import pytest
import torch
from mmengine.config import Config

from losses import CATALOG, LossDefinition, apply_loss

TWO_STAGE = ("faster", "cascade", "mask")
DENSE = ("retinanet", "fcos", "atss")
FAMILIES = (*TWO_STAGE, *DENSE)


def searched(family):
    """CSE-AutoLoss-A or -B, whichever fits."""
    if family == "retinanet":
        data = CATALOG["cse-autoloss-b"].to_json()
        return LossDefinition.from_json({**data, "iou_centerness": False})
    return CATALOG["cse-autoloss-a" if family in TWO_STAGE else "cse-autoloss-b"]


def heads_of(model):
    owner = model.roi_head if hasattr(model, "roi_head") else model
    return list(owner.bbox_head) if hasattr(owner.bbox_head, "__len__") else [owner.bbox_head]


def total(values):
    return sum(value for name, value in values.items() if "loss" in name)


@pytest.mark.parametrize("family", FAMILIES)
def test_expression_losses_train(family, tiny_config, tiny_batch, build, loss_dict):
    model = build(apply_loss(tiny_config(family), searched(family)))
    loss = total(loss_dict(model, tiny_batch()))
    assert torch.isfinite(loss)
    loss.backward()
    for parameter in model.parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()
    for head in heads_of(model):
        assert all(p.grad is not None and p.grad.any() for p in head.parameters() if p.dim() > 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_expression_losses_predict(family, tiny_config, tiny_batch, build):
    model = build(apply_loss(tiny_config(family), searched(family))).eval()
    batch = tiny_batch()
    with torch.no_grad():
        found = model.predict(batch["inputs"], batch["data_samples"])
    assert all(torch.isfinite(sample.pred_instances.bboxes).all() for sample in found)


@pytest.mark.parametrize("boxes", [0, 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_batches_with_few_or_no_objects(family, boxes, tiny_config, tiny_batch, build, loss_dict):
    model = build(apply_loss(tiny_config(family), searched(family)))
    loss = total(loss_dict(model, tiny_batch(images=1, boxes=boxes)))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def two_steps(model, batch, loss_dict):
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    history = []
    for _ in range(2):
        values = loss_dict(model, batch)
        optimizer.zero_grad()
        total(values).backward()
        optimizer.step()
        history.append({name: value.detach().clone() for name, value in values.items()})
    return history


def assert_same_history(first, second):
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("family", FAMILIES)
def test_the_default_definition_trains_as_stock_mmdet(
    family, tiny_config, tiny_batch, build, loss_dict
):
    stock = build(tiny_config(family))
    applied = build(apply_loss(tiny_config(family), CATALOG["default"]))
    assert [type(h) for h in heads_of(applied)] == [type(h) for h in heads_of(stock)]
    batch = tiny_batch()
    assert_same_history(two_steps(stock, batch, loss_dict), two_steps(applied, batch, loss_dict))


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_losses_keep_the_stock_head(family, tiny_config, tiny_batch, build, loss_dict):
    name = "ce-giou" if family in TWO_STAGE else "focal-giou"
    applied = apply_loss(tiny_config(family), CATALOG[name])
    by_hand = tiny_config(family)
    owner = by_hand.model.get("roi_head", by_hand.model)
    hands = owner.bbox_head if isinstance(owner.bbox_head, list) else [owner.bbox_head]
    for head in hands:
        head.loss_bbox = {"type": "GIoULoss", "loss_weight": 10.0 if family in TWO_STAGE else 1.0}
        if family != "fcos":
            head.reg_decoded_bbox = True
    assert "IoUAwareHead" not in applied.pretty_text
    batch = tiny_batch()
    first = two_steps(build(applied), batch, loss_dict)
    assert_same_history(first, two_steps(build(by_hand), batch, loss_dict))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_iou_aware_head_changes_no_stock_loss(family, tiny_config, tiny_batch, build, loss_dict):
    wrapped = tiny_config(family)
    owner = wrapped.model.get("roi_head", wrapped.model)
    for head in owner.bbox_head if isinstance(owner.bbox_head, list) else [owner.bbox_head]:
        head["head"], head["type"] = head["type"], "IoUAwareHead"
    batch = tiny_batch()
    first = two_steps(build(wrapped), batch, loss_dict)
    assert_same_history(first, two_steps(build(tiny_config(family)), batch, loss_dict))


@pytest.mark.parametrize("family", FAMILIES)
def test_expression_twin_trains_as_the_stock_loss(
    family, tiny_config, tiny_batch, build, loss_dict
):
    """Cross-entropy and focal loss written as expressions, with the box loss untouched."""
    name = "ce-expression" if family in TWO_STAGE else "focal-expression"
    batch = tiny_batch()
    stock = two_steps(build(tiny_config(family)), batch, loss_dict)
    twin = two_steps(build(apply_loss(tiny_config(family), CATALOG[name])), batch, loss_dict)
    for one, other in zip(stock, twin, strict=True):
        for key in one:
            torch.testing.assert_close(one[key], other[key], rtol=1e-4, atol=1e-5)


def test_a_config_goes_through_text_and_still_trains(tiny_config, tiny_batch, build, loss_dict):
    applied = apply_loss(tiny_config("atss"), searched("atss"))
    again = Config.fromstring(applied.pretty_text, ".py")
    batch = tiny_batch()
    first = two_steps(build(applied), batch, loss_dict)
    assert_same_history(first, two_steps(build(again), batch, loss_dict))


@pytest.mark.parametrize("family", ["faster", "atss"])
def test_mixed_precision(family, tiny_config, tiny_batch, build, loss_dict):
    model = build(apply_loss(tiny_config(family), searched(family)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = loss_dict(model, tiny_batch())
    for name in ("loss_cls", "loss_bbox"):
        assert values[name].dtype == torch.float32
    total(values).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_copied_model_is_independent(tiny_config, tiny_batch, build, loss_dict):
    """Averaging of weights copies the model; the IoUs lent in one must not show in the other."""
    model = build(apply_loss(tiny_config("atss"), searched("atss")))
    twin = copy.deepcopy(model)
    assert type(twin.bbox_head) is type(model.bbox_head)
    assert twin.bbox_head.loss_cls is not model.bbox_head.loss_cls
    batch = tiny_batch()
    first, second = loss_dict(model, batch), loss_dict(twin, batch)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert model.state_dict().keys() == build(tiny_config("atss")).state_dict().keys()
