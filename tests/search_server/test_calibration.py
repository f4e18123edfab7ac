"""Calibration: the factor that gives a searched loss the gradient norm of the baseline's."""

import itertools
import json
import math
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import fake_search as fake
import pytest
import torch
import yaml
from mmdet.registry import MODELS
from mmengine.runner import set_random_seed
from typer.testing import CliRunner

from losses import CATALOG, LossDefinition, configs_dir
from search_server.calibration import (
    BOUNDS,
    Calibration,
    branch_norm,
    calibrated,
    captured,
    factors,
)
from search_server.cli.app import app
from search_server.errors import SpecError
from search_server.jobs import create_job, open_job
from search_server.spec import parse_spec
from search_server.store import Store
from workers import TrialSpec, build_config, load_detector, lossforge_home
from workers.data import digits
from workers.isolation import isolated
from workers.training import private_config
from workers.trial_runner import TrialRunner
from workers.warm_start import WarmStart

SOFTMAX = ("faster_rcnn", "cascade_rcnn", "mask_rcnn")
SIGMOID = ("atss", "fcos", "retinanet")
WIDE = (1e-3, 1e3)
BATCHES, SIZE, SEED = 4, 2, 5


def trial(detector: str, definition: LossDefinition) -> TrialSpec:
    data = digits()
    return TrialSpec(
        detector=load_detector(configs_dir() / "detectors" / "digits" / f"{detector}.py"),
        definition=definition.to_json(),
        train=data.splits["search_train"],
        evaluate=data.splits["search_val"],
        seed=SEED,
        steps=3,
        batch_size=SIZE,
        classes=data.classes,
        device="cpu",
    )


def stock(detector: str) -> LossDefinition:
    """mmdet's own losses on decoded boxes, of which the catalogue has the expressions too."""
    return CATALOG["ce-giou" if detector in SOFTMAX else "focal-giou"]


def written(cls: str, bbox: str, space: str) -> LossDefinition:
    return LossDefinition.from_json(
        {
            "name": "written",
            "cls": {"type": "expression", "space": space, "expression": cls},
            "bbox": {"type": "expression", "space": "box", "expression": bbox},
        }
    )


@cache
def capture_of(detector: str):
    cls = "multi_cls" if detector in SOFTMAX else "binary_cls"
    return captured(trial(detector, stock(detector)), {"cls": cls, "bbox": "box"})


def measured(
    detector: str, definition: LossDefinition, folder: Path, **changes: Any
) -> dict[str, float]:
    """Norm of the gradient of the head's losses, as its loss dictionary has them, by what it gave
    out: the whole detector in training, no module of the calibration."""
    squares = {"loss_cls": 0.0, "loss_bbox": 0.0}
    with isolated(1, "cpu"):
        spec = replace(trial(detector, definition), **changes)
        config = private_config(build_config(spec), folder)
        runner = TrialRunner.from_cfg(config)
        loader = runner.build_dataloader(config.train_dataloader, seed=SEED)
        runner._init_model_weights()
        runner.load_or_resume()
        model = runner.model.train()
        head = (model.roi_head if detector in SOFTMAX else model).bbox_head
        given = []
        head.register_forward_hook(lambda module, args, value: given.append(value))
        for number, data in enumerate(itertools.islice(loader, BATCHES)):
            given.clear()
            set_random_seed(SEED + number)
            losses = model(**model.data_preprocessor(data, True), mode="loss")
            outputs = [
                part
                for value in given[0]
                for part in (value if isinstance(value, list) else [value])
            ]
            for name in squares:
                found = losses[name]
                total = sum(found) if isinstance(found, list) else found
                parts = torch.autograd.grad(total, outputs, retain_graph=True, allow_unused=True)
                squares[name] += sum(float((p.double() ** 2).sum()) for p in parts if p is not None)
    return {name: math.sqrt(value) for name, value in squares.items()}


@pytest.mark.parametrize("detector", [*SOFTMAX, *SIGMOID])
def test_the_expression_of_a_stock_loss_has_factor_one(detector: str) -> None:
    name = "ce-expression" if detector in SOFTMAX else "focal-expression"
    same = replace(CATALOG["giou-expression"], cls=CATALOG[name].cls)
    found = factors(same, capture_of(detector), bounds=WIDE)
    assert {branch: factor.ratio for branch, factor in found.items()} == {
        "cls": pytest.approx(1, abs=2e-6),
        "bbox": pytest.approx(1, abs=2e-5),
    }


@pytest.mark.parametrize("detector", ["atss", "fcos", "retinanet", "faster_rcnn"])
def test_a_factor_is_the_measured_ratio(detector: str, tmp_path: Path) -> None:
    found = CATALOG["cse-autoloss-a" if detector in SOFTMAX else "cse-autoloss-b"]
    found = replace(found, iou_centerness=False)  # as the baseline: it weights the box losses
    reference = measured(detector, stock(detector), tmp_path / "stock")
    own = measured(detector, found, tmp_path / "found")
    ratios = factors(found, capture_of(detector), bounds=WIDE)
    for branch in ("cls", "bbox"):
        wanted = reference[f"loss_{branch}"] / own[f"loss_{branch}"]
        assert ratios[branch].ratio == pytest.approx(wanted, rel=1e-4)
        assert ratios[branch].value == pytest.approx(wanted, rel=1e-4)
    with_factors = measured(
        detector, calibrated(found, capture_of(detector), bounds=WIDE), tmp_path
    )
    assert with_factors == pytest.approx(reference, rel=2e-4)


def test_after_a_warm_start_its_weights_count(tmp_path: Path) -> None:
    asked, roles = trial("fcos", stock("fcos")), {"cls": "binary_cls", "bbox": "box"}
    warm = WarmStart(stock("fcos").to_json(), 0, 3, ("backbone", "neck", "heads"))
    found = captured(replace(asked, warm_start=warm), roles)
    assert found.norms["cls"] != pytest.approx(capture_of("fcos").norms["cls"], rel=1e-3)
    wanted = measured("fcos", stock("fcos"), tmp_path, warm_start=warm)
    assert found.norms == {
        branch: pytest.approx(wanted[f"loss_{branch}"], rel=1e-5) for branch in ("cls", "bbox")
    }


@pytest.mark.parametrize("times", ["0.125", "3", "9"])
def test_a_multiple_of_a_loss_is_calibrated_to_the_same(times: str) -> None:
    given = capture_of("faster_rcnn")
    cls, bbox = "Neg(Dot(Y,Log(Softmax(X))))", "Sub(1,Div(I,U))"
    multiple = written(f"Mul({times},{cls})", f"Mul({times},{bbox})", "multi_cls")
    plain = calibrated(written(cls, bbox, "multi_cls"), given)
    found = calibrated(multiple, given)
    for branch in ("cls", "bbox"):
        size = branch_norm(given, branch, found.branch(branch))
        assert size == pytest.approx(given.norms[branch], rel=1e-5)
        assert size == pytest.approx(branch_norm(given, branch, plain.branch(branch)), rel=1e-5)
        ratio = plain.branch(branch).scale / found.branch(branch).scale
        assert ratio == pytest.approx(float(times), rel=1e-5)


def test_the_factor_has_bounds() -> None:
    given = capture_of("faster_rcnn")
    cls, bbox = "Mul(10000,Neg(Dot(Y,Log(Softmax(X)))))", "Mul(0.0001,Sub(1,Div(I,U)))"
    found = calibrated(written(cls, bbox, "multi_cls"), given)
    assert (found.cls.scale, found.bbox.scale) == BOUNDS


def test_a_weight_other_than_the_specs_stays_a_factor() -> None:
    given, found = capture_of("atss"), CATALOG["giou-expression"]
    heavy = found.with_branch("bbox", replace(found.bbox, loss_weight=6.0))
    assert calibrated(heavy, given).bbox.scale == pytest.approx(1 / 6, rel=1e-4)
    kept = calibrated(heavy, given, {"bbox": 2.0})
    assert kept.bbox.loss_weight == 6.0
    size = branch_norm(given, "bbox", kept.bbox)
    assert size == pytest.approx(3 * given.norms["bbox"], rel=1e-4)
    assert calibrated(kept, given, {"bbox": 2.0}) == kept


def test_a_loss_without_a_gradient_keeps_its_size_and_the_record_says_so() -> None:
    given = capture_of("faster_rcnn")
    flat = written("Neg(Dot(Y,Log(Softmax(X))))", "Mul(0,Sub(1,Div(I,U)))", "multi_cls")
    found = factors(flat, given)
    assert found["bbox"].value == 1.0
    assert math.isnan(found["bbox"].ratio)
    calibration = Calibration(given, {})
    assert calibration.applied(flat).bbox.scale == 1.0
    assert calibration.reason(flat).startswith("bbox not calibrated")
    assert calibration.reason(CATALOG["ce-expression"]) == ""


def test_only_searched_expressions_are_calibrated() -> None:
    given = replace(capture_of("atss"), norms={"cls": capture_of("atss").norms["cls"]})
    found = calibrated(CATALOG["cse-autoloss-b"], given)
    assert found.cls.scale != 1.0
    assert found.bbox == CATALOG["cse-autoloss-b"].bbox
    assert calibrated(CATALOG["focal-giou"], given) == CATALOG["focal-giou"]


def test_a_capture_is_read_again_and_made_again_to_the_same_numbers() -> None:
    folder = lossforge_home() / "calibration"
    shutil.rmtree(folder, ignore_errors=True)
    asked = trial("fcos", CATALOG["default"]), {"bbox": "box"}
    first = captured(*asked)
    (file,) = folder.iterdir()
    assert [path.name for path in folder.iterdir()] == [file.name]
    assert captured(*asked).norms == first.norms
    file.write_bytes(file.read_bytes()[:1000])  # a broken file is as good as none
    again = captured(*asked)
    assert again.norms == first.norms
    for one, two in zip(first.calls["bbox"], again.calls["bbox"], strict=True):
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)
    longer = replace(asked[0], steps=99, evaluate=asked[0].train, rungs=(5,))
    captured(longer, {"bbox": "box"})
    assert len(list(folder.iterdir())) == 1
    captured(replace(asked[0], seed=SEED + 1), {"bbox": "box"})
    assert len(list(folder.iterdir())) == 2


def test_what_trains_is_multiplied() -> None:
    found = calibrated(CATALOG["cse-autoloss-b"], capture_of("atss"))
    config = build_config(trial("atss", found))
    scores, labels = torch.randn(6, 10), torch.tensor([1, 10, 3, 10, 10, 0])
    ious = torch.tensor([0.5, 0.6, 0.7])
    for branch, given in (
        ("cls", (scores, labels)),
        ("bbox", (torch.tensor([[1.0, 2, 9, 8]]), torch.tensor([[2.0, 2, 8, 9]]))),
    ):
        settings = config.model.bbox_head[f"loss_{branch}"]
        assert settings["scale"] == found.branch(branch).scale
        more = {"pos_ious": ious} if branch == "cls" else {}
        bare = {name: value for name, value in settings.items() if name != "scale"}
        with_scale = MODELS.build(settings)(*given, **more)
        without = MODELS.build(bare)(*given, **more)
        assert with_scale.item() == pytest.approx(settings["scale"] * without.item(), rel=1e-6)


def test_a_search_calibrates_its_candidates_and_nothing_else(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'one.db'}"
    named = ["cse-autoloss-b", {"cls": "focal-expression", "bbox": "giou-expression"}]
    searcher = {"population": 5, "parents": 3, "named": named}
    small = {"calibrate": True, "candidates": 6, "searcher": searcher}
    job_id = fake.new_job(url, **small)
    assert fake.run(url, job_id) == "done"
    with Store.open(url) as store:
        job, found = open_job(store, job_id), store.candidates(job_id)
    assert found[0].calibration is None
    assert "scale" not in str(found[0].definition)
    given = job.calibration.given
    for record in found[1:]:
        definition = LossDefinition.from_json(record.definition)
        assert record.key == definition.key
        assert set(record.calibration) == {"cls", "bbox"}
        for branch, value in record.calibration.items():
            own = definition.branch(branch)
            assert own.scale == value
            if BOUNDS[0] < value < BOUNDS[1]:
                assert branch_norm(given, branch, own) == pytest.approx(
                    given.norms[branch], rel=1e-5
                )
    shutil.rmtree(lossforge_home() / "calibration")
    other = f"sqlite:///{tmp_path / 'two.db'}"
    assert fake.run(other, fake.new_job(other, **small)) == "done"
    assert fake.rows(other)["candidates"] == fake.rows(url)["candidates"]


def test_the_default_is_on_for_expressions_and_off_for_parameters() -> None:
    assert fake.spec(calibrate=None).calibrate is True
    text = (configs_dir() / "search" / "digits_pap.yaml").read_text()
    assert parse_spec(text).calibrate is False
    with pytest.raises(SpecError, match=r"calibrate.*must be false"):
        parse_spec(text + "\ncalibrate: true\n")


def test_a_ranking_baseline_cannot_be_matched(tmp_path: Path) -> None:
    asked = fake.spec(calibrate=True, baseline="ap-l1", detector="digits/retinanet")
    with Store.open(f"sqlite:///{tmp_path / 'jobs.db'}") as store:
        with pytest.raises(SpecError, match=r"calibrate.*ranking"):
            create_job(store, asked)
        create_job(store, asked.model_copy(update={"calibrate": False}))


def test_the_command_writes_what_a_search_would_train(tmp_path: Path) -> None:
    spec_file, out = tmp_path / "spec.yaml", tmp_path / "found" / "b.json"
    given = {**fake.SPEC, "calibrate": True, "seed": SEED, "searcher": {"population": 5}}
    given["funnel"] = {"simulate": None, "proxy": {"steps": 5, "batch_size": SIZE}}
    spec_file.write_text(yaml.safe_dump({**given, "baseline": "focal-giou"}))
    words = ["calibrate", "giou-expression", "--spec", str(spec_file)]
    result = CliRunner().invoke(app, [*words, "-o", str(out), "--json"])
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    wanted = calibrated(CATALOG["giou-expression"], capture_of("atss"))
    assert LossDefinition.from_json(json.loads(out.read_text())) == wanted
    assert answer["definition"] == wanted.to_json()
    (row,) = answer["branches"].values()
    assert row["factor"] == pytest.approx(row["baseline"] / row["norm"], rel=1e-5)
    assert "bbox" in CliRunner().invoke(app, words).output
