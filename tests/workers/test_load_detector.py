"""Reading a user's own config: text style, lazy style, bases, and files that are no detectors."""

import math
from pathlib import Path

import pytest

from workers import DetectorError, load_detector
from workers.config_text import UnwritableError, config_text
from workers.detector import parse_detector


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_bases_and_variables_are_resolved(tmp_path: Path) -> None:
    write(tmp_path / "base.py", "model = dict(type='ATSS', x=dict(a=1, b=2))\nsize = (96, 96)\n")
    child = write(
        tmp_path / "child.py",
        "_base_ = './base.py'\nmodel = dict(x=dict(b=3))\nscale = {{_base_.size}}\n",
    )
    text = load_detector(child)
    (tmp_path / "base.py").unlink()
    config = parse_detector(text)
    assert config.model == {"type": "ATSS", "x": {"a": 1, "b": 3}}
    assert config.scale == (96, 96)


@pytest.mark.parametrize(
    "name",
    [
        "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
        "atss/atss_r50_fpn_1x_coco.py",
        "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py",
        "cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py",
        "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
        "retinanet/retinanet_r50_fpn_1x_coco.py",
    ],
)
def test_mmdets_own_configs_come_back_the_same(name: str) -> None:
    import losses  # noqa: F401, I001
    import mmdet
    from mmengine.config import Config

    file = Path(mmdet.__file__).parent / ".mim" / "configs" / name
    text = load_detector(file)
    assert parse_detector(text).to_dict() == Config.fromfile(file).to_dict()


def test_lazy_style_gives_dotted_names_that_mmengine_resolves(tmp_path: Path) -> None:
    write(
        tmp_path / "lazy_base.py",
        "from mmdet.models.detectors import ATSS\nmodel = dict(type=ATSS, x=[1, 2])\n",
    )
    file = write(
        tmp_path / "lazy.py",
        "from mmengine.config import read_base\n"
        "from torch.optim import SGD\n"
        "with read_base():\n    from .lazy_base import *\n"
        "model.update(dict(y=dict(type=SGD)))\n",
    )
    config = parse_detector(load_detector(file))
    assert config.model.type.endswith(".ATSS")
    assert config.model.x == [1, 2]
    from mmengine.registry import OPTIMIZERS

    assert OPTIMIZERS.get(config.model.y.type).__name__ == "SGD"
    assert "read_base" not in config


def test_own_modules_are_not_imported_when_a_config_is_read(tmp_path: Path) -> None:
    file = write(
        tmp_path / "own.py",
        "custom_imports = dict(imports=['no_such_module'])\nmodel = dict(type='ATSS')\n",
    )
    text = load_detector(file)
    with pytest.raises(DetectorError, match="no_such_module"):
        parse_detector(text)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("model = dict(", "not a config"),
        ("x = 1\n", "is not a detector"),
        ("model = dict(depth=50)\n", "is not a detector"),
        ("_base_ = 'gone.py'\n", "gone.py"),
        ("import os\nmodel = dict(type='ATSS', x=object())\n", "not a config|model.x is a object"),
    ],
)
def test_files_that_are_no_detectors_are_named(tmp_path: Path, content: str, words: str) -> None:
    file = write(tmp_path / "mine.py", content)
    with pytest.raises(DetectorError, match=words) as caught:
        load_detector(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match="no such file") as caught:
        load_detector(tmp_path / "gone.py")
    assert str(tmp_path / "gone.py") in str(caught.value)


def test_text_brings_back_every_kind_of_value() -> None:
    values = {
        "a": {
            "none": None,
            "flags": [True, False],
            "numbers": (1, -2.5, 1e-300, 0.1 + 0.2),
            "far": (math.inf, -math.inf),
            "text": "quote ' \" newline \n backslash \\ {{ braces }} ünïcode",
            "one": (1,),
            "empty": [(), [], {}, ""],
            "keys": {1: "a", "not an identifier": "b", "class": "c"},
            "set": {3, 1, 2},
            "long": [{"type": "X" * 20, "values": list(range(30))} for _ in range(3)],
        }
    }
    config = parse_detector(config_text(values) + "model = dict(type='ATSS')\n")
    assert config.to_dict()["a"] == values["a"]
    nan = parse_detector("model = dict(type='x')\n" + config_text({"n": [math.nan]})).n[0]
    assert math.isnan(nan)


def test_what_text_cannot_carry_is_refused() -> None:
    with pytest.raises(UnwritableError, match=r"model\.hook"):
        config_text({"model": {"hook": lambda: None}})
    with pytest.raises(UnwritableError):
        config_text({"not an identifier": 1})
