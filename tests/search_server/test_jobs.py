"""Creating a job finds what does not fit before any trial; a plan counts what it will take."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from search_server.errors import SpecError
from search_server.funnel.stages import TrialKey
from search_server.jobs import create_job, open_job
from search_server.planning import Timing, plan
from search_server.problem import baseline_of, problem_of
from search_server.progress import expected_trials
from search_server.spec import JobSpec, parse_spec
from search_server.store import Store
from workers.data import DataError, digits, one_image_per_class

SPEC: dict[str, Any] = {
    "name": "fits",
    "detector": "digits/atss",
    "branches": {"cls": {"space": "binary_cls"}, "bbox": {"space": "box"}},
    "funnel": {"simulate": {}},
}
SEESAW = {"type": "stock", "loss": {"type": "SeesawLoss"}}


def spec(**changes: Any) -> JobSpec:
    return parse_spec(yaml.safe_dump({**SPEC, **changes}))


@pytest.mark.parametrize(
    ("changes", "field", "allowed"),
    [
        ({"branches": {"cls": {"space": "multi_cls"}}}, "branches.cls.space", "takes binary_cls"),
        (
            {"detector": "digits/faster_rcnn", "branches": {"cls": {"space": "binary_cls"}}},
            "branches.cls.space",
            "takes multi_cls",
        ),
        (
            {
                "detector": "digits/faster_rcnn",
                "branches": {"cls": {"space": "multi_cls", "alpha": 0.5}},
            },
            "branches.cls.alpha",
            "only sigmoid",
        ),
        ({"detector": "digits/yolo"}, "detector", "digits/atss"),
        ({"detector": "/nowhere/config.py"}, "detector", "path of an mmdet config"),
        ({"baseline": {"cls": SEESAW}}, "baseline", "FocalLoss"),
        ({"searcher": {"named": ["cse-autoloss-a"]}}, "searcher.named.0", "binary_cls"),
    ],
)
def test_what_does_not_fit_is_found_before_any_trial(
    tmp_path: Path, changes: dict[str, Any], field: str, allowed: str
) -> None:
    with Store.open(f"sqlite:///{tmp_path / 'store.db'}") as store:
        with pytest.raises(SpecError) as caught:
            create_job(store, spec(**changes), "job.yaml")
        assert (caught.value.file, caught.value.field) == ("job.yaml", field)
        assert allowed in caught.value.allowed
        assert store.jobs() == []


def test_splits_must_share_their_classes(tmp_path: Path) -> None:
    train = digits().splits["search_train"]
    other = tmp_path / "other.json"
    other.write_text('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}')
    data = {
        "search_train": {"annotations": train.annotations, "images": train.images},
        "search_val": {"annotations": str(other), "images": train.images},
    }
    with Store.open(f"sqlite:///{tmp_path / 'store.db'}") as store:
        with pytest.raises(SpecError) as caught:
            create_job(store, spec(data=data))
        assert caught.value.field == "data.search_val"


@pytest.mark.parametrize(
    ("split", "name", "size", "problem"),
    [
        ("search_train", "../outside.png", 1, "outside of the image folder"),
        ("search_val", "huge.png", 2 * 10**9 + 1, "too large to be sent"),
        ("test", "none.png", 0, "No such file"),
    ],
)
def test_what_cannot_be_sent_is_found_before_any_trial(
    tmp_path: Path, split: str, name: str, size: int, problem: str
) -> None:
    few = one_image_per_class(digits().splits["search_train"], tmp_path)
    images = tmp_path / "images"
    shutil.copytree(few.images, images)
    content = json.loads(Path(few.annotations).read_text())
    content["images"].append({"id": -1, "file_name": name, "height": 64, "width": 64})
    Path(tmp_path / "more.json").write_text(json.dumps(content))
    if size:
        with (images / name).open("wb") as file:
            file.truncate(size)  # takes no room on the disk
    good = {"annotations": few.annotations, "images": str(images)}
    data = {"search_train": good, "search_val": dict(good)}
    data[split] = {"annotations": str(tmp_path / "more.json"), "images": str(images)}
    with Store.open(f"sqlite:///{tmp_path / 'store.db'}") as store:
        with pytest.raises(SpecError) as caught:
            create_job(store, spec(data=data, resources={"send_data": True}))
        assert caught.value.field == f"data.{split}"
        assert problem in str(caught.value)
        assert "send_data" in caught.value.allowed
        assert store.jobs() == []
        create_job(store, spec(data=data))  # the nodes have it, wherever it lies


def test_a_job_is_opened_as_it_was_created(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path / 'store.db'}") as store:
        job_id = create_job(store, spec())
        job = open_job(store, job_id)
        record = store.job(job_id)
    assert job.spec == spec()
    assert len(job.classes) == 10
    assert len(record.trial_group) == 64
    assert job.simulation.images == job.splits["search_train"].images


@pytest.mark.parametrize(
    "baseline",
    [
        "default",
        "focal-giou",
        "default-iou-centerness",
        {"cls": {"type": "stock", "loss": {"type": "FocalLoss", "use_sigmoid": True}}},
    ],
)
@pytest.mark.parametrize("wanted", [False, True])
def test_iou_centerness_is_the_same_for_all(baseline: Any, wanted: bool) -> None:
    searcher = {"named": ["focal-giou", "default-iou-centerness"]}
    made = spec(iou_centerness=wanted, baseline=baseline, searcher=searcher)
    problem = problem_of(made)
    found = [baseline_of(made), problem.template, *problem.named]
    assert [each.iou_centerness for each in found] == [wanted] * 4


def test_opening_a_job_reads_no_annotations(tmp_path: Path) -> None:
    few = one_image_per_class(digits().splits["search_train"], tmp_path)
    split = {"annotations": few.annotations, "images": few.images}
    with Store.open(f"sqlite:///{tmp_path / 'store.db'}") as store:
        job_id = create_job(store, spec(data={"search_train": split, "search_val": dict(split)}))
        Path(few.annotations).unlink()
        job = open_job(store, job_id)
    definition = job.baseline.to_json()
    assert job.trial(TrialKey(0, "proxy", 0), definition).train == few
    with pytest.raises(DataError, match="cannot be read"):
        job.trial(TrialKey(1, "simulate", 0), definition)


def test_a_class_without_an_image_is_found_before_any_trial(tmp_path: Path) -> None:
    few = one_image_per_class(digits().splits["search_train"], tmp_path)
    content = json.loads(Path(few.annotations).read_text())
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] != 1]
    Path(few.annotations).write_text(json.dumps(content))
    split = {"annotations": few.annotations, "images": few.images}
    with Store.open(f"sqlite:///{tmp_path / 'store.db'}") as store:
        with pytest.raises(DataError, match="has no image"):
            create_job(store, spec(data={"search_train": split, "search_val": dict(split)}))
        assert store.jobs() == []


def test_expected_trials_count_cohorts_and_seeds() -> None:
    assert expected_trials(32, 16, 4, 2) == {"simulate": 32, "proxy": 18}
    assert expected_trials(20, 16, 6, 1) == {"simulate": 20, "proxy": 11}
    assert expected_trials(10, 5, None, 3) == {"simulate": 0, "proxy": 33}


def test_a_plan_shares_the_hours_among_the_slots() -> None:
    timings = {"simulate": Timing(0.05, 0.2), "proxy": Timing(0.1, 3.0)}
    alone, shared = plan(spec(), timings, 1), plan(spec(), timings, 2)
    assert [stage.trials for stage in alone.stages] == [32, 9]
    assert alone.stages[1].hours == pytest.approx(9 * (0.1 * 300 + 3.0 + 1.0) / 3600)
    assert shared.hours == pytest.approx(alone.hours / 2)
    rough = plan(spec(), 0.1, 1)
    assert rough.stages[0].hours < rough.stages[1].hours


def test_the_smaller_batch_is_for_stages_with_a_larger_one(tmp_path: Path) -> None:
    funnel = {"simulate": {"batch_size": 4}, "proxy": {"batch_size": 8}}
    given = spec(funnel=funnel, resources={"smaller_batch": 4})
    with Store.open(f"sqlite:///{tmp_path / 'store.db'}") as store:
        job = open_job(store, create_job(store, given))
    trials = {
        stage: job.trial(TrialKey(0, stage, 0), job.baseline.to_json())
        for stage in ("simulate", "proxy")
    }
    assert trials["simulate"].smaller_batch is None
    assert trials["proxy"].smaller_batch == 4
