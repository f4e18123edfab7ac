"""bfloat16 layers: who computes in what, in training and in evaluation."""

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from losses.paths import configs_dir
from workers import TrialSpec, build_config, load_detector, train
from workers.data import digits, one_image_per_class

import torch  # isort: skip
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from workers.arithmetic import Bfloat16Layers

MakeSpec = Callable[..., TrialSpec]
DIGITS = configs_dir() / "detectors" / "digits"
NAMES = ("atss", "cascade_rcnn", "faster_rcnn", "fcos", "mask_rcnn", "retinanet")


def model_of(spec: TrialSpec) -> nn.Module:
    with DefaultScope.overwrite_default_scope("mmdet"):
        torch.manual_seed(0)
        return MODELS.build(build_config(spec).model)


def in_bfloat16(model: nn.Module) -> nn.Module:
    Bfloat16Layers().before_run(SimpleNamespace(model=model))
    return model


def dtypes(value: Any) -> set[torch.dtype]:
    """Of all floating-point tensors in nested containers."""
    if isinstance(value, Tensor):
        return {value.dtype} if value.is_floating_point() else set()
    parts = value.values() if isinstance(value, dict) else value
    return set().union(*map(dtypes, parts)) if isinstance(parts, list | tuple) else set()


@pytest.mark.parametrize("name", NAMES)
def test_losses_get_float32_and_layers_bfloat16(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps and an evaluation of each packaged detector, spied upon."""
    data = digits()
    few = one_image_per_class(data.splits["search_train"], tmp_path)
    seen: dict[str, set[torch.dtype]] = {"conv": set(), "losses": set(), "boxes": set()}
    before_run = Bfloat16Layers.before_run

    def spied(hook: Bfloat16Layers, runner: Any) -> None:
        before_run(hook, runner)
        for part in runner.model.modules():
            if isinstance(part, nn.Conv2d):
                part.register_forward_hook(lambda *call: seen["conv"].update(dtypes(call[2])))
            elif "Loss" in type(part).__name__:
                part.register_forward_hook(lambda *call: seen["losses"].update(dtypes(call[1:])))
        runner.model.register_forward_hook(
            lambda model, _, found: seen["boxes"].update(
                set()
                if model.training
                else dtypes([[x.pred_instances.bboxes, x.pred_instances.scores] for x in found])
            )
        )

    monkeypatch.setattr(Bfloat16Layers, "before_run", spied)
    spec = TrialSpec(
        detector=load_detector(DIGITS / f"{name}.py"),
        definition={"name": "own", "cls": None, "bbox": None},
        train=few,
        evaluate=few,
        seed=0,
        steps=2,
        batch_size=2,
        classes=data.classes,
        device="cpu",
        precision="bfloat16",
    )
    result = train(spec, tmp_path / "work")
    assert result.status == "done", result.reason
    assert result.fitness is not None
    assert seen == {"conv": {torch.bfloat16}, "losses": {torch.float32}, "boxes": {torch.float32}}


@pytest.mark.parametrize("detector", ["atss", "faster"])
def test_weights_and_gradients_stay_float32(make_spec: MakeSpec, detector: str) -> None:
    model = in_bfloat16(model_of(make_spec(detector)))
    features = model.extract_feat(torch.randn(1, 3, 64, 64))
    assert dtypes(list(features)) == {torch.float32}
    head = model.rpn_head if detector == "faster" else model.bbox_head
    sum(level.sum() for outputs in head(features) for level in outputs).backward()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    gradients = [p.grad.dtype for p in model.parameters() if p.grad is not None]
    assert set(gradients) == {torch.float32}
    assert len(gradients) > 20


def test_outputs_are_those_of_float32_but_for_rounding(make_spec: MakeSpec) -> None:
    model = model_of(make_spec("atss")).eval()
    image = torch.randn(2, 3, 64, 64)
    exact = model.bbox_head(model.extract_feat(image))[0][0]
    rounded = in_bfloat16(model).bbox_head(model.extract_feat(image))[0][0]
    error = float((rounded - exact).abs().max() / exact.abs().max())
    assert 0 < error < 0.03


def test_a_copy_computes_with_its_own_weights(make_spec: MakeSpec) -> None:
    """An average of weights is a copy of the model that is there when its hook begins."""
    model = in_bfloat16(model_of(make_spec("atss")).eval())
    image = torch.randn(1, 3, 64, 64)
    before = model.backbone(image)[0]
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(model.backbone(image)[0], before)
    assert not bool(other.backbone(image)[0].any())


def test_a_second_run_wraps_nothing_twice(make_spec: MakeSpec) -> None:
    model = in_bfloat16(model_of(make_spec("atss")))
    forward = model.backbone.forward
    assert in_bfloat16(model).backbone.forward == forward


def test_the_config_says_so_and_a_float32_one_does_not(make_spec: MakeSpec) -> None:
    plain, half = build_config(make_spec()), build_config(make_spec(precision="bfloat16"))
    assert half.custom_hooks[0] == {"type": "Bfloat16Layers"}
    assert "workers.arithmetic" in half.custom_imports.imports
    assert "custom_hooks" not in plain
    assert "workers.arithmetic" not in plain.custom_imports.imports
    again = build_config(make_spec(half.pretty_text, precision="bfloat16"))
    assert again.custom_hooks == half.custom_hooks
    assert again.custom_imports == half.custom_imports


def test_it_repeats_bit_for_bit_and_differs_from_float32(make_spec: MakeSpec) -> None:
    first, second = (train(make_spec(precision="bfloat16", steps=3)) for _ in range(2))
    other = train(make_spec(steps=3))
    assert first.curves == second.curves
    assert first.curves != other.curves
    assert first.curves["loss"][0] == pytest.approx(other.curves["loss"][0], rel=0.05)
