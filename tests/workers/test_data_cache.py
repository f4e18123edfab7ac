"""What is read once: equal pixels, equal boxes, noticed changes, limits, processes."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from workers import Split, TrialSpec, train
from workers.data import load_coco
from workers.data.decoded import DecodedImages, provide_decoded

import losses  # noqa: F401  # isort: skip  - before mmdet
import mmcv
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset

from workers.data_cache import data_kept

MakeSpec = Callable[..., TrialSpec]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOSSFORGE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LOSSFORGE_DECODED_MB", raising=False)
    return tmp_path / "home"


@pytest.fixture
def split(tiny_data: dict[str, Split], tmp_path: Path) -> Split:
    """A copy that a test may change."""
    given = tiny_data["val"]
    shutil.copytree(given.images, tmp_path / "images")
    shutil.copy(given.annotations, tmp_path / "split.json")
    return Split(str(tmp_path / "split.json"), str(tmp_path / "images"))


def paths(split: Split) -> list[str]:
    return [
        os.path.join(split.images, x["file_name"]) for x in load_coco(split.annotations)["images"]
    ]


def decoded(split: Split) -> DecodedImages | None:
    return provide_decoded(load_coco(split.annotations)["images"], split.images)


def no_decoding(*_: Any, **__: Any) -> None:
    raise AssertionError("an image was decoded")


def test_pixels_are_those_of_opencv_and_nobody_elses(home: Path, split: Split) -> None:
    odd = paths(split)[0]
    cv2.imwrite(odd, np.arange(40 * 30, dtype=np.uint8).reshape(40, 30))  # grey, of another size
    found = decoded(split)
    assert found is not None
    for path in paths(split):
        image = found.get(path)
        assert image is not None
        np.testing.assert_array_equal(image, cv2.imread(path))
    image = found.get(odd)
    assert image is not None
    assert image.shape == (40, 30, 3)
    image[:] = 0
    np.testing.assert_array_equal(found.get(odd), cv2.imread(odd))
    assert found.get(str(home / "other.png")) is None


def test_they_are_decoded_once_and_again_when_a_file_changes(
    home: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = decoded(split)
    assert before is not None
    with monkeypatch.context() as patch:
        patch.setattr(mmcv, "imfrombytes", no_decoding)
        assert decoded(split) is not None
    path = paths(split)[1]
    cv2.imwrite(path, 255 - cv2.imread(path))
    after = decoded(split)
    assert after is not None
    np.testing.assert_array_equal(after.get(path), cv2.imread(path))
    assert not np.array_equal(before.get(path), after.get(path))


def test_of_many_that_want_them_at_once_one_decodes(
    home: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    decode = mmcv.imfrombytes

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return decode(*args, **kwargs)

    monkeypatch.setattr(mmcv, "imfrombytes", counted)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: decoded(split), range(8)))
    assert all(each is not None for each in found)
    assert len(calls) == len(paths(split))


def test_large_data_is_read_as_ever(
    home: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = load_coco(split.annotations)["images"]
    for limit, kept in (("0", False), ("1", True)):
        monkeypatch.setenv("LOSSFORGE_DECODED_MB", limit)
        assert (provide_decoded(images, split.images) is not None) is kept
    monkeypatch.setattr(mmcv, "imfrombytes", no_decoding)
    large = [{**image, "width": 10_000} for image in images]  # 6 x 1.9 MB
    assert provide_decoded(large, split.images) is None


def test_what_cannot_be_read_or_written_is_no_error(home: Path, split: Split) -> None:
    Path(paths(split)[0]).write_bytes(b"no image")
    assert decoded(split) is None
    os.unlink(paths(split)[0])
    assert decoded(split) is None


def test_a_home_that_cannot_be_written_is_no_error(
    tmp_path: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOSSFORGE_HOME", str(tmp_path / "file"))
    assert decoded(split) is None


@pytest.mark.parametrize("name", ["pixels.npy", "index.json"])
@pytest.mark.parametrize("content", [b"", b"torn"])
def test_what_a_crash_has_torn_is_decoded_anew(
    home: Path, split: Split, name: str, content: bytes
) -> None:
    whole = decoded(split)
    assert whole is not None
    (kept,) = (path for path in (home / "decoded").iterdir() if path.is_dir())
    (kept / name).write_bytes(content)
    assert decoded(split) is None  # read as ever
    again = decoded(split)
    assert again is not None
    assert again.places == whole.places


def test_what_nobody_uses_is_removed(home: Path, split: Split) -> None:
    decoded(split)
    (old,) = [each for each in (home / "decoded").iterdir() if each.is_dir()]
    os.utime(old, (0, 0))
    path = paths(split)[0]
    cv2.imwrite(path, 255 - cv2.imread(path))
    decoded(split)
    (left,) = [each for each in (home / "decoded").iterdir() if each.is_dir()]
    assert left != old


def test_mmdet_loads_the_same_with_and_without(
    home: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = paths(split)[2]
    loaders = [LoadImageFromFile(), LoadImageFromFile(to_float32=True)]
    expected = [loader({"img_path": path}) for loader in loaders]
    grey = LoadImageFromFile(color_type="grayscale")({"img_path": path})
    with data_kept([split]):
        assert LoadImageFromFile(color_type="grayscale")({"img_path": path})["img"].ndim == 2
        with monkeypatch.context() as patch:
            patch.setattr(mmcv, "imfrombytes", no_decoding)
            found = [loader({"img_path": path}) for loader in loaders]
    assert grey["img"].ndim == 2
    for before, after in zip(expected, found, strict=True):
        assert before.keys() == after.keys()
        assert before["img"].dtype == after["img"].dtype
        np.testing.assert_array_equal(before["img"], after["img"])
        assert before["img_shape"] == after["img_shape"] == after["ori_shape"]
    assert LoadImageFromFile.transform.__module__ == "mmcv.transforms.loading"


class Marking(CocoDataset):
    """Changes what it has read."""

    def load_data_list(self) -> list[dict]:
        found = super().load_data_list()
        return [{**info, "instances": info["instances"][:1]} for info in found]

    def parse_data_info(self, raw_data_info: dict) -> Any:
        for annotation in raw_data_info["raw_ann_info"]:
            annotation["ignore"] = True
        return super().parse_data_info(raw_data_info)


def test_annotations_are_parsed_once_until_they_change(
    home: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "ann_file": split.annotations,
        "data_prefix": {"img": split.images},
        "metainfo": {"classes": ("square", "bar", "cross")},
        "pipeline": [],
    }
    plain = CocoDataset(**settings)
    boxes = sum(len(plain[index]["instances"]) for index in range(len(plain)))
    assert boxes > 0
    with data_kept([split]):
        Marking(**settings)
        with monkeypatch.context() as patch:
            patch.setattr("pycocotools.coco.json.load", no_decoding)
            again = CocoDataset(**settings)
        assert [again[index] for index in range(len(again))] == [
            plain[index] for index in range(len(plain))
        ]
        content = json.loads(Path(split.annotations).read_text())
        content["annotations"] = content["annotations"][:1]
        Path(split.annotations).write_text(json.dumps(content))
        changed = CocoDataset(**settings)
        assert sum(len(changed[index]["instances"]) for index in range(len(changed))) == 1


def test_crowds_stay_in_training_after_they_were_ignored_in_an_evaluation(
    home: Path, make_spec: MakeSpec, tmp_path: Path, tiny_data: dict[str, Split]
) -> None:
    """One split for both, twice in one process: the metric marks what the data set must not see."""
    content = json.loads(Path(tiny_data["train"].annotations).read_text())
    for annotation in content["annotations"][::3]:
        annotation["iscrowd"] = 1
        annotation["segmentation"] = {"size": [64, 64], "counts": [4096]}
    path = tmp_path / "crowds.json"
    path.write_text(json.dumps(content))
    both = Split(str(path), tiny_data["train"].images)
    spec = make_spec(train=both, evaluate=both, steps=4)
    first, second = train(spec), train(spec)
    assert first.status == "done", first.reason
    assert first.curves == second.curves
    assert (first.fitness, first.metrics) == (second.fitness, second.metrics)


def test_a_trial_is_the_same_with_and_without(
    home: Path, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(steps=4)
    kept = train(spec)
    assert len(list((home / "decoded").glob("*/pixels.npy"))) == 2
    monkeypatch.setattr("workers.training.data_kept", lambda _: contextlib.nullcontext())
    read = train(replace(spec))
    assert kept.status == "done", kept.reason
    assert (kept.curves, kept.fitness, kept.metrics) == (read.curves, read.fitness, read.metrics)
