"""One worker, many trials: none leaves a trace in the next one, and the wait between is short."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from workers import TrialResult, TrialSpec, TrialWorker, run_trial, train

MakeSpec = Callable[..., TrialSpec]
NAN_BOX = {"type": "expression", "space": "box", "expression": "Log(Sub(-2,Div(I,U)))"}


def numbers(result: TrialResult) -> tuple:
    return result.status, result.fitness, result.metrics, result.curves


@pytest.mark.slow
def test_a_b_a_in_one_worker_equals_fresh_processes(
    make_spec: MakeSpec, worker: TrialWorker
) -> None:
    a = make_spec(steps=8)
    b = make_spec("faster", steps=5, seed=9, batch_size=4)
    diverging = replace(a, definition={**a.definition, "bbox": NAN_BOX})
    results = [worker.run(spec) for spec in (a, b, a, diverging, a)]
    assert [result.status for result in results] == ["done", "done", "done", "diverged", "done"]
    assert ["start" in result.seconds for result in results] == [True] + [False] * 4
    fresh = run_trial(a)
    assert "start" in fresh.seconds
    for result in results[0::2]:
        assert numbers(result) == numbers(fresh)
    assert numbers(train(a)) == numbers(fresh)


def test_a_warm_worker_adds_at_most_a_second(make_spec: MakeSpec, worker: TrialWorker) -> None:
    worker.run(make_spec())
    seconds = min(
        (worker.run(make_spec(seed=seed)).seconds for seed in range(3)),
        key=lambda s: s["total"] - s["train"] - s["evaluate"],
    )
    assert seconds["total"] - seconds["train"] - seconds["evaluate"] < 1.0


def test_a_failed_trial_costs_the_worker_its_process_only(
    make_spec: MakeSpec, worker: TrialWorker
) -> None:
    good = make_spec()
    broken = worker.run(replace(good, detector=good.detector.replace("ATSSHead", "NoSuchHead")))
    assert broken.status == "failed"
    assert "NoSuchHead" in broken.reason
    again = worker.run(good)
    assert (again.status, "start" in again.seconds) == ("done", True)
