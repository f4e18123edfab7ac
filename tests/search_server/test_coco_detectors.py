"""The packaged detectors for COCO in `train` and in job specs: whose data they take."""

import argparse
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from losses import CATALOG, configs_dir
from search_server.errors import JobError, SpecError
from search_server.full_training import Training, full_config
from search_server.jobs import prepare_job
from search_server.loss_choice import choose_loss, detector_path
from search_server.spec import parse_spec
from workers.data import digits

TABLES = Path(__file__).parents[2] / "docs" / "reproduce.md"
SPECS = ("cse_autoloss_one_stage", "cse_autoloss_two_stage", "pap_retinanet", "pap_faster_rcnn")


def coco_folder(root: Path) -> None:
    """The digits where a config for COCO looks for its data."""
    splits = digits().splits
    (root / "data/coco/annotations").mkdir(parents=True)
    for given, name in (("search_val", "train2017"), ("confirm", "val2017")):
        file = root / f"data/coco/annotations/instances_{name}.json"
        file.symlink_to(splits[given].annotations)
        (root / "data/coco" / name).symlink_to(splits[given].images)


def test_a_detector_for_coco_trains_on_the_data_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coco_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    config = full_config(Training("coco/faster_rcnn_r50", CATALOG["cse-autoloss-a"]))
    assert config.train_dataloader.dataset.ann_file == "annotations/instances_train2017.json"
    assert config.train_dataloader.dataset.data_root == "data/coco/"
    assert config.train_cfg.max_epochs == 12
    head = config.model.roi_head.bbox_head
    assert (head.num_classes, head.loss_cls.type) == (80, "SoftmaxExpressionLoss")


def test_without_its_data_it_says_where_they_should_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JobError, match=r"instances_train2017\.json.*--data"):
        full_config(Training("coco/faster_rcnn_r50", CATALOG["default"]))
    coco_folder(tmp_path)
    (tmp_path / "data/coco/annotations/instances_val2017.json").unlink()
    with pytest.raises(JobError, match=r"instances_val2017\.json.*val_dataloader"):
        full_config(Training("coco/faster_rcnn_r50", CATALOG["default"]))


@pytest.mark.parametrize("data", ["digits", "data/coco"])
def test_other_data_can_be_given(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coco_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    config = full_config(Training("coco/fcos_r50", CATALOG["cse-autoloss-b"], data, steps=7))
    assert Path(config.train_dataloader.dataset.ann_file).is_absolute()
    assert config.model.bbox_head.num_classes == 10
    assert config.train_cfg.max_iters == 7


def test_detectors_for_the_digits_still_come_with_them() -> None:
    config = full_config(Training("digits/atss", CATALOG["default"], steps=3))
    assert config.train_dataloader.dataset.ann_file == digits().splits["search_train"].annotations


def test_a_wrong_name_lists_the_right_ones() -> None:
    with pytest.raises(JobError) as caught:
        detector_path("coco/yolo")
    named = str(caught.value).partition("one of ")[2].split(", ")
    assert {"digits/atss", "coco/atss_r50", "coco/retinanet_r50_512_pap"} <= set(named)
    assert not [name for name in named if "/_" in name]


def test_a_search_on_coco_must_name_its_splits() -> None:
    spec: dict[str, Any] = {
        "name": "x",
        "detector": "coco/faster_rcnn_r50",
        "branches": {"bbox": {"space": "box"}},
    }
    with pytest.raises(SpecError, match="lossforge data split") as caught:
        prepare_job(parse_spec(yaml.safe_dump(spec)))
    assert caught.value.field == "data"
    job = prepare_job(parse_spec(yaml.safe_dump({**spec, "data": "digits"})))
    assert "data/coco/" in job.detector


@pytest.mark.parametrize("name", SPECS)
def test_the_papers_searches_fit_their_detectors(name: str) -> None:
    text = (configs_dir() / "search" / f"{name}.yaml").read_text()
    spec = yaml.safe_load(text)
    assert spec["detector"].startswith("coco/")
    assert {"search_train", "search_val", "confirm"} <= set(spec["data"])
    assert "lossforge data split" in text
    job = prepare_job(parse_spec(yaml.safe_dump({**spec, "data": "digits"})))
    assert job.spec.detector == spec["detector"]


@pytest.fixture(scope="module")
def commands() -> list[argparse.Namespace]:
    """The `lossforge train` commands of the tables in the docs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("detector")
    parser.add_argument("--loss")
    parser.add_argument("--loss-bbox")
    parser.add_argument("--cfg-options", action="append", default=[])
    parser.add_argument("--gpus", type=int, required=True)
    found = re.findall(r"`lossforge train ([^`]+)`", TABLES.read_text())
    return [parser.parse_args(shlex.split(text)) for text in found]


def test_the_commands_of_the_tables_can_be_given(
    commands: list[argparse.Namespace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coco_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    for each in commands:
        definition = choose_loss(each.detector, each.loss, None, each.loss_bbox)
        options = tuple(each.cfg_options)
        config = full_config(Training(each.detector, definition, options=options))
        assert config.auto_scale_lr.base_batch_size == (
            each.gpus * config.train_dataloader.batch_size
        )
    detectors = {each.detector for each in commands}
    packaged = (configs_dir() / "detectors" / "coco").glob("[!_]*.py")
    assert detectors == {f"coco/{file.stem}" for file in packaged}


def test_the_tables_name_every_published_loss(commands: list[argparse.Namespace]) -> None:
    named = {(re.split(r"_r\d", each.detector)[0], each.loss) for each in commands}
    wanted = {("coco/retinanet", n) for n in ("focal-l1", "focal-giou", "ap-l1", "alrp")}
    wanted |= {("coco/faster_rcnn", n) for n in ("ce-l1", "ce-giou", "ce-iou", "cse-autoloss-a")}
    wanted |= {("coco/faster_rcnn", n) for n in ("alrp-faster-rcnn", "pap-faster-rcnn")}
    wanted |= {("coco/retinanet", "pap-retinanet")}
    wanted |= {(f"coco/{n}", "cse-autoloss-a") for n in ("cascade_rcnn", "mask_rcnn")}
    wanted |= {(f"coco/{n}", "cse-autoloss-b") for n in ("fcos", "atss")}
    assert wanted <= named
