"""`train`: what it gives, that it is pure, and that plain mmengine gives the same."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from workers import TrialResult, TrialSpec, build_config, load_detector, train
from workers.config_text import config_text
from workers.hooks import ScoreKeeper

MakeSpec = Callable[..., TrialSpec]
CSE_A = {
    "name": "a",
    "cls": {
        "type": "expression",
        "space": "multi_cls",
        "expression": "Neg(Dot(Mul(Y,Add(1,Sin(Z))),Log(Softmax(X))))",
    },
    "bbox": {"type": "stock", "loss": {"type": "GIoULoss"}},
    "iou_centerness": False,
}


def numbers(result: TrialResult) -> tuple:
    """All that must not depend on anything but the spec."""
    return result.status, result.fitness, result.metrics, result.curves


@pytest.mark.parametrize("detector", ["atss", "faster"])
def test_a_trial_trains_and_evaluates(make_spec: MakeSpec, detector: str) -> None:
    result = train(make_spec(detector, steps=5))
    assert (result.status, result.reason, result.log) == ("done", "", "")
    assert result.fitness is not None
    assert 0.0 <= result.fitness <= 1.0
    assert {"ap50", "ap75"} <= set(result.metrics)
    assert "ap_l" not in result.metrics  # no object is that large
    assert result.curves["step"] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert {"loss", "loss_cls", "loss_bbox"} <= set(result.curves)
    assert {len(curve) for curve in result.curves.values()} == {5}
    seconds = result.seconds
    assert set(seconds) == {"setup", "train", "evaluate", "total"}
    assert seconds["total"] >= seconds["setup"] + seconds["train"] + seconds["evaluate"]
    assert {"torch", "mmdet", "mmengine", "python", "device"} <= set(result.versions)
    json.dumps(result.to_json(), allow_nan=False)


def test_same_spec_same_bits_whatever_ran_before(make_spec: MakeSpec) -> None:
    a, b = make_spec(steps=4), make_spec("faster", steps=4, seed=7, definition=CSE_A)
    first, other, second = train(a), train(b), train(a)
    assert other.status == "done"
    assert numbers(first) == numbers(second)
    assert numbers(train(replace(a, seed=2))) != numbers(first)


def test_nothing_is_printed_and_nothing_is_left(
    make_spec: MakeSpec, own_home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(make_spec(steps=2))
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in (own_home / "work").iterdir()] == [".lock"]


def test_global_state_is_as_before(make_spec: MakeSpec) -> None:
    from mmengine.logging import MessageHub, MMLogger
    from mmengine.registry import DefaultScope

    MessageHub.get_instance("users own").update_info("answer", 42)
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    flags = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    environment = dict(os.environ)
    loggers, scopes = list(MMLogger._instance_dict), list(DefaultScope._instance_dict)
    train(make_spec(steps=2, threads=2))
    after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert after == before
    assert flags == (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    assert environment == dict(os.environ)
    assert MessageHub.get_current_instance().get_info("answer") == 42
    assert (list(MMLogger._instance_dict), list(DefaultScope._instance_dict)) == (loggers, scopes)


def test_plain_mmengine_gives_the_recorded_result(make_spec: MakeSpec, tmp_path: Path) -> None:
    """The config is written, read and trained by mmengine alone, in a process of its own."""
    spec = make_spec("faster", steps=30, definition=CSE_A, batch_size=4)
    recorded = train(spec)
    assert recorded.fitness  # not 0, or the comparison would say little
    config = tmp_path / "exported.py"
    config.write_text(config_text(build_config(spec).to_dict()))
    script = (
        "import sys, losses\n"
        "from mmengine.config import Config\n"
        "from mmengine.runner import Runner\n"
        "runner = Runner.from_cfg(Config.fromfile(sys.argv[1]))\n"
        "runner.train()\n"
        "print('AP', repr(float(runner.message_hub.get_scalar('val/coco/bbox_mAP').current())))\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, str(config)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    fitness = float(done.stdout.rsplit("AP ", 1)[1])
    assert fitness == pytest.approx(recorded.fitness, abs=1e-9)


def test_a_loss_that_is_nan_ends_the_trial_as_diverged(make_spec: MakeSpec) -> None:
    # Log of a negative number: NaN from the first step on.
    bbox = {"type": "expression", "space": "box", "expression": "Log(Sub(-2,Div(I,U)))"}
    result = train(make_spec(definition={**CSE_A, "cls": None, "bbox": bbox}))
    assert result.status == "diverged"
    assert result.reason == "loss_bbox is not finite at step 1"
    assert result.fitness is None
    assert result.metrics == {}
    assert result.curves == {}


def test_a_gradient_that_is_infinite_ends_the_trial_as_diverged(make_spec: MakeSpec) -> None:
    # The loss is 0 everywhere, the slope of the square root at 0 is infinite.
    zero = "Sqrt(Abs(Sub(Div(I,U),Div(I,U))))"
    bbox = {"type": "expression", "space": "box", "expression": zero}
    result = train(make_spec(definition={**CSE_A, "cls": None, "bbox": bbox}))
    assert result.status == "diverged"
    assert result.reason == "a gradient is not finite at step 1"


def test_a_training_that_explodes_keeps_the_curves_up_to_there(make_spec: MakeSpec) -> None:
    spec = make_spec(steps=40)
    result = train(replace(spec, detector=spec.detector.replace("lr=0.01", "lr=1e9")))
    assert result.status == "diverged"
    assert 1 <= len(result.curves["step"]) < 40
    assert result.curves["step"][0] == 1.0


def test_at_most_a_hundred_points_end_with_the_last_step(make_spec: MakeSpec) -> None:
    curves = train(make_spec(steps=103, batch_size=1)).curves
    assert len(curves["step"]) == 52
    assert curves["step"][-1] == 103.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("ATSSHead", "NoSuchHead"), "NoSuchHead"),
        (lambda text: text.replace("depth=18", "depth=19"), "19"),
        (lambda text: text + "\nthis is no python", "yntax"),
        (lambda text: text.replace("optim_wrapper", "optimizer_wrapper"), "optim_wrapper"),
        (lambda text: text + "\ncustom_imports = dict(imports=['no_such_mod'])", "no_such_mod"),
    ],
)
def test_a_broken_config_is_a_failed_trial_with_a_reason(
    make_spec: MakeSpec, change: Callable[[str], str], words: str
) -> None:
    result = train(make_spec(change(make_spec().detector)))
    assert result.status == "failed"
    assert words in result.reason
    assert "\n" not in result.reason
    assert "Traceback" not in result.reason
    assert words in result.log
    assert len(result.reason) <= 300
    assert result.fitness is None


def test_classes_that_do_not_match_the_data_are_refused(make_spec: MakeSpec) -> None:
    result = train(make_spec(classes=("square", "cross", "bar")))
    assert result.status == "failed"
    assert "square, bar, cross" in result.reason


def test_missing_data_is_a_failed_trial_that_names_the_file(make_spec: MakeSpec) -> None:
    spec = make_spec()
    result = train(replace(spec, train=replace(spec.train, annotations="/nowhere/at/all.json")))
    assert result.status == "failed"
    assert "/nowhere/at/all.json" in result.reason


@pytest.mark.parametrize("crowd", [False, True])
def test_a_split_without_boxes_gives_no_fitness(
    make_spec: MakeSpec, tmp_path: Path, crowd: bool
) -> None:
    spec = make_spec()
    content = json.loads(Path(spec.evaluate.annotations).read_text())
    boxes = [{**each, "iscrowd": 1} for each in content["annotations"]] if crowd else []
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps({**content, "annotations": boxes}))
    result = train(replace(spec, evaluate=replace(spec.evaluate, annotations=str(empty))))
    assert (result.status, result.fitness) == ("failed", None)
    assert f"the split {empty} has no boxes to find" in result.reason
    assert result.seconds["train"] == 0  # said before anything is trained


def test_scores_that_the_data_cannot_give_are_left_out() -> None:
    keeper = ScoreKeeper()
    keeper.after_val_epoch(
        None, {"coco/bbox_mAP": -1.0, "coco/bbox_mAP_50": 0.0, "other/margin": -0.5}
    )
    assert keeper.scores == {"coco/bbox_mAP_50": 0.0, "other/margin": -0.5}


LAZY_CLASSES = {
    "mmdet.models": "ATSS ATSSHead FPN ResNet DetDataPreprocessor FocalLoss GIoULoss "
    "CrossEntropyLoss",
    "mmdet.models.task_modules": "AnchorGenerator DeltaXYWHBBoxCoder ATSSAssigner",
    "mmdet.datasets": "AspectRatioBatchSampler CocoDataset",
    "mmdet.datasets.transforms": "LoadAnnotations PackDetInputs RandomFlip Resize",
    "mmdet.evaluation": "CocoMetric",
    "mmdet.engine.hooks": "DetVisualizationHook",
    "mmengine.dataset": "DefaultSampler RepeatDataset",
    "mmengine.hooks": "CheckpointHook DistSamplerSeedHook IterTimerHook LoggerHook "
    "ParamSchedulerHook",
    "mmengine.optim": "LinearLR MultiStepLR OptimWrapper",
    "mmengine.runner": "EpochBasedTrainLoop TestLoop ValLoop",
    "torch.optim": "SGD",
}


def test_a_lazy_style_config_trains_as_its_text_style_twin(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = make_spec(steps=4)
    lazy = spec.detector.replace('default_scope = "mmdet"', "default_scope = None")
    imports = []
    for module, names in LAZY_CLASSES.items():
        imports.append(f"from {module} import {', '.join(names.split())}\n")
        for name in names.split():
            assert f'"{name}"' in lazy
            lazy = lazy.replace(f'type="{name}"', f"type={name}")
    file = tmp_path / "lazy.py"
    file.write_text("".join(imports) + lazy)
    result = train(replace(spec, detector=load_detector(file)))
    assert result.status == "done", result.log
    assert numbers(result) == numbers(train(spec))
