"""Trials that several processes of this machine train together, by gloo."""

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from processes import called

from workers import TrialSpec, TrialWorker, run_trial
from workers.config import build_config
from workers.errors import TrialSpecError

Made = Callable[..., TrialSpec]


def ranks() -> set[int]:
    """The processes of this test's own trials."""
    return called("lossforge-rank")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_two_processes_train_one_trial_and_pause_and_go_on(make_spec: Made, tmp_path: Path) -> None:
    spec = make_spec(steps=4, batch_size=4, processes=2, rungs=(2,), device="cpu")
    assert build_config(spec).train_dataloader.batch_size == 2
    assert replace(spec, processes=1).key != spec.key
    kept = replace(spec, checkpoint=str(tmp_path / "kept"))
    with TrialWorker() as worker:
        whole = worker.run(spec)
        assert (whole.status, whole.reason) == ("done", "")
        assert list(whole.rungs) == [2]
        for torn in (False, True):
            paused = worker.run(replace(kept, pause_after=2))
            assert (paused.status, paused.reason) == ("paused", "paused after step 2")
            assert len(list((tmp_path / "kept").iterdir())) == 2  # a file of each
            if torn:  # then both start anew
                (second,) = (tmp_path / "kept").glob("*.rank1.pth")
                second.write_bytes(b"torn")
            went_on = worker.run(kept)
            assert (went_on.status, went_on.fitness) == ("done", whole.fitness)
            assert (went_on.curves, went_on.rungs) == (whole.curves, whole.rungs)
            assert not list((tmp_path / "kept").iterdir())
    assert not ranks()


@pytest.mark.slow
def test_what_goes_wrong_in_one_process_ends_all(make_spec: Made) -> None:
    spec = make_spec(steps=100_000, batch_size=2, processes=2, device="cpu")
    found = []
    thread = threading.Thread(target=lambda: found.append(train_in_worker(spec)))
    thread.start()
    wait_for(lambda: len(ranks()) == 2)
    time.sleep(1.0)
    victim = max(ranks())
    os.kill(victim, signal.SIGKILL)
    thread.join(120)
    (result,) = found
    assert result.status == "failed"
    assert "process 2 of 2 was ended by SIGKILL" in result.reason
    wait_for(lambda: not ranks())

    late = run_trial(replace(spec, time_limit=6.0))
    assert late.status == "timeout"
    wait_for(lambda: not ranks())

    broken = run_trial(replace(spec, classes=("cat", "dog", "cow")))
    assert broken.status == "failed"
    assert broken.reason.startswith("process ")
    assert "has the classes" in broken.reason


def train_in_worker(spec: TrialSpec):  # type: ignore[no-untyped-def]
    with TrialWorker() as worker:
        return worker.run(spec)


def test_every_process_has_an_equal_part_of_a_batch(make_spec: Made) -> None:
    with pytest.raises(TrialSpecError, match="processes"):
        make_spec(batch_size=3, processes=2)
    with pytest.raises(TrialSpecError, match="processes"):
        make_spec(batch_size=4, smaller_batch=1, processes=2)
    with pytest.raises(TrialSpecError, match="processes"):
        make_spec(processes=0)
    assert TrialSpec.from_json(make_spec(batch_size=4, processes=2).to_json()).processes == 2
