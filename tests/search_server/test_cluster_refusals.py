"""What is refused before a job is made: clusters of another Ray, elsewhere, or without room."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import ray

from search_server.cluster import Node, checked_address, described, on_this_machine
from search_server.errors import JobError
from search_server.spec import Resources, parse_spec
from search_server.submission import Wishes, reserved_cpus, submit

SPEC = """
name: tiny
detector: digits/atss
branches: {bbox: {space: box}}
candidates: 2
resources: {cpus: 2, gpus: 1, device: cpu}
"""
ELSEWHERE = "203.0.113.7"  # of a block that is kept for documentation: no machine has it
GIB = 2**30


def answer(version: str, nodes: list[Node]) -> dict[str, Any]:
    """What a dashboard says that has this version and these nodes."""
    rows = [
        {"node_ip": each.ip, "state": "ALIVE", "resources_total": each.resources} for each in nodes
    ]
    dead = {"node_ip": ELSEWHERE, "state": "DEAD", "resources_total": {"CPU": 64, "GPU": 8}}
    return {
        "/api/version": {"version": "4", "ray_version": version, "ray_commit": ""},
        "/api/v0/nodes": {"data": {"result": {"total": len(rows), "result": [*rows, dead]}}},
    }


@pytest.fixture
def dashboard() -> Iterator[Callable[..., str]]:
    """Serves what clusters say that this machine cannot have; gives their address."""
    servers = []

    def serve(version: str, *nodes: Node) -> str:
        says = answer(version, list(nodes))

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = says.get(self.path)
                body = json.dumps(found).encode()
                self.send_response(404 if found is None else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Nobody reads it."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def refusal(address: str, url: str, wishes: Wishes | None = None) -> str:
    with pytest.raises(JobError) as caught:
        submit(parse_spec(SPEC), url, address, wishes=wishes)
    return str(caught.value)


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[str]:
    """A store that must not have been made when the test ends."""
    yield f"sqlite:///{tmp_path / 'store.db'}"
    assert not (tmp_path / "store.db").exists()


def test_another_ray(dashboard: Callable[..., str], sqlite: str) -> None:
    said = refusal(dashboard("2.9.3"), sqlite)
    assert f"runs Ray 2.9.3, this is Ray {ray.__version__}" in said
    assert "ray[default]==2.9.3" in said


def test_a_file_is_no_store_for_another_machine(dashboard: Callable[..., str], sqlite: str) -> None:
    address = dashboard(ray.__version__, Node("127.0.0.1", {"CPU": 4.0}), Node(ELSEWHERE, {}))
    assert "--store postgresql://" in refusal(address, sqlite)


def test_no_node_has_room(dashboard: Callable[..., str], sqlite: str) -> None:
    nodes = [Node("127.0.0.1", {"CPU": 4.0}), Node("127.0.0.1", {"CPU": 1.0, "GPU": 4.0})]
    said = refusal(dashboard(ray.__version__, *nodes), sqlite)
    assert "a trial takes 2 CPUs, 1 GPUs; no node" in said
    assert "1 node with 4 CPUs, 0 GPUs, 0.0 GiB of memory; 1 node with 1 CPUs, 4 GPUs" in said
    assert "--wait-for-nodes" in said
    room = Node("127.0.0.1", {"CPU": 4.0, "GPU": 1.0, "memory": 8.0 * GIB})
    said = refusal(dashboard(ray.__version__, room), sqlite, Wishes(driver_cpus=5))
    assert "--driver-cpus 5: no node" in said


def test_addresses() -> None:
    assert checked_address("http://head:8265/") == "http://head:8265"
    for wrong in ("head:8265", "ray://head:10001", "auto", "http://", ""):
        with pytest.raises(JobError, match="http://HOST:8265"):
            checked_address(wrong)


def test_what_nodes_are() -> None:
    here, there = Node("127.0.0.1", {"CPU": 2.0}), Node(ELSEWHERE, {"CPU": 2.0})
    assert on_this_machine([here, here])
    assert not on_this_machine([here, there])
    assert not on_this_machine([])
    alike = [Node(ELSEWHERE, {"CPU": 2.0, "memory": each * GIB}) for each in (3.0, 4.0, 3.5)]
    assert described(alike) == "3 nodes with 2 CPUs, 0 GPUs, 3.0 to 4.0 GiB of memory"
    assert described([here, there]) == "2 nodes with 2 CPUs, 0 GPUs, 0.0 GiB of memory"
    assert described([]) == "no nodes"


@pytest.mark.parametrize(
    ("cpus", "trial", "kept"),
    [
        ([1.0], 1.0, 0.0),  # the one CPU is for the trials
        ([2.0], 1.0, 1.0),
        ([1.0, 1.0, 1.0], 1.0, 1.0),
        ([2.0], 2.0, 0.0),
        ([4.0, 1.0], 4.0, 1.0),
        ([0.5], 0.5, 0.0),
        ([], 1.0, 0.0),  # nodes to come
        ([1.0], 4.0, 1.0),
    ],
)
def test_the_controller_takes_a_cpu_where_trials_have_room_beside_it(
    cpus: list[float], trial: float, kept: float
) -> None:

    nodes = [Node("127.0.0.1", {"CPU": each}) for each in cpus]
    assert reserved_cpus(Resources(cpus=trial), nodes) == kept
