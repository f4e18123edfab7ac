"""A service whose searches run on a Ray cluster: submitted by its API, killed and refused there."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
from ports import free_port
from ray_nodes import three_nodes
from sqlalchemy import URL

from search_server.client import Client
from search_server.errors import ServiceError
from search_server.store import Store

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(3600)]
PATIENCE = 900.0  # seconds; a machine may have other work
SPEC: dict[str, Any] = {
    "name": "tiny",
    "detector": "digits/atss",
    "branches": {"bbox": {"space": "box"}},
    "calibrate": False,
    "searcher": {"population": 2, "named": ["giou-expression"]},
    "funnel": {"verify": {"max_draws": 3000}, "proxy": {"steps": 2, "batch_size": 2}},
    "candidates": 1,
    "window": 1,
    "resources": {"cpus": 1, "device": "cpu"},
}


@dataclass
class Team:
    """A store that a cluster reaches, and a service beside it."""

    store: Store
    client: Client

    def until(self, true: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE
        while not (found := true()):
            assert time.monotonic() < deadline, [
                (job.id, job.state, job.reason, self.store.request_of(job.id))
                for job in self.store.jobs()
            ]
            time.sleep(0.2)
        return found

    def submitted(self, **changes: Any) -> str:
        def try_once() -> str | None:
            with suppress(ServiceError):  # it has not loaded what checks specs
                return str(self.client.submit({**SPEC, **changes}, "key" + str(changes))["id"])
            return None

        return str(self.until(try_once))


@pytest.fixture(scope="module")
def team(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_database: Callable[[], AbstractContextManager[URL]],
) -> Iterator[Team]:
    home = tmp_path_factory.mktemp("home")
    environment = {**os.environ, "HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0"}
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        environment.pop(name, None)
    environment |= {"RAY_AUTH_MODE": "disabled", "LOSSFORGE_HOME": str(home)}
    nodes = {**environment, "RAY_worker_niceness": "0"}
    log = tmp_path_factory.mktemp("ray") / "log"
    port = free_port()
    with postgres_database() as url, three_nodes(nodes, log) as address:
        place = url.render_as_string(hide_password=False)
        config = home / "service.yaml"
        config.write_text(json.dumps({"runs": {"where": address, "at_once": 3}}))
        with Store.open(place) as store:
            service = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "search_server.cli", "serve"),
                    *("--port", str(port), "--config", str(config)),
                ],
                env={**environment, "LOSSFORGE_STORE": place},
                stdout=subprocess.DEVNULL,
            )
            try:
                with Client(f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
                    yield Team(store, client)
            finally:
                service.kill()
                service.wait()


def test_a_search_whose_controller_dies_there_is_started_again(team: Team) -> None:
    job, store = team.submitted(), team.store
    team.until(lambda: [trial.state for trial in store.trials(job)] == ["done", "running"])
    before = store.trials(job)[0]
    os.kill(int((store.job(job).owner or "").split()[1]), signal.SIGKILL)
    team.until(lambda: (found := store.request_of(job)) and found.settled)
    assert store.job(job).state == "done", store.job(job).reason
    assert [each.submission_id for each in store.submissions(job)] == [f"{job}-a1", f"{job}-a2"]
    assert [trial.state for trial in store.trials(job)] == ["done", "done"]
    assert store.trials(job)[0] == before
    assert [each["id"] for each in team.client.jobs()] == [job]


def test_what_the_cluster_has_no_room_for_waits_and_says_so(team: Team) -> None:
    job = team.submitted(name="large", resources={"cpus": 1, "gpus": 1, "device": "cpu"})
    note = team.until(lambda: team.client.job(job)["progress"]["note"])
    assert "3 nodes with 1 CPUs, 0 GPUs" in note
    assert team.store.submissions(job) == []
    assert team.client.cancel(job)["state"] == "cancelled"
    team.until(lambda: (found := team.store.request_of(job)) and found.settled)
