"""`build_config` and what it is made of: data, schedule, heads, imports."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from workers import TrialSpec, build_config
from workers.schedule import scale_schedule

MakeSpec = Callable[..., TrialSpec]


def test_data_comes_from_the_spec_and_pipelines_from_the_user(make_spec: MakeSpec) -> None:
    spec = make_spec(batch_size=3)
    config = build_config(spec)
    train, val = config.train_dataloader, config.val_dataloader
    assert train.dataset.type == "CocoDataset"  # the repeating wrapper is gone
    assert (train.dataset.ann_file, train.dataset.data_prefix.img) == (
        spec.train.annotations,
        spec.train.images,
    )
    assert (val.dataset.ann_file, val.dataset.data_root) == (spec.evaluate.annotations, "")
    assert config.val_evaluator.ann_file == spec.evaluate.annotations
    assert tuple(train.dataset.metainfo.classes) == spec.classes
    assert (train.batch_size, val.batch_size) == (3, 1)
    assert (train.sampler.type, train.batch_sampler.type) == (
        "InfiniteSampler",
        "AspectRatioBatchSampler",
    )
    assert train.dataset.filter_cfg == {"filter_empty_gt": True, "min_size": 32}
    assert "filter_cfg" not in val.dataset
    assert val.dataset.test_mode is True
    assert [step.type for step in train.dataset.pipeline][-2:] == ["RandomFlip", "PackDetInputs"]
    assert (train.num_workers, train.persistent_workers) == (0, False)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize(("device", "processes"), [("cpu", 0), ("auto", 2), ("cuda", 2)])
def test_loading_processes_follow_from_the_spec_and_not_from_this_machine(
    make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, device: str, processes: int, gpu: bool
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    config = build_config(make_spec(device=device))
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        assert loader.num_workers == processes
        assert loader.persistent_workers == (processes > 0)


def test_images_without_objects_are_trained_without_and_evaluated_with(
    make_spec: MakeSpec,
) -> None:
    import losses  # noqa: F401, I001
    from mmdet.registry import DATASETS
    from mmengine.registry import DefaultScope

    config = build_config(make_spec())
    with DefaultScope.overwrite_default_scope("mmdet"):
        assert len(DATASETS.build(config.train_dataloader.dataset)) == 9
        assert len(DATASETS.build(config.val_dataloader.dataset)) == 6


@pytest.mark.parametrize("detector", ["atss", "faster"])
def test_heads_have_the_number_of_classes(make_spec: MakeSpec, detector: str) -> None:
    model = build_config(make_spec(detector)).model
    head = model.roi_head.bbox_head if detector == "faster" else model.bbox_head
    assert head.num_classes == 3


def test_budget_seed_and_bookkeeping(make_spec: MakeSpec) -> None:
    config = build_config(make_spec(steps=40, seed=5))
    assert config.train_cfg == {
        "type": "IterBasedTrainLoop",
        "max_iters": 40,
        "val_begin": 40,
        "val_interval": 40,
    }
    assert config.randomness == {"seed": 5, "deterministic": False}
    assert config.default_hooks.checkpoint is None
    assert "visualization" not in config.default_hooks
    assert config.visualizer.vis_backends == []
    assert config.custom_imports.imports[:2] == ["losses", "workers.metric"]


def test_own_imports_follow_ours(make_spec: MakeSpec) -> None:
    spec = make_spec()
    text = spec.detector + "\ncustom_imports = dict(imports=['json'], allow_failed_imports=False)\n"
    assert build_config(replace(spec, detector=text)).custom_imports.imports == [
        "losses",
        "workers.metric",
        "json",
    ]


def test_other_data_set_types_become_coco(make_spec: MakeSpec) -> None:
    spec = make_spec()
    text = spec.detector.replace('type="CocoDataset"', 'type="VOCDataset"')
    assert build_config(replace(spec, detector=text)).train_dataloader.dataset.type == "CocoDataset"


def lengths(*items: dict[str, Any], steps: int, **train_cfg: int) -> list[dict[str, Any]]:
    scaled = scale_schedule(list(items), train_cfg, steps)
    return [{k: v for k, v in item.items() if k != "by_epoch"} for item in scaled or []]


def test_a_schedule_in_epochs_counts_steps() -> None:
    scaled = lengths(
        {"type": "LinearLR", "by_epoch": False, "begin": 0, "end": 500},
        {"type": "MultiStepLR", "begin": 0, "end": 12, "milestones": [8, 11]},
        steps=600,
        max_epochs=12,
    )
    assert scaled == [
        {"type": "LinearLR", "begin": 0, "end": 60},
        {"type": "MultiStepLR", "begin": 0, "end": 600, "milestones": [400, 550]},
    ]


def test_a_schedule_in_steps_keeps_its_own_length_and_shrinks_with_the_budget() -> None:
    own = (
        {"type": "LinearLR", "by_epoch": False, "begin": 0, "end": 50},
        {"type": "CosineAnnealingLR", "by_epoch": False, "begin": 50, "end": 600, "T_max": 550},
    )
    assert lengths(*own, steps=600, max_iters=600) == [
        {"type": "LinearLR", "begin": 0, "end": 50},
        {"type": "CosineAnnealingLR", "begin": 50, "end": 600, "T_max": 550},
    ]
    assert lengths(*own, steps=200, max_iters=600) == [
        {"type": "LinearLR", "begin": 0, "end": 20},
        {"type": "CosineAnnealingLR", "begin": 20, "end": 200, "T_max": 180},
    ]
    assert lengths(*own, steps=6, max_iters=600) == [
        {"type": "CosineAnnealingLR", "begin": 0, "end": 6, "T_max": 6},
    ]


def test_an_exponential_decay_keeps_its_total() -> None:
    (scaled,) = lengths({"type": "ExponentialLR", "gamma": 0.9}, steps=120, max_epochs=12)
    assert scaled["gamma"] ** 120 == pytest.approx(0.9**12)


def test_schedules_that_cannot_act_are_dropped() -> None:
    plateau = {"type": "ReduceOnPlateauLR", "monitor": "loss"}
    assert scale_schedule([plateau], {"max_epochs": 12}, 100) is None
    never = {"type": "StepLR", "step_size": 3}  # in epochs, in a training without epochs
    assert scale_schedule(never, {"max_iters": 12}, 100) is None
    assert scale_schedule(None, {}, 100) is None


def test_every_optimiser_has_its_own_schedule() -> None:
    scaled = scale_schedule(
        {"a": {"type": "StepLR", "step_size": 4}, "b": None}, {"max_epochs": 12}, 120
    )
    assert scaled == {"a": [{"type": "StepLR", "step_size": 40, "by_epoch": False}], "b": None}


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 30])
def test_any_budget_gives_a_schedule_that_mmengine_accepts(steps: int) -> None:
    import torch
    from mmengine.registry import PARAM_SCHEDULERS

    own = [
        {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "begin": 0, "end": 50},
        {"type": "MultiStepLR", "begin": 0, "end": 12, "milestones": [8, 11]},
        {"type": "CosineAnnealingLR", "begin": 6, "end": 12, "T_max": 6, "eta_min": 0.0},
        {"type": "PolyLR", "begin": 9, "end": 12},
    ]
    for item in scale_schedule(own, {"max_epochs": 12}, steps):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = PARAM_SCHEDULERS.build(item, default_args={"optimizer": optimizer})
        for _ in range(steps):
            optimizer.step()
            scheduler.step()
        assert 0.0 <= optimizer.param_groups[0]["lr"] <= 1.0
