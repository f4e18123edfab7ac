"""A search whose workers and nodes are lost comes to the rows of one that was left alone."""

import importlib.util
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from search_server.controller import run_job
from search_server.executors.ray import RayExecutor
from search_server.spec import Resources
from search_server.store import Store

pytestmark = [pytest.mark.ray, pytest.mark.slow]

_spec = importlib.util.spec_from_file_location("faults", Path(__file__).with_name("faults.py"))
assert _spec is not None
assert _spec.loader is not None
faults: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(faults)
fake = faults.fake

SMALL = {"candidates": 11}
SLEEP = 1.5  # seconds that a trial takes: a process outlives its node by some tenths


def slow_trial(spec_json: Mapping[str, Any], sent: Sequence[Any] = ()) -> dict[str, Any]:
    """The closed formula of `fake_search`, a while after its process has signed the list."""
    import importlib.util as machinery
    import time as clock

    found = machinery.spec_from_file_location("fake_search", os.environ["FAULTS_PROGRAM"])
    module = machinery.module_from_spec(found)
    found.loader.exec_module(module)
    import ray

    from workers import TrialSpec

    spec = TrialSpec.from_json(spec_json)
    with Path(os.environ["FAULTS_SIGNED"]).open("a") as file:
        file.write(f"{os.getpid()} {ray.get_runtime_context().get_node_id()}\n")
    clock.sleep(float(os.environ["FAULTS_SLEEP"]))
    return module.fake_trial(spec).to_json()


@pytest.fixture
def undisturbed(tmp_path: Path) -> dict[str, Any]:
    """The rows of the search without Ray and without faults."""
    return faults.undisturbed(tmp_path, **SMALL)


@pytest.fixture
def cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_home: Path
) -> Iterator[tuple[Any, list[Any]]]:
    """A head without room for trials, and two nodes with room for one each."""
    from ray.cluster_utils import Cluster
    from ray_nodes import one_at_a_time  # Ray's workers import this file, and have no such module

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # a token would be written to the user's home
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("FAULTS_PROGRAM", str(faults.PROGRAM))
    monkeypatch.setenv("FAULTS_SIGNED", str(tmp_path / "signed"))
    monkeypatch.setenv("FAULTS_SLEEP", str(SLEEP))
    with one_at_a_time():
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0}, shutdown_at_exit=False)
        nodes = [made.add_node(num_cpus=1) for _ in range(2)]
        yield made, nodes
        made.shutdown()


def signed(folder: Path) -> list[tuple[int, str]]:
    """Process and node of every trial that was begun, in their order."""
    try:
        lines = (folder / "signed").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [(int(pid), node) for pid, node in map(str.split, lines)]


def search(url: str, job: str, address: str, fault: Callable[[], None]) -> str:
    """Runs the job on the cluster in a thread, for only the main one may start nodes."""
    with (
        Store.open(url) as store,
        RayExecutor(Resources(cpus=1), address, trial=slow_trial) as executor,
        ThreadPoolExecutor(1) as thread,
    ):
        running = thread.submit(run_job, store, job, executor, trace=1)
        fault()
        return running.result(timeout=300)


@pytest.mark.parametrize("turn", faults.ROUNDS)
def test_workers_killed_and_a_node_lost_and_one_that_comes_late(
    turn: int,
    cluster: tuple[Any, list[Any]],
    undisturbed: dict[str, Any],
    sqlite_url: str,
    tmp_path: Path,
) -> None:
    """All in one search, for starting Ray takes longer than what is tested."""
    (ray_cluster, nodes), url = cluster, sqlite_url
    job = fake.new_job(url, **SMALL)
    late: list[str] = []

    def begun_on(nodes: set[str]) -> int:
        """Waits for a trial to begin on one of these nodes; its process."""
        before = len(signed(tmp_path))
        new = faults.wait_for(lambda: [pid for pid, n in signed(tmp_path)[before:] if n in nodes])
        return int(new[-1])

    def disturb() -> None:
        faults.wait_for(lambda: faults.ended(url) >= 2)
        os.kill(begun_on({node.node_id for node in nodes}), signal.SIGKILL)
        faults.wait_for(lambda: faults.ended(url) >= 6)
        begun_on({nodes[0].node_id})
        ray_cluster.remove_node(nodes[0], allow_graceful=False)
        faults.wait_for(lambda: faults.ended(url) >= 9)
        late.append(ray_cluster.add_node(num_cpus=2).node_id)
        begun_on(set(late))

    assert search(url, job, ray_cluster.address, disturb) == "done"
    faults.same_rows("worker killed, node lost, node late", url, undisturbed, Counter())
    trained = [trial for trial in undisturbed["trials"] if trial["reused_from"] is None]
    again = len(signed(tmp_path)) - len(trained)
    assert again >= 2, signed(tmp_path)  # the trial of the worker, and that of the node
