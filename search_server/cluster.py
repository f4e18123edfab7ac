"""A Ray cluster seen from outside, over the Jobs API and the nodes' list of its dashboard."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from search_server.errors import JobError, SearchError
from search_server.ray_token import TOKEN_CURE, own_token

if TYPE_CHECKING:
    from search_server.spec import Resources

LIVE = ("PENDING", "RUNNING")
GIB = 2**30
ANSWER_SECONDS = 15.0
_OVERRIDE = "RAY_API_SERVER_ADDRESS"


@dataclass(frozen=True)
class Node:
    """A live node: its address, and how much of what it has (`CPU`, `GPU`, `memory` in bytes)."""

    ip: str
    resources: dict[str, float]

    def room(self, needs: Resources, driver_cpus: float = 0.0) -> int:
        """How many trials fit, beside a controller."""
        wanted = {"CPU": needs.cpus, "GPU": needs.gpus, "memory": GIB * (needs.memory_gb or 0.0)}
        has = {**self.resources, "CPU": self.resources.get("CPU", 0.0) - driver_cpus}
        return min(int(has.get(name, 0.0) // need) for name, need in wanted.items() if need > 0)


class Cluster:
    """A cluster that has answered, with the token that it wants.

    Args:
        address: of its dashboard, `http://HOST:8265`.

    Raises:
        JobError: the address is none, nothing answers, the token is missing or wrong, or its Ray is
            another version than ours.
    """

    def __init__(self, address: str) -> None:
        self.address = checked_address(address)
        self._client, self._headers = _client(self.address)
        self._check_version()

    def status(self, submission_id: str) -> str | None:
        """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED; None: it knows no such attempt."""
        with self._explained():
            for details in self._client.list_jobs():
                if details.submission_id == submission_id:
                    return str(details.status.value)
        return None

    def known(self) -> set[str]:
        """All submission ids it has, the ended ones too."""
        with self._explained():
            return {str(each.submission_id) for each in self._client.list_jobs()}

    def log(self, submission_id: str) -> str:
        """All that an attempt has printed."""
        with self._explained():
            return str(self._client.get_job_logs(submission_id))

    async def tail(self, submission_id: str) -> AsyncIterator[str]:
        """What an attempt has printed and prints, until it ends.

        Raises:
            JobError: the cluster has stopped sending it before.
        """
        with self._explained():
            async for text in self._client.tail_job_logs(submission_id):
                yield text
            if self.status(submission_id) in LIVE:  # Ray says nothing of a node that it lost
                raise JobError(
                    f"the cluster at {self.address} has stopped sending the log of "
                    f"{submission_id}, which has not ended; ask again"
                )

    def stop(self, submission_id: str) -> None:
        """Ask for SIGTERM now, and SIGKILL three seconds later."""
        with self._explained():
            self._client.stop_job(submission_id)

    def submit(self, **what: Any) -> None:
        """Start an attempt; arguments: `JobSubmissionClient.submit_job`."""
        self._client.submit_job(**what)

    def nodes(self) -> list[Node]:
        """Its live nodes. The head is one, but a cluster that has just been started answers before
        it knows even that, so it is given some seconds."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while not (found := self._known_nodes()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return found

    def _known_nodes(self) -> list[Node]:
        with self._explained():
            rows = self._get("/api/v0/nodes")["data"]["result"]["result"]
        return [
            Node(str(row["node_ip"]), dict(row["resources_total"] or {}))
            for row in rows
            if row["state"] == "ALIVE"
        ]

    def _get(self, path: str) -> Any:
        request = urllib.request.Request(self.address + path, headers=self._headers)
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            return json.load(answer)

    def _check_version(self) -> None:
        import ray

        with self._explained():
            theirs = str(self._get("/api/version")["ray_version"])
        if theirs.split(".")[:2] != ray.__version__.split(".")[:2]:
            raise JobError(
                f"the cluster at {self.address} runs Ray {theirs}, this is Ray {ray.__version__}; "
                f"both need the same version: pip install 'ray[default]=={theirs}' here, or give "
                "the cluster ours"
            )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except SearchError:
            raise
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise JobError(f"the Ray cluster at {self.address} does not say: {lines[0]}") from error


def checked_address(address: str) -> str:
    """The address without a slash at its end.

    Raises:
        JobError: it is no `http://HOST:PORT`.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise JobError(
            f"{address!r} is no cluster to submit to; give the address of its dashboard, "
            "http://HOST:8265"
        )
    return address.rstrip("/")


def on_this_machine(nodes: Sequence[Node]) -> bool:
    """Whether every node has an address of this machine: files here are files there."""
    return bool(nodes) and all(_own(node.ip) for node in nodes)


def described(nodes: Sequence[Node]) -> str:
    """What the nodes have, for people: `2 nodes with 4 CPUs, 1 GPUs, 3.9 to 4.0 GiB of memory`."""
    alike: dict[str, list[float]] = {}
    for node in nodes:
        has = f"{node.resources.get('CPU', 0.0):g} CPUs, {node.resources.get('GPU', 0.0):g} GPUs"
        alike.setdefault(has, []).append(node.resources.get("memory", 0.0) / GIB)
    parts = []
    for has, memory in alike.items():
        # Each node says what was free when it started, so no two have the same.
        least, most = f"{min(memory):.1f}", f"{max(memory):.1f}"
        span = least if least == most else f"{least} to {most}"
        count = f"{len(memory)} node{'s' * (len(memory) > 1)}"
        parts.append(f"{count} with {has}, {span} GiB of memory")
    return "; ".join(parts) or "no nodes"


def _own(ip: str) -> bool:
    """Only an own address can be bound to."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET) as probe:
            probe.bind((ip, 0))
    except OSError:
        return False
    return True


def _client(address: str) -> tuple[Any, dict[str, str]]:
    """A client of the Jobs API, and the headers it sends; this user's token where one is wanted.

    Raises:
        JobError: nothing answers, or the token is missing or wrong.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    token = own_token()
    tries: list[dict[str, str]] = [{}]
    if token is not None:
        with_token = {"Authorization": f"Bearer {token}"}
        wanted = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
        tries = [with_token] if wanted else [{}, with_token]  # nobody else learns of it
    refusal: Exception | None = None
    for headers in tries:
        try:
            with _addressed(address):
                return JobSubmissionClient(address, headers=dict(headers)), headers
        except AuthenticationError as error:
            refusal = error
        except Exception as error:
            raise JobError(
                f"no Ray cluster answers at {address} ({type(error).__name__}); start one with "
                "`ray start --head`, or give the address of its dashboard, http://HOST:8265"
            ) from error
    raise JobError(f"{address}: {TOKEN_CURE}") from refusal


@contextlib.contextmanager
def _addressed(address: str) -> Iterator[None]:
    """Ray lets environment variables override the address that it is given."""
    before = os.environ.get(_OVERRIDE)
    os.environ[_OVERRIDE] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ[_OVERRIDE]
        else:
            os.environ[_OVERRIDE] = before
