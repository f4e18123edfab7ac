"""The six small detectors: each trains on the digits, and none sees a mirrored one."""

from pathlib import Path

import pytest
from mmengine.config import Config

from losses.paths import configs_dir
from workers import TrialSpec, load_detector, train
from workers.data import digits, one_image_per_class

FOLDER = configs_dir() / "detectors" / "digits"
DETECTORS = ("atss", "cascade_rcnn", "faster_rcnn", "fcos", "mask_rcnn", "retinanet")
OWN_LOSSES = {"name": "own", "cls": None, "bbox": None, "iou_centerness": False}


def test_there_are_six() -> None:
    assert tuple(sorted(path.stem for path in FOLDER.glob("[!_]*.py"))) == DETECTORS


@pytest.mark.parametrize("name", DETECTORS)
def test_settings_suit_digits(name: str) -> None:
    config = Config.fromfile(FOLDER / f"{name}.py")
    loaders = (config.train_dataloader, config.val_dataloader, config.test_dataloader)
    for loader in loaders:
        assert loader.num_workers == 0
        assert tuple(loader.dataset.metainfo.classes) == digits().classes
        assert "RandomFlip" not in [step.type for step in loader.dataset.pipeline]
    assert config.train_cfg.max_iters == 600
    assert config.model.backbone.base_channels == 16
    assert config.model.neck.out_channels == 32
    assert "init_cfg" not in config.model.backbone
    assert config.get("load_from") is None


@pytest.mark.parametrize("name", DETECTORS)
def test_they_train(name: str, tmp_path: Path) -> None:
    """Four steps of a tiny batch, loss falling or not: all parts fit together, nothing diverges."""
    data = digits()
    few = one_image_per_class(data.splits["search_train"], tmp_path)
    result = train(
        TrialSpec(
            detector=load_detector(FOLDER / f"{name}.py"),
            definition=OWN_LOSSES,
            train=few,
            evaluate=few,
            seed=0,
            steps=4,
            batch_size=4,
            classes=data.classes,
            device="cpu",
        ),
        tmp_path / "work",
    )
    assert result.status == "done", result.reason
    assert result.fitness is not None
    assert 0 <= result.fitness <= 1


@pytest.mark.slow
def test_a_detector_learns_digits_by_heart(tmp_path: Path) -> None:
    """One image per class, seen over and over, is found again: settings and labels are sound."""
    data = digits()
    few = one_image_per_class(data.splits["search_train"], tmp_path)
    result = train(
        TrialSpec(
            detector=load_detector(FOLDER / "faster_rcnn.py"),
            definition=OWN_LOSSES,
            train=few,
            evaluate=few,
            seed=0,
            steps=60,
            batch_size=8,
            classes=data.classes,
            device="cpu",
        ),
        tmp_path / "work",
    )
    assert result.status == "done", result.reason
    assert result.fitness is not None
    assert result.fitness > 0.3


@pytest.mark.slow
@pytest.mark.parametrize(("name", "bound"), [("atss", 0.015), ("retinanet", 0.02), ("fcos", 0.009)])
def test_dense_detectors_learn_what_they_have_not_seen(
    name: str, bound: float, tmp_path: Path
) -> None:
    """A quarter of the usual budget; about half of the AP seen, which is under 0.001 untrained."""
    data = digits()
    result = train(
        TrialSpec(
            detector=load_detector(FOLDER / f"{name}.py"),
            definition=OWN_LOSSES,
            train=data.splits["search_train"],
            evaluate=data.splits["search_val"],
            seed=0,
            steps=160,
            batch_size=8,
            classes=data.classes,
            device="cpu",
        ),
        tmp_path / "work",
    )
    assert result.status == "done", result.reason
    assert result.fitness is not None
    assert result.fitness > bound
