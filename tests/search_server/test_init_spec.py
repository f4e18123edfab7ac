"""`init`: layouts are found, classes are checked, and what it writes is a spec that loads."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from losses import configs_dir
from search_server import init_spec
from search_server.coco_layout import LayoutError, find_splits
from search_server.errors import SearchError, SpecError
from search_server.executors import local_slots
from search_server.init_searches import Search
from search_server.init_spec import init, plan_lines, write
from search_server.jobs import prepare_job
from search_server.planning import Timing
from search_server.spec import load_spec
from workers.data import DataError

DETECTORS = configs_dir() / "detectors" / "digits"


def coco(
    file: Path, images: Path, classes: tuple[str, ...] = ("cat", "dog"), number: int = 4
) -> None:
    """A small data set of noise with a box an image."""
    import cv2

    images.mkdir(parents=True, exist_ok=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    listed, boxes = [], []
    for i in range(1, number + 1):
        name = f"{file.stem}-{i}.png"
        cv2.imwrite(str(images / name), rng.integers(0, 255, (96, 96, 3), dtype=np.uint8))
        listed.append({"id": i, "file_name": name, "width": 96, "height": 96})
        label = 1 + i % len(classes)
        boxes.append(
            {"id": i, "image_id": i, "category_id": label, "bbox": [9, 9, 30, 30], "area": 900,
             "iscrowd": 0}
        )  # fmt: skip
    categories = [{"id": i, "name": name} for i, name in enumerate(classes, start=1)]
    file.write_text(json.dumps({"images": listed, "annotations": boxes, "categories": categories}))


LAYOUTS = {
    "coco": (
        "annotations/instances_train2017.json", "train2017",
        "annotations/instances_val2017.json", "val2017",
    ),
    "roboflow": ("train/_annotations.coco.json", "train", "valid/_annotations.coco.json", "valid"),
    "flat": ("train.json", "images", "val.json", "images"),
    "digits": ("search_train.json", "search_train", "search_val.json", "search_val"),
    "nested": ("annotations/train.json", "images/train", "annotations/val.json", "images/val"),
}  # fmt: skip


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_layouts(tmp_path: Path, layout: str) -> None:
    train, train_images, val, val_images = (tmp_path / part for part in LAYOUTS[layout])
    coco(train, train_images)
    coco(val, val_images)
    coco(tmp_path / "annotations" / "captions_train2017.json", tmp_path / "elsewhere")
    coco(tmp_path / "annotations" / "image_info_test.json", tmp_path / "elsewhere")
    first, second = find_splits(tmp_path)
    assert (first.annotations, first.images) == (str(train), str(train_images))
    assert (second.annotations, second.images) == (str(val), str(val_images))


def test_what_is_not_clear_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="is not a folder"):
        find_splits(tmp_path / "none")
    with pytest.raises(LayoutError, match=r"no JSON file; use --train"):
        find_splits(tmp_path)
    for name in ("train_a.json", "train_b.json", "val.json"):
        coco(tmp_path / name, tmp_path / "photos")
    with pytest.raises(LayoutError, match=r"2 files may be meant: train_a.json, train_b.json"):
        find_splits(tmp_path)
    with pytest.raises(LayoutError, match=r"use --images FOLDER"):
        find_splits(tmp_path, train=tmp_path / "train_a.json")
    found = find_splits(tmp_path, train=tmp_path / "train_a.json", images=tmp_path / "photos")
    assert found[1].annotations == str(tmp_path / "val.json")
    with pytest.raises(LayoutError, match=r"no annotation file"):
        find_splits(tmp_path, train=tmp_path / "gone.json", val=tmp_path / "val.json")


@pytest.mark.parametrize("detector", sorted(p.stem for p in DETECTORS.glob("[!_]*.py")))
def test_the_text_is_a_spec(tmp_path: Path, detector: str) -> None:
    draft = init(f"digits/{detector}", timed=False)
    write(draft, tmp_path / "new" / "spec.yaml")
    spec = load_spec(tmp_path / "new" / "spec.yaml")
    assert spec == draft.spec
    two_stage = "rcnn" in detector
    assert spec.branches.cls is not None
    assert spec.branches.cls.space == ("multi_cls" if two_stage else "binary_cls")
    assert draft.text.count("#") > 10
    with pytest.raises(SearchError, match="exists and is left"):
        write(draft, tmp_path / "new" / "spec.yaml")
    assert load_spec(tmp_path / "new" / "spec.yaml") == spec


@pytest.mark.parametrize("search", list(Search))
@pytest.mark.parametrize("detector", ["retinanet", "faster_rcnn"])
def test_the_spec_of_every_search_is_a_job(tmp_path: Path, search: Search, detector: str) -> None:
    """On a user's own data; `prepare_job` puts the baseline into the detector."""
    coco(tmp_path / "train.json", tmp_path / "train", number=6)
    coco(tmp_path / "val.json", tmp_path / "val")
    draft = init(DETECTORS / f"{detector}.py", tmp_path, search=search, timed=False)
    job = prepare_job(draft.spec)
    two_stage = detector == "faster_rcnn"
    if search is Search.pap:
        assert job.problem.parameters is not None
        assert job.problem.parameters.size == (82 if two_stage else 41)
        assert draft.spec.candidates == 40 * 8 + 1  # the paper's schedule
        assert job.baseline.name == "pap-identity" + "-faster-rcnn" * two_stage
    elif search is Search.tuning:
        assert job.problem.handmade is not None
        assert set(job.problem.handmade.branches) == {"cls", "bbox"}
    else:
        assert set(job.problem.spaces) == {"cls", "bbox"}
    named = {space.name for space in job.problem.spaces.values()}
    if search is Search.autoloss_zero:
        role = "multi_cls" if two_stage else "binary_cls"
        assert named == {f"autoloss_zero_{role}", "autoloss_zero_box"}


@pytest.mark.parametrize("detector", ["fcos", "cascade_rcnn"])
def test_a_detector_that_cannot_rank_gets_no_pap_search(detector: str) -> None:
    with pytest.raises(SpecError, match=r"needs a head that can rank: .*retinanet"):
        init(f"digits/{detector}", search=Search.pap, timed=False)


def test_the_command_writes_each_search(tmp_path: Path) -> None:
    from search_server.cli import run

    for search in Search:
        file = tmp_path / f"{search}.yaml"
        words = ["init", "digits/retinanet", "--search", search, "--no-time", "-o", str(file)]
        assert run(words) == 0
        spec = load_spec(file)
        assert (spec.searcher.type == "policy") == (search is Search.pap)
        assert (spec.searcher.type == "tuning") == (search is Search.tuning)
        assert (spec.search_space is not None) == (search is Search.autoloss_zero)


@pytest.mark.parametrize(
    "folder",
    ["plain", "with space", 'quo"te', "new\nline", "# hash: {a}", "é\u2028😀", "back\\slash"],
)
def test_paths_and_classes_cannot_break_the_text(tmp_path: Path, folder: str) -> None:
    data = tmp_path / folder
    classes = ('cat"\n- x: y', "#dog\u2028")
    coco(data / "train.json", data / "train", classes)
    coco(data / "val.json", data / "val", classes)
    draft = init(DETECTORS / "atss.py", data, timed=False)
    assert draft.spec.data.search_train.annotations == str(data / "train.json")  # type: ignore[union-attr]
    read = yaml.safe_load(draft.text)
    assert read["detector"] == str((DETECTORS / "atss.py").absolute())
    assert len(read) == len(yaml.safe_load(init("digits/atss", timed=False).text))


def test_classes_that_differ_are_an_error(tmp_path: Path) -> None:
    coco(tmp_path / "train.json", tmp_path / "train")
    coco(tmp_path / "val.json", tmp_path / "val", ("cat", "cow"))
    with pytest.raises(DataError, match=r"dog.*cow|cow.*dog"):
        init("digits/atss", tmp_path, timed=False)
    coco(tmp_path / "val.json", tmp_path / "val", ("dog", "cat"))
    with pytest.raises(DataError, match="order"):
        init("digits/atss", tmp_path, timed=False)


def test_a_detector_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="detector"):
        init(tmp_path / "gone.py", timed=False)
    (tmp_path / "yolo.py").write_text(
        "model = dict(type='YOLOV3', bbox_head=dict(type='YOLOV3Head'))"
    )
    with pytest.raises(SpecError, match="YOLOV3Head"):
        init(tmp_path / "yolo.py", timed=False)


def test_the_plan_reckons_with_the_slots_of_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = {"proxy": Timing(0.1, 3.0), "confirm": Timing(0.1, 3.0)}
    monkeypatch.setattr(init_spec, "time_steps", lambda spec, source: timed)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2})
    draft = init("digits/atss")
    assert draft.plan is not None
    assert draft.plan.slots == local_slots(draft.spec.resources) == 3


@pytest.mark.slow
def test_ten_real_steps_give_the_plan(tmp_path: Path) -> None:
    coco(tmp_path / "train.json", tmp_path / "train", number=8)
    coco(tmp_path / "val.json", tmp_path / "val")
    draft = init(DETECTORS / "faster_rcnn.py", tmp_path, slots=2)
    assert draft.plan is not None
    asked = draft.spec.funnel.proxy
    assert asked.rungs
    assert [(stage.stage, stage.steps) for stage in draft.plan.stages] == [
        ("proxy", steps) for steps in (*asked.rungs, asked.steps)
    ]
    assert draft.plan.hours > 0
    lines = plan_lines(draft.plan)
    assert all(f"# {line}\n" in draft.text for line in lines)
    assert "with 2 at once" in lines[-1]
    write(draft, tmp_path / "spec.yaml")
    assert load_spec(tmp_path / "spec.yaml") == draft.spec
