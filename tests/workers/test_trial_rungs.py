"""AP at rungs: measured, kept apart from the final one, and without a trace in the training."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from workers import TrialResult, TrialSpec, train
from workers.trial_loop import TrialLoop

MakeSpec = Callable[..., TrialSpec]


def trained(spec: TrialSpec, monkeypatch: pytest.MonkeyPatch) -> tuple[TrialResult, dict[str, Any]]:
    """The result, and the weights at the end."""
    weights: dict[str, Any] = {}
    run = TrialLoop.run

    def keeping(loop: TrialLoop) -> Any:
        model = run(loop)
        weights.update({name: value.clone() for name, value in model.state_dict().items()})
        return model

    with monkeypatch.context() as patch:
        patch.setattr(TrialLoop, "run", keeping)
        return train(spec), weights


@pytest.mark.parametrize("detector", ["atss", "faster"])
def test_rungs_leave_no_trace_in_the_training(
    make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, detector: str
) -> None:
    spec = make_spec(detector, steps=18, batch_size=4, seed=3)
    plain, expected = trained(spec, monkeypatch)
    result, weights = trained(replace(spec, rungs=(6, 14)), monkeypatch)
    assert plain.rungs == {}
    assert plain.fitness  # or the comparison would say little
    assert result.status == "done"
    assert (result.fitness, result.metrics) == (plain.fitness, plain.metrics)
    assert result.curves == plain.curves
    assert list(expected) == list(weights)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert list(result.rungs) == [6, 14]


def test_the_ap_at_a_rung_is_that_of_the_weights_there(make_spec: MakeSpec) -> None:
    """A constant learning rate: the first steps are those of a shorter training."""
    spec = make_spec(steps=20, batch_size=4, seed=3)
    detector = spec.detector + "\nparam_scheduler = None\n"
    long = train(replace(spec, detector=detector, rungs=(16, 18)))
    short = train(replace(spec, detector=detector, steps=16))
    assert short.fitness
    assert long.rungs[16] == short.fitness
    assert long.fitness not in long.rungs.values()
