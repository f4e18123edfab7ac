"""A Ray cluster of three nodes for the tests that submit to one."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ports import free_port

# Not `ray start`, whose heads want two fixed ports, taken where there is another head. Ray itself
# gives up a node whose agents have not started after 15 s.
NODES = """
import sys
from ray.cluster_utils import Cluster

node = {"num_cpus": 1, "object_store_memory": 80_000_000, "dashboard_agent_listen_port": 0}
head = {"include_dashboard": True, "dashboard_port": int(sys.argv[1]), "temp_dir": sys.argv[2]}
cluster = Cluster(True, head_node_args={**node, **head, "dashboard_host": "127.0.0.1"})
for number in range(2):  # with folders of their own, or they unpack what is sent over each other's
    cluster.add_node(**node, runtime_env_dir_name=f"runtime_resources_{number}")
sys.stdin.read()
cluster.shutdown()
"""
TOKEN = "fedcba9876543210" * 4
PATIENCE = 300.0  # seconds; cores can be busy


# A node that gets no core for long is not dead.
PATIENT = {"RAY_health_check_timeout_ms": "60000", "RAY_health_check_failure_threshold": "20"}


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Waits until no other test of this user has a cluster of several nodes: two of them and what
    they train take the cores from Ray's own processes, and nodes are given up."""
    with open(Path(tempfile.gettempdir()) / f"lossforge-clusters-{os.getuid()}", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def alive(address: str) -> int:
    """How many nodes a cluster has; 0 too if nothing answers yet."""
    request = urllib.request.Request(
        f"{address}/api/v0/nodes", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            rows = json.load(answer)["data"]["result"]["result"]
    except OSError:
        return 0
    return sum(row["state"] == "ALIVE" for row in rows)


@contextmanager
def three_nodes(environment: dict[str, str], log: Path) -> Iterator[str]:
    """The address of a cluster of three nodes of one CPU each."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with (
        one_at_a_time(),
        tempfile.TemporaryDirectory(prefix="lf-ray-", dir="/tmp") as temp,
        log.open("wb") as file,
    ):
        nodes = subprocess.Popen(
            [sys.executable, "-P", "-c", NODES, str(port), temp],
            env={**environment, **PATIENT},
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + PATIENCE
            while alive(address) < 3:
                assert nodes.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.5)
            yield address
        finally:
            assert nodes.stdin is not None
            nodes.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                nodes.wait(60)
            with suppress(ProcessLookupError):
                os.killpg(nodes.pid, signal.SIGKILL)
            nodes.wait(60)
