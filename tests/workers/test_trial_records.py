"""Specs and results: JSON round trips, identity, and what they refuse."""

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from workers import Split, TrialResult, TrialSpec, TrialSpecError

MakeSpec = Callable[..., TrialSpec]


def test_spec_survives_json(make_spec: MakeSpec) -> None:
    spec = make_spec(time_limit=12.5, definition={"name": "x", "cls": {"a": [1, 2.5]}})
    again = TrialSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert again.key == spec.key
    assert isinstance(again.classes, tuple)
    assert isinstance(again.train, Split)


def test_key_follows_what_steers_and_nothing_else(make_spec: MakeSpec) -> None:
    spec = make_spec()
    same = [
        replace(spec, time_limit=3.0),
        replace(spec, definition={**spec.definition, "name": "another"}),
        replace(spec, checkpoint="/somewhere"),
    ]
    assert {other.key for other in same} == {spec.key}
    assert len(spec.key) == 64
    others = [
        replace(spec, seed=2),
        replace(spec, steps=7),
        replace(spec, batch_size=3),
        replace(spec, threads=2),
        replace(spec, device="auto"),
        replace(spec, detector=spec.detector + "\n"),
        replace(spec, classes=("a", "b", "c")),
        replace(spec, train=spec.evaluate),
        replace(spec, evaluate=spec.train),
        replace(spec, definition={**spec.definition, "iou_centerness": True}),
        replace(spec, precision="bfloat16"),
        replace(spec, rungs=(2,)),
        replace(spec, rungs=(2, 3)),
    ]
    assert len({spec.key, *(other.key for other in others)}) == len(others) + 1


def test_fields_that_say_nothing_are_not_written(make_spec: MakeSpec) -> None:
    """So keys of specs from before these fields stay what they were."""
    first = "detector definition train evaluate seed steps batch_size classes device threads"
    assert set(make_spec().to_json()) == {*first.split(), "time_limit"}
    spec = make_spec(rungs=(2, 4), pause_after=2, checkpoint="/somewhere", precision="bfloat16")
    data = json.loads(json.dumps(spec.to_json()))
    assert data["rungs"] == [2, 4]
    assert TrialSpec.from_json(data) == spec
    assert spec.key == replace(spec, pause_after=None, checkpoint=None).key
    assert spec.checkpoint_file == Path(f"/somewhere/{spec.key}.pth")
    assert replace(spec, checkpoint=None).checkpoint_file is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -1),
        ("seed", 2**32),
        ("seed", True),
        ("steps", 0),
        ("steps", 1.5),
        ("batch_size", 0),
        ("threads", 0),
        ("device", "tpu"),
        ("classes", ()),
        ("time_limit", 0),
        ("time_limit", float("nan")),
        ("precision", "float16"),
        ("rungs", (0,)),
        ("rungs", (6,)),  # the last step is no rung
        ("rungs", (3, 2)),
        ("rungs", (2, 2)),
        ("rungs", (2.0,)),
        ("rungs", "23"),
        ("pause_after", 2),  # no rung
        ("checkpoint", "here"),
        ("checkpoint", 3),
    ],
)
def test_impossible_values_are_refused(make_spec: MakeSpec, field: str, value: object) -> None:
    with pytest.raises(TrialSpecError, match=field) as caught:
        make_spec(**{field: value})
    assert caught.value.field == field


def test_json_with_unknown_or_missing_fields_is_refused(make_spec: MakeSpec) -> None:
    data = make_spec().to_json()
    with pytest.raises(TrialSpecError, match="colour"):
        TrialSpec.from_json({**data, "colour": 1})
    with pytest.raises(TrialSpecError, match="train"):
        TrialSpec.from_json({**data, "train": {"annotations": "a"}})
    del data["steps"]
    with pytest.raises(TrialSpecError, match="steps"):
        TrialSpec.from_json(data)


def test_specs_are_frozen(make_spec: MakeSpec) -> None:
    with pytest.raises(FrozenInstanceError):
        make_spec().seed = 3  # type: ignore[misc]


def test_result_survives_json_and_ignores_later_fields() -> None:
    result = TrialResult(
        "done", "", 0.1 + 0.2, 1, 2, {"ap50": 1 / 3}, {"step": [1.0], "loss": [2e-300]}
    )
    result = replace(result, rungs={100: 0.25, 20: 1 / 3})
    text = json.dumps(result.to_json(), allow_nan=False)
    assert json.loads(text)["rungs"] == {"100": 0.25, "20": 1 / 3}
    assert TrialResult.from_json({**json.loads(text), "from_tomorrow": 1}) == result


@pytest.mark.parametrize(
    "broken",
    [
        {"fitness": float("nan")},
        {"curves": {"loss": [float("inf")]}},
        {"metrics": {"ap50": float("nan")}},
        {"rungs": {3: float("nan")}},
    ],
)
def test_results_hold_finite_numbers_only(broken: dict) -> None:
    fields = {"status": "done", "reason": "", "fitness": 0.5, "seed": 0, "steps": 1, **broken}
    with pytest.raises(ValueError, match="finite"):
        TrialResult(**fields)


@pytest.mark.parametrize("fitness", [-1.0, -1e-9, 1.0 + 1e-9, 47.1])
def test_a_fitness_that_is_no_ap_is_refused(fitness: float) -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        TrialResult("done", "", fitness, 0, 1)
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        TrialResult("paused", "", None, 0, 2, rungs={1: fitness})
    assert [TrialResult("done", "", ap, 0, 1).fitness for ap in (0.0, 1.0)] == [0.0, 1.0]


def test_unknown_status_is_refused() -> None:
    with pytest.raises(ValueError, match="diverged"):
        TrialResult("great", "", None, 0, 1)  # type: ignore[arg-type]
