"""Executors: every trial comes back once, cancelled ones never, and Ray does as threads do."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from search_server.errors import JobError
from search_server.executors import InlineExecutor, local_slots, open_executor
from search_server.executors.ray import MAX_LOSSES, RayExecutor
from search_server.funnel.stages import TrialKey
from search_server.spec import Resources
from workers import Split, TrialResult, TrialSpec

HANG = "import time\ntime.sleep(600)\n"


def trial(seed: int, detector: str = "model = dict(type='Nothing')", **more: Any) -> TrialSpec:
    nowhere = Split("/nowhere.json", "/nowhere")
    return TrialSpec(
        detector, {"name": "x"}, nowhere, nowhere, seed, 1, 1, ("a",), device="cpu", **more
    )


def key(seed: int) -> TrialKey:
    return TrialKey(seed, "proxy", seed)


def collect(executor: Any, count: int, seconds: float = 60) -> list[tuple[TrialKey, TrialResult]]:
    found: list[tuple[TrialKey, TrialResult]] = []
    end = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < end:
        found += executor.wait(0.2)
    return found


def test_threads_give_results_in_order_of_completion() -> None:
    gates = {seed: threading.Event() for seed in range(3)}

    def run(spec: TrialSpec) -> TrialResult:
        assert gates[spec.seed].wait(30)
        return TrialResult("done", "", 0.5, spec.seed, spec.steps)

    with InlineExecutor(3, run) as executor:
        for seed in range(3):
            executor.submit(key(seed), trial(seed))
        order = []
        for seed in (1, 2, 0):
            gates[seed].set()
            order += [k.seed for k, _ in collect(executor, 1)]
    assert order == [1, 2, 0]


def test_no_more_than_the_slots_run_at_once() -> None:
    lock, running, most = threading.Lock(), [0], [0]

    def run(spec: TrialSpec) -> TrialResult:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.01)
        with lock:
            running[0] -= 1
        return TrialResult("done", "", 0.5, spec.seed, spec.steps)

    with InlineExecutor(2, run) as executor:
        for seed in range(12):
            executor.submit(key(seed), trial(seed))
        assert {k.seed for k, _ in collect(executor, 12)} == set(range(12))
    assert most[0] == 2


def test_what_was_cancelled_never_comes_back() -> None:
    gate = threading.Event()

    def run(spec: TrialSpec) -> TrialResult:
        gate.wait(30)
        return TrialResult("done", "", 0.5, spec.seed, spec.steps)

    with InlineExecutor(1, run) as executor:
        executor.submit(key(0), trial(0))
        executor.submit(key(1), trial(1))
        executor.cancel_all()
        gate.set()
        executor.submit(key(2), trial(2))
        assert [k.seed for k, _ in collect(executor, 1)] == [2]
        assert executor.wait(0.3) == []


def test_waiting_takes_no_longer_than_asked() -> None:
    with InlineExecutor(1, lambda spec: None) as executor:  # type: ignore[arg-type, return-value]
        began = time.monotonic()
        assert executor.wait(0.0) == []
        assert executor.wait(0.2) == []
        assert 0.15 < time.monotonic() - began < 5


@pytest.mark.slow
def test_processes_of_this_machine_end_broken_trials() -> None:
    with InlineExecutor(2) as executor:
        executor.submit(key(0), trial(0))
        executor.submit(key(1), trial(1))
        results = dict(collect(executor, 2, 120))
    assert {each.status for each in results.values()} == {"failed"}


@pytest.mark.slow
def test_closing_kills_a_trial_that_hangs(tmp_path: Path) -> None:
    executor = InlineExecutor(1)
    executor.submit(key(0), trial(0, HANG))
    time.sleep(3)
    began = time.monotonic()
    executor.close()
    assert time.monotonic() - began < 10


def test_the_machine_decides_the_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    cores = len(os.sched_getaffinity(0))
    assert local_slots(Resources(cpus=1)) == cores
    assert local_slots(Resources(cpus=10 * cores)) == 1
    with open_executor(Resources(), "none", slots=3) as executor:  # type: ignore[attr-defined]
        assert isinstance(executor, InlineExecutor)
        assert executor.slots() == 3


def test_slots_are_no_option_for_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(JobError, match=r"--slots is for this machine; on Ray at 10\.0\.0\.1:6379"):
        open_executor(Resources(), "10.0.0.1:6379", slots=2)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(JobError, match="on the Ray cluster of RAY_ADDRESS"):
        open_executor(Resources(), None, slots=2)


@pytest.fixture(scope="module")
def on_ray() -> Iterator[RayExecutor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # a token would be written to the user's home
        patch.delenv("RAY_ADDRESS", raising=False)
        with RayExecutor(Resources(cpus=1), cpus=2) as executor:
            yield executor


@pytest.mark.ray
@pytest.mark.slow
def test_ray_gives_back_what_went_wrong(on_ray: RayExecutor) -> None:
    assert on_ray.slots() == 2
    assert on_ray.wait(0.0) == []
    for seed in range(3):
        on_ray.submit(key(seed), trial(seed))
    results = dict(collect(on_ray, 3, 150))
    assert sorted(results) == [key(0), key(1), key(2)]
    assert {each.status for each in results.values()} == {"failed"}
    assert {each.reason for each in results.values()} == {
        "/nowhere.json: cannot be read: No such file or directory"
    }


@pytest.mark.ray
@pytest.mark.slow
def test_ray_cancels_for_real(on_ray: RayExecutor) -> None:
    on_ray.submit(key(0), trial(0, HANG))
    time.sleep(5)
    on_ray.cancel_all()
    on_ray.submit(key(1), trial(1))
    assert [k.seed for k, _ in collect(on_ray, 1, 120)] == [1]


@pytest.mark.ray
@pytest.mark.slow
def test_a_lost_worker_is_replaced_a_few_times_then_failed(
    on_ray: RayExecutor, tmp_path: Path
) -> None:
    import ray

    log = tmp_path / "attempts"

    @ray.remote(num_cpus=1, max_retries=0)
    def dies(spec: dict[str, Any], sent: object) -> None:
        with log.open("a") as file:
            file.write("x")
        os.kill(os.getpid(), 9)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_ray, "_task", dies)
        on_ray.submit(key(5), trial(5))
        ((found, result),) = collect(on_ray, 1, 120)
    assert found == key(5)
    assert result.status == "failed"
    assert "WorkerCrashedError" in result.reason
    assert log.read_text() == "x" * (1 + MAX_LOSSES)


@pytest.mark.ray
@pytest.mark.slow
def test_a_cluster_without_room_says_what_it_waits_for(on_ray: RayExecutor) -> None:
    assert on_ray.lacks() == ""
    with pytest.MonkeyPatch.context() as patch:
        on_ray._fitting.forget()
        patch.setattr(on_ray, "_resources", Resources(cpus=2, gpus=0.5, memory_gb=8))
        assert on_ray.lacks() == "a node with 2 CPUs, 0.5 GPUs, 8 GiB of memory"
        assert on_ray.slots() == 1
    on_ray._fitting.forget()
    assert on_ray.slots() == 2


def test_no_cluster_is_said_with_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    for address in ("127.0.0.1:1", "localhost:none"):
        with pytest.raises(JobError, match=f"no Ray cluster at {address}"):
            RayExecutor(Resources(), address=address)
