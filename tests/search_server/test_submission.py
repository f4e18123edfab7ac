"""A search submitted to a real Ray cluster from another folder: job, leaderboard, export."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ports import free_port

from search_server.attempts import cancel
from search_server.cluster import Cluster
from search_server.errors import JobError
from search_server.jobs import create_job
from search_server.spec import parse_spec
from search_server.store import Store
from search_server.submission import Wishes, read_store_file, resubmit, submit

SPEC = """
name: tiny
detector: digits/atss
branches: {bbox: {space: box}}
searcher: {population: 2, named: [giou-expression]}
funnel:
  verify: {max_draws: 3000}
  simulate: {steps: 2, batch_size: 2, keep: 1}
  proxy: {steps: 2, batch_size: 2}
candidates: 2
window: 2
resources: {cpus: 1, device: cpu}
"""
SECRET = "s3cret-folder"


@dataclass(frozen=True)
class Head:
    """A Ray head of its own, and the environment in which it and its users run."""

    address: str
    environment: dict[str, str]


TOKEN = "0123456789abcdef" * 4


@pytest.fixture(params=["open"])
def cluster(
    own_home: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Head]:
    """A head started in a home folder of its own; `token`: it wants a token."""
    user = tmp_path_factory.mktemp("user")
    environment = {**os.environ, "HOME": str(user), "RAY_USAGE_STATS_ENABLED": "0"}
    environment["LOSSFORGE_HOME"] = str(own_home)
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        environment.pop(name, None)
    if request.param == "token":
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    port, dashboard = free_port(), free_port()
    folder = Path("/tmp") / f"lf-ray-{os.getpid()}"  # sockets allow only short paths
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += [f"--port={port}", f"--dashboard-port={dashboard}", "--num-cpus=2"]
    command += ["--dashboard-host=127.0.0.1", f"--temp-dir={folder}", "--disable-usage-stats"]
    # Ports that are fixed by default are taken where there is another head.
    command += [f"--dashboard-agent-listen-port={free_port()}"]
    command += [f"--ray-client-server-port={free_port()}"]
    with (user / "ray.log").open("wb") as log:
        head = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{address}/api/version", timeout=2).close()
                break
            except urllib.error.HTTPError:
                break  # it is there, and wants a token
            except OSError:
                assert head.poll() is None, (user / "ray.log").read_text()
                assert time.monotonic() < deadline, (user / "ray.log").read_text()
                time.sleep(0.5)
        yield Head(address, environment)
    finally:
        head.send_signal(signal.SIGTERM)
        try:
            head.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
            head.wait(30)
        subprocess.run(["rm", "-rf", str(folder)], check=False)


@pytest.mark.ray
@pytest.mark.slow
def test_submit_leaderboard_and_export_from_another_folder(cluster: Head, tmp_path: Path) -> None:
    (tmp_path / SECRET).mkdir()
    (tmp_path / "job.yaml").write_text(SPEC)
    store = f"sqlite:///{tmp_path / SECRET / 'store.db'}"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def lossforge(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "search_server.cli", *command],
            cwd=elsewhere,
            env={**cluster.environment, "LOSSFORGE_STORE": store},
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    lossforge("submit", "../job.yaml", "--address", cluster.address)
    with Store.open(store) as opened:
        deadline = time.monotonic() + 240
        while (job := opened.latest_job()).state in ("created", "running"):
            assert time.monotonic() < deadline, ray_says(cluster)
            time.sleep(1)
        assert (job.id, job.state) == ("tiny-1", "done"), job.reason + ray_says(cluster)
        assert {trial.state for trial in opened.trials(job.id)} == {"done"}
    shown = ray_says(cluster)
    assert "tiny-1-a1" in shown
    assert SECRET not in shown

    board = json.loads(lossforge("leaderboard", "--json"))
    assert "tiny-1" in json.dumps(board)
    lossforge("export", "tiny-1", "-o", "best.py")
    assert "custom_imports" in (elsewhere / "best.py").read_text()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["token"], indirect=True)
def test_a_cluster_that_wants_a_token(
    cluster: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(JobError, match="RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN"):
        resubmit("tiny-1", url, cluster.address)
    (tmp_path / "token").write_text("f" * 64)
    with pytest.raises(JobError, match="RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN"):
        resubmit("tiny-1", url, cluster.address)
    (tmp_path / "token").write_text(TOKEN)
    with pytest.raises(JobError, match="tiny-1"):  # it got as far as the store
        resubmit("tiny-1", url, cluster.address)
    with Store.open(url) as store:
        job = create_job(store, parse_spec(SPEC))
    submission = resubmit(job, url, cluster.address, Wishes(python="/bin/false", patience=0))
    assert submission.submission_id == "tiny-1-a1"
    at_ray = Cluster(cluster.address)
    deadline = time.monotonic() + 60
    while at_ray.status("tiny-1-a1") != "FAILED":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    # The next attempt takes the next id, and is told of as soon as it has failed.
    with pytest.raises(JobError, match="has failed before it reached the store"):
        resubmit(job, url, cluster.address, Wishes(python="/bin/false", patience=60))
    with Store.open(url) as store:
        assert [each.attempt for each in store.submissions(job)] == [1, 2]
        assert cancel(store, job, 0) == "it did not run"
        assert store.job(job).state == "cancelled"


def ray_says(cluster: Head) -> str:
    """All that Ray's dashboard shows of its jobs, their logs included."""
    with urllib.request.urlopen(f"{cluster.address}/api/jobs/", timeout=10) as answer:
        jobs = answer.read().decode()
    for job in json.loads(jobs):
        logs = f"{cluster.address}/api/jobs/{job['submission_id']}/logs"
        with urllib.request.urlopen(logs, timeout=10) as answer:
            jobs += answer.read().decode()
    return jobs


def test_without_a_cluster_no_job_is_made(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(JobError, match=f"no Ray cluster answers at {address}"):
        submit(parse_spec(SPEC), url, address)
    with pytest.raises(JobError, match="no Ray cluster answers"):
        resubmit("tiny-1", url, address)
    assert not (tmp_path / "store.db").exists()


def test_a_store_file_holds_the_url(tmp_path: Path) -> None:
    file = tmp_path / "store-url"
    file.write_text("sqlite:////x.db\n")
    assert read_store_file(file) == "sqlite:////x.db"
    with pytest.raises(JobError, match="give --store instead"):
        read_store_file(tmp_path / "none")
