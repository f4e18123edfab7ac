"""Trials that pause at rungs: what goes on equals what never paused, with or without its file."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from losses import CATALOG
from workers import TrialResult, TrialSpec, TrialWorker, train
from workers.hooks import CurveRecorder
from workers.pausing import find

MakeSpec = Callable[..., TrialSpec]
STEPS, RUNGS = 24, (8, 16)
EMA_AND_ACCUMULATION = """
custom_hooks = [dict(type="EMAHook", momentum=0.1)]
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=0.002),
    accumulative_counts=3,
    clip_grad=dict(max_norm=1.0),
)
"""
ALRP = {"name": "alrp", "cls": {"type": "ranking", "loss": "alrp", "balance_every": 3}}
EXPLODES_AFTER_STEP_12 = """
train_cfg = dict(type="IterBasedTrainLoop", max_iters=24)
param_scheduler = dict(type="MultiStepLR", by_epoch=False, milestones=[12], gamma=1e12)
"""


@pytest.fixture
def rung_spec(make_spec: MakeSpec, tmp_path: Path) -> MakeSpec:
    """A spec with two rungs and a folder for checkpoints."""

    def make(detector: str = "atss", **changes: Any) -> TrialSpec:
        fields = {"steps": STEPS, "batch_size": 4, "seed": 3, "rungs": RUNGS, **changes}
        return make_spec(detector, checkpoint=str(tmp_path / "kept"), **fields)

    return make


def numbers(result: TrialResult) -> tuple:
    """All that a pause must not change."""
    return result.status, result.reason, result.fitness, result.metrics, result.rungs, result.curves


def paused(spec: TrialSpec, rung: int, run: Callable[[TrialSpec], TrialResult] = train) -> Path:
    """Trains to a rung; the file that is left."""
    result = run(replace(spec, pause_after=rung))
    assert (result.status, result.reason) == ("paused", f"paused after step {rung}")
    assert result.fitness is None
    assert list(result.rungs) == [each for each in RUNGS if each <= rung]
    assert result.curves["step"][-1] == rung
    assert spec.checkpoint_file is not None
    assert list(spec.checkpoint_file.parent.iterdir()) == [spec.checkpoint_file]
    return spec.checkpoint_file


@pytest.mark.parametrize("detector", ["atss", "faster"])
def test_paused_at_each_rung_equals_never_paused(
    rung_spec: MakeSpec, worker: TrialWorker, detector: str
) -> None:
    """Every part is trained by another process than the part before."""
    spec = rung_spec(detector)
    whole = train(spec)
    assert whole.fitness  # not 0, or the comparison would say little
    assert list(whole.rungs) == list(RUNGS)
    paused(spec, 8)
    file = paused(spec, 16, worker.run)
    assert numbers(train(spec)) == numbers(whole)
    assert not file.exists()


@pytest.mark.parametrize(
    ("detector", "changes"),
    [
        ("atss", {"more": EMA_AND_ACCUMULATION}),
        ("atss", {"definition": ALRP}),
        ("atss", {"precision": "bfloat16"}),
        ("atss", {"definition": CATALOG["cse-autoloss-b"].to_json()}),
        ("faster", {"definition": CATALOG["cse-autoloss-a"].to_json()}),
    ],
    ids=[
        *("ema, accumulated gradients, AdamW", "a loss with buffers", "bfloat16"),
        *("a loss that reads IoUs, dense", "a loss that reads IoUs, two stages"),
    ],
)
def test_all_that_steers_is_kept(
    rung_spec: MakeSpec, detector: str, changes: dict[str, Any]
) -> None:
    more = changes.pop("more", "")
    spec = rung_spec(rung_spec(detector).detector + more, **changes)
    whole = train(spec)
    assert whole.rungs[16] is not None
    file = paused(spec, 16)
    marked = mark(file)
    again = train(spec)
    assert again.rungs == marked  # it went on from the file, which is what the marks are in
    assert numbers(replace(again, rungs=whole.rungs)) == numbers(whole)


@pytest.mark.skipif(torch.cuda.is_available(), reason="device auto would take the GPU")
def test_data_loading_processes_go_on_where_they_were(rung_spec: MakeSpec) -> None:
    """They draw the augmentations, from generators of their own."""
    spec = rung_spec(device="auto", steps=12, rungs=(8,))
    whole = train(spec)
    assert whole.fitness
    assert train(replace(spec, pause_after=8)).status == "paused"
    assert numbers(train(spec)) == numbers(whole)


def mark(file: Path) -> dict[int, float]:
    """Puts APs into a file that no training has; who goes on from it has them too."""
    content = torch.load(file, weights_only=True)
    content["records"]["rungs"] = {8: 0.125, 16: 0.25}
    torch.save(content, file)
    return {8: 0.125, 16: 0.25}


def half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def garbage(file: Path) -> None:
    file.write_bytes(b"no checkpoint at all" * 100)


def changed(**values: Any) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        torch.save({**torch.load(file, weights_only=True), **values}, file)

    return change


def with_code(file: Path) -> None:
    torch.save({**torch.load(file, weights_only=True), "state_dict": Path}, file)


@pytest.fixture(scope="module")
def kept(
    make_spec: MakeSpec, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrialSpec, TrialResult, Path]:
    """A trial, its result, and a copy of the file that its pause leaves."""
    folder = tmp_path_factory.mktemp("kept")
    spec = make_spec(
        steps=STEPS, batch_size=4, seed=3, rungs=RUNGS, checkpoint=str(folder / "used")
    )
    whole = train(spec)
    copy = paused(spec, 16).replace(folder / "copy")
    return spec, whole, copy


@pytest.mark.parametrize(
    "spoil",
    [Path.unlink, half, changed(batches="0" * 64), changed(state_dict={})],
    ids=["missing", "torn", "other batches", "no weights"],
)
def test_without_a_usable_file_the_result_is_the_same(
    kept: tuple[TrialSpec, TrialResult, Path], spoil: Callable[[Path], None]
) -> None:
    spec, whole, copy = kept
    file = spec.checkpoint_file
    assert file is not None
    shutil.copy(copy, file)
    spoil(file)
    assert numbers(train(spec)) == numbers(whole)
    assert list(file.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("spoil", "usable"),
    [
        (changed(), True),
        (garbage, False),
        (with_code, False),
        (changed(key="0" * 64), False),
        (changed(versions={"torch": "1.0"}), False),
        (changed(step=9), False),
        (changed(step="9"), False),
        (lambda file: torch.save([1, 2], file), False),
    ],
)
def test_foreign_files_are_not_used(
    kept: tuple[TrialSpec, TrialResult, Path], spoil: Callable[[Path], None], usable: bool
) -> None:
    spec, whole, copy = kept
    assert spec.checkpoint_file is not None
    shutil.copy(copy, spec.checkpoint_file)
    spoil(spec.checkpoint_file)
    assert (find(spec, whole.versions) is not None) is usable


def test_the_file_is_what_is_gone_on_from(
    kept: tuple[TrialSpec, TrialResult, Path],
) -> None:
    """Without this the tests above would pass if all trained from the start."""
    spec, whole, copy = kept
    assert spec.checkpoint_file is not None
    records = torch.load(copy, weights_only=True)["records"]
    shutil.copy(copy, spec.checkpoint_file)
    changed(records={**records, "rungs": {8: 0.125, 16: 0.25}})(spec.checkpoint_file)
    result = train(spec)
    assert result.rungs == {8: 0.125, 16: 0.25}
    assert result.fitness == whole.fitness


def test_a_pause_that_was_passed_is_given_again(
    kept: tuple[TrialSpec, TrialResult, Path],
) -> None:
    """The answer may have been lost; and a file from beyond the pause says nothing about it."""
    spec, whole, copy = kept
    assert spec.checkpoint_file is not None
    shutil.copy(copy, spec.checkpoint_file)
    again = train(replace(spec, pause_after=16))
    assert (again.status, again.rungs) == ("paused", whole.rungs)
    assert again.seconds["evaluate"] == 0  # all is in the file
    assert again.curves["step"][-1] == 16
    before = train(replace(spec, pause_after=8))
    assert (before.status, before.rungs) == ("paused", {8: whole.rungs[8]})


def test_a_training_that_diverges_later_keeps_the_rungs_passed(rung_spec: MakeSpec) -> None:
    spec = rung_spec(rung_spec().detector + EXPLODES_AFTER_STEP_12)
    file = paused(spec, 8)
    result = train(spec)
    assert result.status == "diverged"
    assert list(result.rungs) == [8]
    assert result.curves["step"][0] == 1.0
    assert len(result.curves["step"]) >= 12
    assert not file.exists()


def test_a_detector_that_remembers_elsewhere_trains_from_the_start(rung_spec: MakeSpec) -> None:
    """mmdet's dynamic R-CNN keeps its history in a list, and thresholds in its assigner."""
    text = rung_spec("faster").detector.replace("StandardRoIHead", "DynamicRoIHead")
    dynamic = "dict(iou_topk=3, beta_topk=3, update_iter_interval=4, initial_iou=0.4, "
    text += f"\nmodel['train_cfg']['rcnn']['dynamic_rcnn'] = {dynamic}initial_beta=1.0)\n"
    text += "model['roi_head']['bbox_head']['loss_bbox'] = dict(type='SmoothL1Loss', beta=1.0)\n"
    spec = rung_spec(text, steps=12, rungs=(6,))
    whole = train(spec)
    assert whole.status == "done"
    part = train(replace(spec, pause_after=6))
    assert part.status == "paused"
    assert "remembers what no checkpoint holds: model.roi_head." in part.reason
    assert spec.checkpoint_file is not None
    assert not spec.checkpoint_file.exists()
    assert numbers(train(spec)) == numbers(whole)


def test_a_folder_that_cannot_be_written_is_no_failure(make_spec: MakeSpec, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    spec = make_spec(steps=3, rungs=(1,), pause_after=1)
    nowhere = train(replace(spec, checkpoint=str(tmp_path / "file" / "folder")))
    assert nowhere.status == "paused"
    assert list(nowhere.rungs) == [1]
    assert nowhere.reason.startswith("paused after step 1; ")
    assert "cannot be written" in nowhere.reason
    assert train(spec).reason == "paused after step 1; no folder for checkpoints was given"


def test_curves_go_on_in_the_middle_of_a_window() -> None:
    """Windows of two steps, and a pause after the first half of one."""
    losses = [{"loss": torch.tensor(float(step))} for step in range(150)]
    whole, first, second = CurveRecorder(150), CurveRecorder(150), CurveRecorder(150)
    for step, outputs in enumerate(losses):
        whole.after_train_iter(None, step, outputs=outputs)
        (first if step < 75 else second).after_train_iter(None, step, outputs=outputs)
        if step == 74:
            second.load(first.state())
    assert second.curves == whole.curves
