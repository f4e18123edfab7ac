"""A Ray cluster that goes as a whole and comes again, and one of whose nodes has a wrong clock."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from search_server.store import Store
from workers.data import digits

_spec = importlib.util.spec_from_file_location("faults", Path(__file__).with_name("faults.py"))
assert _spec is not None
assert _spec.loader is not None
faults: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(faults)
fake = faults.fake

pytestmark = [pytest.mark.ray, pytest.mark.slow]

DAY = 24 * 3600
SLEEP = 1.0  # seconds that a trial takes
# Without its head's memory Ray trains on where it has begun: a quick search would be done before
# anybody misses it.
LONG = 30.0


@pytest.fixture
def clusters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_home: Path
) -> Iterator[Callable[..., Any]]:
    """Starts clusters: a head and a node for each set of variables, with room for a trial each."""
    from ray.cluster_utils import Cluster
    from ray_nodes import one_at_a_time  # Ray's workers import this file, and have no such module

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # a token would be written to the user's home
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else other tests leave the trials no time
    monkeypatch.setenv("RAY_JEMALLOC_LIB_PATH", "")  # for which Ray replaces a node's LD_PRELOAD
    monkeypatch.setenv("FAULTS_PROGRAM", str(faults.PROGRAM))
    monkeypatch.setenv("FAULTS_SIGNED", str(tmp_path / "signed"))
    monkeypatch.setenv("FAULTS_SLEEP", str(SLEEP))
    made: list[Any] = []

    def start(*nodes: dict[str, str]) -> Any:
        head = {"num_cpus": 1}
        made.append(Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False))
        for variables in nodes:
            made[-1].add_node(num_cpus=1, env_vars=variables)
        return made[-1]

    with one_at_a_time():
        yield start
        for each in made:
            each.shutdown()


def signed(folder: Path) -> list[list[str]]:
    """Key, process, node and time of every trial that was begun, in their order."""
    file = folder / "signed"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def processes(cluster: Any, *kinds: str) -> list[int]:
    """Ids of a cluster's own processes of some kinds; of all if none is named."""
    nodes = [cluster.head_node, *cluster.worker_nodes]
    found = [each for node in nodes for each in node.all_processes.items()]
    return [each.process.pid for kind, some in found for each in some if kind in kinds or not kinds]


def end(cluster: Any, running: "subprocess.Popen[str]", how: str) -> str:
    """Has a whole cluster go, and its controller with it; the controller's last words."""
    if how == "stopped":
        cluster.shutdown()
    elif how == "lost its power":
        for pid in (running.pid, *processes(cluster)):
            os.kill(pid, signal.SIGKILL)
    else:
        for pid in processes(cluster, "gcs_server"):
            os.kill(pid, signal.SIGKILL)
    said, _ = running.communicate(timeout=150)
    cluster.shutdown()
    return said.strip()


@pytest.mark.parametrize("turn", faults.ROUNDS)
def test_the_whole_cluster_stopped_and_started_again(
    turn: int,
    clusters: Callable[..., Any],
    sqlite_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    how = ("stopped", "lost its power", "lost its head's memory")[turn % 3]
    # Data that are where they are: of what it was to send, Ray ends a process that has lost it.
    (tmp_path / "data").symlink_to(digits().root)
    names = ("search_train", "search_val")
    data = {
        name: {"annotations": f"{tmp_path}/data/{name}.json", "images": f"{tmp_path}/data/{name}"}
        for name in names
    }
    expected = faults.undisturbed(tmp_path, **faults.FEW, data=data)
    job = fake.new_job(sqlite_url, **faults.FEW, data=data)
    if how == "lost its head's memory":
        monkeypatch.setenv("FAULTS_SLEEP", str(LONG))
    first = clusters({})
    running = subprocess.Popen(
        [sys.executable, str(faults.RAY_PROGRAM), sqlite_url, job, first.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    faults.wait_for(lambda: faults.ended(sqlite_url) >= 2)
    faults.wait_for(lambda: len(signed(tmp_path)) > faults.ended(sqlite_url))
    said = end(first, running, how)
    monkeypatch.setenv("FAULTS_SLEEP", str(SLEEP))
    before = faults.finished(sqlite_url)
    with Store.open(sqlite_url) as store:
        left = store.job(job)
        had = [trial.spec_key for trial in store.trials(job) if trial.state != "running"]
    if how == "lost its power":
        assert (left.state, said) == ("running", "")
    else:
        assert said.startswith("Ray is gone: ")
        assert (left.state, left.reason) == ("interrupted", f"ClusterGone: {said}")
    begun = signed(tmp_path)
    assert {key for key, *_ in begun} > set(had)  # some were under way

    assert faults.on_ray.search(sqlite_url, job, clusters().address) == "done"
    assert before.items() <= faults.finished(sqlite_url).items()
    again = [key for key, *_ in signed(tmp_path)[len(begun) :] if key in had]
    faults.same_rows(f"Ray cluster {how}", sqlite_url, expected, Counter([*had, *again]))


@pytest.mark.parametrize("turn", faults.ROUNDS)
def test_a_worker_whose_clock_is_wrong_by_a_day(
    turn: int, clusters: Callable[..., Any], sqlite_url: str, tmp_path: Path
) -> None:
    """Of two nodes one is a day ahead or behind: its raylet and all processes on it."""
    wrong = (DAY, -DAY)[turn % 2]
    variables = faults.wrong_clock(wrong)
    expected = faults.undisturbed(tmp_path, **faults.FEW)
    job = fake.new_job(sqlite_url, **faults.FEW)
    assert faults.on_ray.search(sqlite_url, job, clusters(variables).address) == "done"
    clocks = [float(told) - time.time() for *_, told in signed(tmp_path)]
    assert any(abs(off - wrong) < DAY / 2 for off in clocks), clocks
    assert any(abs(off) < DAY / 2 for off in clocks), clocks
    times = Counter(key for key, *_ in signed(tmp_path))
    faults.same_rows("clock of a node wrong by a day", sqlite_url, expected, times)
