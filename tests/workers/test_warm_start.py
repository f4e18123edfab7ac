"""Warm starts: shared weights, trained once, from which trials begin."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import workers.warm_start
from workers import TrialSpec, TrialSpecError, build_config, train
from workers.warm_start import WarmStart, time_limit, training_of, warm_start_path

MakeSpec = Callable[..., TrialSpec]
OWN = {"name": "own", "cls": None, "bbox": None, "iou_centerness": False}


@pytest.fixture
def spec(make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrialSpec:
    """An ATSS trial that starts from weights of three steps; nothing is cached yet."""
    monkeypatch.setenv("LOSSFORGE_HOME", str(tmp_path / "home"))
    return replace(make_spec(steps=3), warm_start=WarmStart(OWN, 5, 3, ("backbone", "neck")))


def test_weights_of_the_parts_are_kept_and_used(spec: TrialSpec) -> None:
    cold = train(replace(spec, warm_start=None))
    warm = train(spec)
    assert (warm.status, warm.reason) == ("done", "")
    assert warm.curves != cold.curves
    weights = torch.load(warm_start_path(spec), weights_only=True)["state_dict"]
    assert {name.split(".")[0] for name in weights} == {"backbone", "neck"}
    assert build_config(spec).load_from == str(warm_start_path(spec))


def test_the_training_of_the_warm_start_is_not_at_the_expense_of_the_trial(spec: TrialSpec) -> None:
    limited = replace(spec, time_limit=60.0, warm_start=WarmStart(OWN, 5, 6, ("backbone",)))
    assert time_limit(limited) == 180.0  # six steps more than the trial's three
    train(limited)
    assert time_limit(limited) == 60.0
    assert time_limit(replace(limited, warm_start=None)) == 60.0
    assert time_limit(replace(limited, time_limit=None)) is None


def test_a_lost_file_is_trained_again_to_the_same_weights(spec: TrialSpec) -> None:
    first = train(spec)
    cached = train(spec)
    assert (first.fitness, first.curves) == (cached.fitness, cached.curves)
    content = hashlib.sha256(warm_start_path(spec).read_bytes())
    before = torch.load(warm_start_path(spec), weights_only=True)["state_dict"]
    warm_start_path(spec).unlink()
    again = train(spec)
    after = torch.load(warm_start_path(spec), weights_only=True)["state_dict"]
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert (first.fitness, first.curves) == (again.fitness, again.curves)
    assert hashlib.sha256(warm_start_path(spec).read_bytes()).digest() == content.digest()
    assert b"state_dict" in warm_start_path(spec).read_bytes()
    assert warm_start_path(spec).stem.encode() not in warm_start_path(spec).read_bytes()
    assert [path.suffix for path in warm_start_path(spec).parent.iterdir() if path.is_dir()] == []


def test_a_torn_file_is_trained_again(spec: TrialSpec) -> None:
    """A power cut may leave a name with nothing, or half a file, behind it."""
    first = train(spec)
    whole = warm_start_path(spec).read_bytes()
    for size in (0, len(whole) // 2):
        warm_start_path(spec).write_bytes(whole[:size])
        again = train(spec)
        assert (again.status, again.fitness, again.curves) == ("done", first.fitness, first.curves)
        assert warm_start_path(spec).read_bytes() == whole


def test_the_seeds_and_losses_of_a_job_share_one_file(spec: TrialSpec) -> None:
    other_loss = {**OWN, "bbox": {"type": "stock", "loss": {"type": "IoULoss"}}}
    path = warm_start_path(spec)
    assert warm_start_path(replace(spec, seed=9, steps=7, definition=other_loss)) == path
    assert warm_start_path(replace(spec, rungs=(1,), evaluate=spec.train)) == path
    other = WarmStart(OWN, 6, 3, ("backbone", "neck"))
    assert warm_start_path(replace(spec, warm_start=other)) != path
    assert warm_start_path(replace(spec, precision="bfloat16")) != path
    assert training_of(spec).warm_start is None


def test_weights_of_other_versions_or_of_other_annotations_are_not_used(
    spec: TrialSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    annotations = tmp_path / "train.json"
    annotations.write_text(Path(spec.train.annotations).read_text())
    spec = replace(spec, train=replace(spec.train, annotations=str(annotations)))
    path = warm_start_path(spec)
    os.utime(annotations, (1, 1))
    assert warm_start_path(spec) == path
    annotations.write_text(annotations.read_text() + " ")
    assert warm_start_path(spec) != path
    path = warm_start_path(spec)
    for name, version in (("torch", "0.1"), ("device", "another GPU")):
        other = {**workers.warm_start.versions_on("cpu"), name: version}
        monkeypatch.setattr(workers.warm_start, "versions_on", lambda _, other=other: other)
        assert warm_start_path(spec) != path


def test_a_spec_keeps_its_warm_start(spec: TrialSpec) -> None:
    assert TrialSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    cold = replace(spec, warm_start=None)
    assert "warm_start" not in cold.to_json()
    assert cold.key != spec.key


def test_a_warm_start_that_diverges_fails_the_trial(spec: TrialSpec) -> None:
    broken = {
        **OWN,
        "cls": {
            "type": "expression",
            "space": "binary_cls",
            "expression": "Log(Sub(X,Abs(X)))",  # the logarithm of a negative number
        },
    }
    result = train(replace(spec, warm_start=WarmStart(broken, 0, 2)))
    assert result.status == "failed"
    assert "the training of the warm start diverged" in result.reason
    assert not warm_start_path(replace(spec, warm_start=WarmStart(broken, 0, 2))).exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", 0), ("seed", -1), ("seed", 2**32), ("parts", ()), ("parts", ("nose",))],
)
def test_bad_values_are_named(field: str, value: object) -> None:
    with pytest.raises(TrialSpecError, match=rf"warm_start\.{field}"):
        replace(WarmStart(OWN, 0, 1), **{field: value})
