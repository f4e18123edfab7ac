"""A user of a three-node Ray cluster: every command from another folder, with PostgreSQL as store,
on a cluster that wants a token and on one that is open to all.

A job whose trials ask for a GPU, which no node has, costs a controller alone: it waits for one.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from ray_nodes import PATIENCE, TOKEN, three_nodes
from sqlalchemy import URL, make_url

from search_server.store import Store

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]
TOKEN_WANTED = pytest.mark.parametrize("user", ["token"], indirect=True)
OPEN = pytest.mark.parametrize("user", ["open"], indirect=True)
SPEC = """
name: tiny
detector: DETECTOR
branches: {bbox: {space: box}}
calibrate: false
searcher: {population: 2, named: [giou-expression]}
funnel:
  verify: {max_draws: 3000}
  proxy: {steps: 2, batch_size: 2}
candidates: 1
window: 1
resources: {cpus: 1, device: cpu}
"""
WAITING = SPEC.replace("tiny", "long").replace("cpus: 1,", "cpus: 1, gpus: 1,")
WAITING = WAITING.replace("candidates: 1\nwindow: 1", "candidates: 9\nwindow: 3")


@dataclass(frozen=True)
class User:
    """Who uses a cluster: his folder, his store, what his shell knows."""

    address: str
    folder: Path
    store: str
    environment: dict[str, str]

    def start(self, *command: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "search_server.cli", *command],
            cwd=self.folder,
            env={**self.environment, "LOSSFORGE_STORE": self.store},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str, status: int) -> tuple[str, str]:
        """What a command prints to stdout and to stderr."""
        process = self.start(*command)
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == status, f"{command}: {out}{err}"
        return out, err

    def __call__(self, *command: str) -> str:
        return self.run(*command, status=0)[0]

    def json(self, *command: str) -> Any:
        return json.loads(self(*command, "--json"))

    def refused(self, *command: str) -> str:
        return self.run(*command, status=2)[1]

    def until(self, true: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < deadline, self("status") + self("logs")
            time.sleep(0.2)


def wants_token(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/api/version", timeout=30).close()
    except urllib.error.HTTPError as error:
        return error.code == 401
    return False


@pytest.fixture(scope="module")
def user(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_database: Callable[[], AbstractContextManager[URL]],
    request: pytest.FixtureRequest,
) -> Iterator[User]:
    """Somebody with a token file, as any `ray.init` of his own leaves one behind, whether or not
    the cluster wants that token."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("elsewhere")
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text(TOKEN)
    environment = {**os.environ, "HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0"}
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        environment.pop(name, None)
    environment["LOSSFORGE_HOME"] = str(tmp_path_factory.getbasetemp() / "lossforge-home")
    mode = "token" if request.param == "token" else "disabled"
    # Ray's workers would step back behind everything else on this machine.
    nodes = {**environment, "RAY_AUTH_MODE": mode, "RAY_worker_niceness": "0"}
    # Modules of the user's own, and a detector that needs one.
    (folder / "mine").mkdir()
    (folder / "mine" / "own_module.py").write_text("from losses import apply_loss\n")
    base = Path("configs/detectors/digits/atss.py").absolute()
    imports = "custom_imports = dict(imports=['own_module'], allow_failed_imports=False)"
    (folder / "own_detector.py").write_text(f"_base_ = [{str(base)!r}]\n{imports}\n")
    for name, spec in (("tiny", SPEC), ("long", WAITING)):
        own = spec.replace("DETECTOR", str(folder / "own_detector.py"))
        (folder / f"{name}.yaml").write_text(own)
    log = tmp_path_factory.mktemp("ray") / "log"
    with postgres_database() as url, three_nodes(nodes, log) as address:
        assert wants_token(address) == (request.param == "token")
        yield User(address, folder, url.render_as_string(hide_password=False), environment)


def trainers(home: str) -> set[int]:
    """The processes of trials that have this home folder."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            arguments, variables = ((folder / name).read_bytes() for name in ("cmdline", "environ"))
            if b"workers." in arguments and f"LOSSFORGE_HOME={home}\0".encode() in variables:
                found.add(int(folder.name))
    return found


@pytest.fixture(scope="module")
def done(user: User) -> str:
    """A job that was submitted, whose controller was killed while a trial ran, that was resumed,
    and has run to its end."""
    job, home = "tiny-1", user.environment["LOSSFORGE_HOME"]
    others = trainers(home)  # of tests before this one
    send = ("--address", user.address, "--working-dir", "mine", "--wait", "600")
    sent = user.json("submit", "tiny.yaml", *send)
    assert (sent["submission_id"], sent["already"], sent["started"]) == (f"{job}-a1", False, True)
    with Store.open(user.store) as store:
        user.until(lambda: [t.state for t in store.trials(job)] == ["done", "running"])
        before, orphans = store.trials(job)[0], trainers(home) - others
        assert orphans
        os.kill(int((store.job(job).owner or "").split()[1]), signal.SIGKILL)
        user.until(lambda: not orphans & trainers(home))
        assert store.job_state(job) == "running"
        while (found := user.json("status", job))["ray"] == "RUNNING":  # for a tenth of a second
            time.sleep(0.2)
        assert found["ray"] == "FAILED"
        assert found["note"] == f"its controller is gone; lossforge resume {job}"
        sent = user.json("submit", "--resume", job, *send)
        assert (sent["submission_id"], sent["already"]) == (f"{job}-a2", False)
        assert sent["started"]
        user.until(lambda: store.job_state(job) not in ("created", "running"))
        assert store.trials(job)[0] == before
    return job


def send_long(user: User, *what: str) -> Any:
    """Submit a job that waits for a GPU, and see it begin."""
    more = ("--working-dir", "mine", "--wait-for-nodes", "--wait", "600")
    sent = user.json("submit", *what, "--address", user.address, *more)
    assert (sent["started"], sent["already"]) == (True, False)
    return sent


@TOKEN_WANTED
def test_a_job_from_its_submission_to_its_export(user: User, done: str) -> None:
    found = user.json("status", done)
    assert found["summary"]["state"] == "done", user("logs", done)
    assert found["trials"] == {"done": 2}  # the baseline and one more
    assert (found["attempt"]["address"], found["note"]) == (user.address, "")
    assert f"{done} is done" in user("logs", done, "--follow")
    (group,) = user.json("leaderboard", done)["groups"]
    assert {row["id"] for row in group["rows"]} == {f"{done}:0", f"{done}:1"}
    here = replace(user, environment={**user.environment, "PYTHONPATH": str(user.folder / "mine")})
    here("export", done, "-o", "best.py")
    assert "own_module" in (user.folder / "best.py").read_text()
    assert "is done" in user.refused("resume", done, "--address", user.address)


@OPEN
def test_a_job_is_followed_reported_and_obeys(user: User) -> None:
    said = user.refused("submit", "long.yaml", "--address", user.address, "--working-dir", "mine")
    assert "3 nodes with 1 CPUs, 0 GPUs" in said
    assert "--wait-for-nodes" in said
    long = send_long(user, "long.yaml")["job_id"]
    assert long == "long-1"  # what was refused is no job
    log = user.start("logs", long, "--follow")
    assert log.stdout is not None
    assert any("waiting for a node with 1 CPUs, 1 GPUs" in line for line in log.stdout)
    # Whoever sends it again is told where it runs.
    again = user.json("submit", "--resume", long, "--address", user.address)
    assert (again["submission_id"], again["already"]) == (f"{long}-a1", True)
    assert f"already runs as {long}-a1" in user("resume", long, "--address", "none")
    shown = user("status", long)
    assert "RUNNING" in shown
    assert "running" in shown
    assert long in json.dumps(user.json("leaderboard", long))
    assert log.poll() is None
    ended = user.json("cancel", long, "--wait", "600")
    assert ended == {"job": long, "state": "cancelled", "how": "its controller has obeyed"}
    rest, _ = log.communicate(timeout=PATIENCE)  # it ends with the attempt
    assert log.returncode == 0
    assert f"job {long} is cancelled" in rest
    assert f"job {long} is cancelled" in user("logs", long, "--attempt", "1")
    assert "no attempt 7" in user.refused("logs", long, "--attempt", "7")


@OPEN
def test_a_store_that_the_cluster_does_not_reach(user: User) -> None:
    """The user's shell has the password; the attempt, which has not, fails with its last words."""
    url = make_url(user.store)
    private = replace(
        user,
        store=url._replace(password=None).render_as_string(hide_password=False),
        environment={**user.environment, "PGPASSWORD": str(url.password)},
    )
    said = private.refused(
        "submit", "tiny.yaml", "--address", user.address, "--working-dir", "mine", "--wait", "600"
    )
    assert "tiny-1-a1" in said
    assert "has failed before it reached the store" in said
    assert "password" in said
    found = user.json("status", "tiny-1")
    assert (found["ray"], found["summary"]["state"]) == ("FAILED", "created")
    assert found["note"] == "its controller never began; lossforge logs tiny-1 says why"
    assert user.json("cancel", "tiny-1")["how"] == "it did not run"
