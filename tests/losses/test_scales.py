"""The factors beside a loss's own numbers: `scale` of an expression, `learning_rate_scale`."""

import copy
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmdet.registry import MODELS

from losses import CATALOG, DefinitionError, LossDefinition, apply_loss
from losses.learning_rate import scale_learning_rate

DATA = {
    "name": "some",
    "cls": {
        "type": "expression",
        "space": "binary_cls",
        "expression": "Sub(Softplus(X),Mul(Q,X))",
        "loss_weight": 0.5,
        "alpha": 0.25,
    },
    "bbox": {
        "type": "expression",
        "space": "box",
        "expression": "Sub(1,Div(I,U))",
        "loss_weight": None,
    },
    "iou_centerness": False,
}
TRAINED = {
    "optim_wrapper": {
        "optimizer": {"type": "SGD", "lr": 0.02, "weight_decay": 1e-4},
        "paramwise_cfg": {"bias_lr_mult": 2.0, "custom_keys": {"backbone": {"lr_mult": 0.1}}},
    },
    "param_scheduler": [
        {"type": "LinearLR", "start_factor": 0.001, "begin": 0, "end": 500},
        {"type": "CosineAnnealingLR", "eta_min": 2e-4, "T_max": 100},
        {"type": "PolyLR", "eta_min_ratio": 0.05},
        {"type": "OneCycleLR", "eta_max": 0.1},
        {"type": "CosineAnnealingMomentum", "eta_min": 0.85},
        {"type": "CosineAnnealingParamScheduler", "param_name": "weight_decay", "eta_min": 1e-5},
    ],
}
factor = st.floats(1e-3, 1e3)


def with_scales(cls: float, bbox: float, rate: float) -> dict:
    return {
        **DATA,
        "cls": {**DATA["cls"], "scale": cls},
        "bbox": {**DATA["bbox"], "scale": bbox},
        "learning_rate_scale": rate,
    }


@given(factor, factor, factor)
def test_json_both_ways(cls: float, bbox: float, rate: float) -> None:
    definition = LossDefinition.from_json(with_scales(cls, bbox, rate))
    assert (definition.cls.scale, definition.bbox.scale) == (cls, bbox)
    assert definition.learning_rate_scale == rate
    again = LossDefinition.from_json(json.loads(json.dumps(definition.to_json())))
    assert again == definition
    assert again.key == definition.key
    own = LossDefinition.from_json(DATA)
    assert (definition.key == own.key) == (cls == bbox == rate == 1)


def test_without_a_factor_nothing_is_written() -> None:
    definition = LossDefinition.from_json(with_scales(1, 1.0, 1))
    assert definition.to_json() == DATA
    assert definition.key == LossDefinition.from_json(DATA).key


@pytest.mark.parametrize("value", [0, -1, 1e-4, 1001, math.nan, math.inf, True, "2", None])
@pytest.mark.parametrize("field", ["cls.scale", "bbox.scale", "learning_rate_scale"])
def test_factors_have_bounds(field: str, value: object) -> None:
    data = copy.deepcopy(with_scales(1, 1, 1))
    branch, _, name = field.rpartition(".")
    (data[branch] if branch else data)[name] = value
    with pytest.raises(DefinitionError) as info:
        LossDefinition.from_json(data)
    assert info.value.field == field


def test_a_stock_loss_has_no_scale() -> None:
    stock = {"type": "stock", "loss": {"type": "GIoULoss"}, "scale": 2.0}
    with pytest.raises(DefinitionError, match=r"bbox\.scale"):
        LossDefinition.from_json({"name": "stock", "bbox": stock})


@pytest.mark.parametrize("family", ["faster", "cascade", "retinanet", "fcos", "atss"])
def test_the_losses_of_a_detector_are_multiplied(family, tiny_config, tiny_batch, loss_dict, build):
    cls = "ce-expression" if family in ("faster", "cascade") else "focal-expression"
    plain = {**CATALOG["giou-expression"].to_json(), "cls": CATALOG[cls].to_json()["cls"]}
    scaled = copy.deepcopy(plain)
    scaled["cls"]["scale"], scaled["bbox"]["scale"] = 0.25, 8.0
    found = []
    for data in (plain, scaled):
        model = build(apply_loss(tiny_config(family), LossDefinition.from_json(data)))
        found.append(loss_dict(model, tiny_batch()))
    times = {"loss_cls": 0.25, "loss_bbox": 8.0}
    names = [name for name in found[0] if name.rpartition(".")[2] in times]
    assert names
    for name in names:
        one, two = (float(losses[name].detach()) for losses in found)
        assert one > 0
        assert two == pytest.approx(times[name.rpartition(".")[2]] * one, rel=1e-6)


def test_the_config_keeps_weight_and_scale_apart(tiny_config) -> None:
    applied = apply_loss(tiny_config("atss"), LossDefinition.from_json(with_scales(0.5, 3, 1)))
    head = applied.model.bbox_head
    assert (head.loss_cls.loss_weight, head.loss_cls.scale) == (0.5, 0.5)
    assert (head.loss_bbox.loss_weight, head.loss_bbox.scale) == (1.0, 3.0)
    assert "scale=3.0" in repr(MODELS.build(head.loss_bbox))
    back = apply_loss(applied, LossDefinition.from_json(DATA)).model.bbox_head
    assert "scale" not in back.loss_cls
    assert "scale" not in back.loss_bbox


@given(st.lists(factor, min_size=1, max_size=3), st.sampled_from([0.02, 8e-3, 1e-4, 3.7e-5]))
def test_learning_rates_follow_the_last_factor_only(factors: list[float], rate: float) -> None:
    config = copy.deepcopy(TRAINED)
    config["optim_wrapper"]["optimizer"]["lr"] = rate
    own = copy.deepcopy(config)
    for value in factors:
        scale_learning_rate(config, value)
    once = copy.deepcopy(own)
    scale_learning_rate(once, factors[-1])
    lr = config["optim_wrapper"]["optimizer"]["lr"]
    assert lr == pytest.approx(rate * factors[-1], rel=1e-13)
    assert lr == pytest.approx(once["optim_wrapper"]["optimizer"]["lr"], rel=1e-13)
    schedulers = config["param_scheduler"]
    assert schedulers[1]["eta_min"] == pytest.approx(2e-4 * factors[-1], rel=1e-13)
    assert schedulers[3]["eta_max"] == pytest.approx(0.1 * factors[-1], rel=1e-13)
    for place in (0, 2, 4, 5):  # what is relative to the learning rate, or is none
        assert schedulers[place] == TRAINED["param_scheduler"][place]
    assert config["optim_wrapper"]["paramwise_cfg"] == TRAINED["optim_wrapper"]["paramwise_cfg"]
    scale_learning_rate(config, 1.0)
    assert config == own


def test_applied_to_its_own_output_a_definition_scales_once(tiny_config) -> None:
    config = tiny_config("fcos")
    config.update(copy.deepcopy(TRAINED))
    slow = LossDefinition("slow", learning_rate_scale=0.5)
    applied = apply_loss(config, slow)
    assert applied.optim_wrapper.optimizer.lr == 0.01
    assert apply_loss(applied, slow).to_dict() == applied.to_dict()
    fast = LossDefinition("fast", learning_rate_scale=3.0)
    assert apply_loss(applied, fast).optim_wrapper.optimizer.lr == 0.06
    back = apply_loss(applied, LossDefinition("own"))
    assert back.to_dict() == apply_loss(config, LossDefinition("own")).to_dict()


def test_several_optimisers_are_all_scaled() -> None:
    config = {
        "optim_wrapper": {
            "constructor": "Some",
            "one": {"optimizer": {"type": "SGD", "lr": 0.1}},
            "two": {"optimizer": {"type": "AdamW", "lr": 0.001}},
        },
        "param_scheduler": {"one": [{"type": "CosineAnnealingLR", "eta_min": 0.01}], "two": []},
    }
    scale_learning_rate(config, 2.0)
    wrapper = config["optim_wrapper"]
    assert (wrapper["one"]["optimizer"]["lr"], wrapper["two"]["optimizer"]["lr"]) == (0.2, 0.002)
    assert config["param_scheduler"]["one"][0]["eta_min"] == 0.02


def test_a_config_without_a_learning_rate_cannot_be_scaled(tiny_config) -> None:
    with pytest.raises(DefinitionError, match=r"learning_rate_scale.*optim_wrapper\.optimizer\.lr"):
        apply_loss(tiny_config("atss"), LossDefinition("slow", learning_rate_scale=0.5))
    config = {"optim_wrapper": {"optimizer": {"type": "AdamW"}}}
    with pytest.raises(DefinitionError, match="learning_rate_scale"):
        scale_learning_rate(config, 2.0)
    assert config == {"optim_wrapper": {"optimizer": {"type": "AdamW"}}}
