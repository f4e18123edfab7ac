"""Trials of tiny detectors, and workers that run them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tiny_detectors import CLASSES, DETECTORS, write_split

from workers import Split, TrialSpec, TrialWorker

OWN_LOSSES = {"name": "own", "cls": None, "bbox": None, "iou_centerness": False}


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Split]:
    """Splits ``train`` (10 images) and ``val`` (6)."""
    folder = tmp_path_factory.mktemp("tiny-coco")
    return {
        "train": write_split(folder / "train", 10, seed=1),
        "val": write_split(folder / "val", 6, seed=2),
    }


@pytest.fixture(scope="session")
def make_spec(tiny_data: dict[str, Split]) -> Callable[..., TrialSpec]:
    """A spec of a few steps; keyword arguments replace its fields, `detector` may be a name."""

    def make(detector: str = "atss", **changes: Any) -> TrialSpec:
        fields: dict[str, Any] = {
            "detector": DETECTORS.get(detector, detector),
            "definition": OWN_LOSSES,
            "train": tiny_data["train"],
            "evaluate": tiny_data["val"],
            "seed": 1,
            "steps": 6,
            "batch_size": 2,
            "classes": CLASSES,
            "device": "cpu",
        }
        return TrialSpec(**{**fields, **changes})

    return make


@pytest.fixture(scope="module")
def worker() -> Iterator[TrialWorker]:
    """One worker for the tests of a module."""
    with TrialWorker() as worker:
        yield worker
