"""A user of a three-node Ray cluster: every command from another folder, with PostgreSQL as store,
with and without a token."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from losses import configs_dir
from search_server.store import Store

SPEC = """
name: tiny
detector: digits/atss
branches: {bbox: {space: box}}
calibrate: false
searcher: {population: 2, named: [giou-expression]}
funnel:
  verify: {max_draws: 3000}
  proxy: {steps: 2, batch_size: 2}
candidates: 2
window: 2
resources: {cpus: 1, device: cpu}
"""
LONG = SPEC.replace("steps: 2,", "steps: 200000,").replace("name: tiny", "name: long")
TOKEN = "fedcba9876543210" * 4


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class User:
    """Who uses a cluster: his folder, his store, what his shell knows."""

    address: str
    folder: Path
    store: str
    environment: dict[str, str]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "search_server.cli", *command],
            cwd=self.folder,
            env={**self.environment, "LOSSFORGE_STORE": self.store},
            capture_output=True,
            text=True,
            timeout=280,
        )

    def __call__(self, *command: str) -> str:
        done = self.run(*command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *command: str) -> Any:
        return json.loads(self(*command, "--json"))

    def refused(self, *command: str) -> str:
        done = self.run(*command)
        assert done.returncode == 2, f"{command}: {done.stdout}{done.stderr}"
        return done.stderr

    def until(self, true: Callable[[Store], bool], seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        with Store.open(self.store) as store:
            while not true(store):
                assert time.monotonic() < deadline, self.run("status").stdout
                time.sleep(0.5)


def answers(address: str) -> str:
    """`open`, or `token` if it wants one; empty: nobody is there."""
    try:
        urllib.request.urlopen(f"{address}/api/version", timeout=2).close()
    except urllib.error.HTTPError as error:
        return "token" if error.code == 401 else ""
    except OSError:
        return ""
    return "open"


@pytest.fixture(params=["open", "token"])
def user(
    own_home: Path, tmp_path: Path, postgres_url: str, request: pytest.FixtureRequest
) -> Iterator[User]:
    """Three nodes of one CPU, each a `ray start` of its own, in a home folder of their own."""
    home, folder = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    folder.mkdir()
    environment = {**os.environ, "HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0"}
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        environment.pop(name, None)
    environment["LOSSFORGE_HOME"] = str(own_home)
    # The user has a token file, as any `ray.init` of his own leaves one behind. Nodes of a user who
    # has one want the token; those of one who has none are open.
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text(TOKEN)
    nodes_see = dict(environment)
    if request.param == "open":
        (tmp_path / "other-home").mkdir()
        nodes_see["HOME"] = str(tmp_path / "other-home")
    port, dashboard = free_port(), free_port()
    temp = tempfile.mkdtemp(prefix="lf-ray-", dir="/tmp")  # sockets allow only short paths
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
    start += ["--disable-usage-stats", "--object-store-memory=80000000"]
    head = ["--head", f"--port={port}", f"--dashboard-port={dashboard}", f"--temp-dir={temp}"]
    head += ["--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1"]
    address = f"http://127.0.0.1:{dashboard}"
    running: list[subprocess.Popen[bytes]] = []
    try:
        with (tmp_path / "ray.log").open("wb") as log:

            def node(*options: str) -> None:
                made = subprocess.Popen(
                    [*start, *options],
                    env=nodes_see,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
                running.append(made)

            node(*head)
            deadline = time.monotonic() + 120
            while not answers(address):
                assert running[0].poll() is None, (tmp_path / "ray.log").read_text()
                assert time.monotonic() < deadline, (tmp_path / "ray.log").read_text()
                time.sleep(0.5)
            assert answers(address) == request.param
            for _ in range(2):
                node(f"--address=127.0.0.1:{port}", "--node-ip-address=127.0.0.1")
            yield User(address, folder, postgres_url, environment)
    finally:
        for each in reversed(running):
            each.send_signal(signal.SIGTERM)
        for each in running:
            try:
                each.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(each.pid, signal.SIGKILL)
                each.wait(30)
        subprocess.run(["rm", "-rf", temp], check=False)


@pytest.mark.ray
@pytest.mark.slow
def test_a_user_of_three_nodes(user: User) -> None:
    (user.folder / "tiny.yaml").write_text(SPEC)
    (user.folder / "long.yaml").write_text(LONG)
    at = ("--address", user.address)

    # A job from its submission to its export, with a module of the user's own, whose `losses` are
    # not taken for ours.
    (user.folder / "mine" / "losses").mkdir(parents=True)
    (user.folder / "mine" / "losses" / "__init__.py").write_text("raise SystemExit")
    (user.folder / "mine" / "own_module.py").write_text("from losses import apply_loss\n")
    base = configs_dir() / "detectors" / "digits" / "atss.py"
    (user.folder / "own_detector.py").write_text(
        f"_base_ = [{str(base)!r}]\n"
        "custom_imports = dict(imports=['own_module'], allow_failed_imports=False)\n"
    )
    own = SPEC.replace("digits/atss", str(user.folder / "own_detector.py"))
    (user.folder / "own.yaml").write_text(own)
    assert "own_module" in user.refused("submit", "own.yaml", *at)
    sent = user.json("submit", "own.yaml", *at, "--working-dir", "mine")
    assert (sent["submission_id"], sent["already"]) == ("tiny-1-a1", False)
    user.until(lambda store: store.job("tiny-1").state not in ("created", "running"))
    found = user.json("status", "tiny-1")
    assert found["summary"]["state"] == "done", user("logs", "tiny-1")
    assert found["trials"] == {"done": 3}  # the baseline and two more
    assert found["attempt"]["address"] == user.address
    assert "tiny-1 is done" in user("logs", "tiny-1", "--follow")
    assert "tiny-1" in json.dumps(user.json("leaderboard"))
    user("export", "tiny-1", "-o", "best.py")
    assert "custom_imports" in (user.folder / "best.py").read_text()
    assert "is done" in user.refused("resume", "tiny-1", *at)

    # One that is submitted twice, killed, resumed and cancelled.
    user("submit", "long.yaml", *at)
    user.until(lambda store: len(store.trials("long-1")) > 0)
    again = user.json("resume", "long-1", *at)
    assert (again["submission_id"], again["already"]) == ("long-1-a1", True)
    assert "already runs as long-1-a1" in user("submit", "--resume", "long-1", *at)
    assert "already runs as long-1-a1" in user("resume", "long-1", "--address", "none")
    shown = user("status", "long-1")
    assert "RUNNING" in shown
    assert "1 running" in shown or "2 running" in shown
    with Store.open(user.store) as store:
        pid = int((store.job("long-1").owner or "").split()[1])
        assert [each.attempt for each in store.submissions("long-1")] == [1]
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while user.json("status", "long-1")["ray"] in ("RUNNING", "PENDING"):
        assert time.monotonic() < deadline
    assert "its controller is gone; lossforge resume long-1" in " ".join(
        user("status", "long-1").split()
    )
    resumed = user.json("resume", "long-1", *at)
    assert (resumed["submission_id"], resumed["already"]) == ("long-1-a2", False)
    user.until(lambda store: store.job("long-1").owner not in (None, ""))
    ended = user.json("cancel", "long-1", "--wait", "60")
    assert ended == {
        "job": "long-1",
        "state": "cancelled",
        "how": "its controller has obeyed",
    }
    assert "takes over all its finished trials" in user.refused("resume", "long-1", *at)
    assert user("logs", "long-1", "--attempt", "1") is not None
    assert "no attempt 7" in user.refused("logs", "long-1", "--attempt", "7")

    # What cannot work is refused before there is a job, or said at once.
    (user.folder / "gpu.yaml").write_text(SPEC.replace("cpus: 1,", "cpus: 1, gpus: 1,"))
    said = user.refused("submit", "gpu.yaml", *at)
    assert "3 nodes with 1 CPUs, 0 GPUs" in said
    assert "--wait-for-nodes" in said
    with Store.open(user.store) as store:
        assert [job.id for job in store.jobs()] == ["tiny-1", "long-1"]

    # A store that only the user reaches: the attempt fails, and its last words are shown.
    url = make_url(user.store)
    private = replace(
        user,
        store=url.set(password=None).render_as_string(),
        environment={**user.environment, "PGPASSWORD": str(url.password)},
    )
    said = private.refused("submit", "tiny.yaml", *at, "--wait", "100")
    assert "tiny-2-a1" in said
    assert "password" in said
    assert "has failed before it reached the store" in said
    assert user.json("status", "tiny-2")["ray"] == "FAILED"
    assert user.json("cancel", "tiny-2")["how"] == "it did not run"

    # A controller that does not obey is stopped: SIGTERM, then SIGKILL.
    user("submit", "long.yaml", *at)
    user.until(lambda store: len(store.trials("long-2")) > 0)
    with Store.open(user.store) as store:
        pid = int((store.job("long-2").owner or "").split()[1])
    os.kill(pid, signal.SIGSTOP)
    ended = user.json("cancel", "long-2", "--wait", "2")
    assert (ended["state"], ended["how"]) == ("cancelled", "its attempt at Ray was stopped")
    assert user.json("status", "long-2")["summary"]["state"] == "cancelled"
