"""Submits a search to a Ray cluster: the job's row is written here, the controller runs there."""

from __future__ import annotations

import ipaddress
import os
import shlex
import socket
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from search_server.errors import JobError, SearchError
from search_server.executors.ray import TOKEN_CURE
from search_server.jobs import create_job
from search_server.spec import JobSpec
from search_server.store import Store

STORE_FILE = "store-url"


@dataclass(frozen=True)
class Submission:
    """A search on a cluster: its job in the store, its id at Ray, the cluster's address."""

    job_id: str
    submission_id: str
    address: str


def submit(
    spec: JobSpec,
    store_url: str,
    address: str,
    source: object = "spec",
    python: str | None = None,
    driver_cpus: float = 0.0,
) -> Submission:
    """Create a job in the store and start its controller on a cluster.

    Args:
        store_url: must lead to the same database from the cluster.
        address: of the cluster's Jobs API, `http://head:8265`.
        python: the interpreter there that has this project; None: this one if the cluster is on
            this machine, else `python`.
        driver_cpus: CPUs that Ray reserves for the controller, which mostly waits.

    Raises:
        JobError: no cluster answers at the address, it wants a token, or it refuses.
        SpecError: see `create_job`.
    """
    client = _client(address)  # first of all: without a cluster no job is created
    with Store.open(store_url) as store:
        job_id = create_job(store, spec, source)
    return _start(client, job_id, store_url, address, python, driver_cpus)


def resubmit(
    job_id: str,
    store_url: str,
    address: str,
    python: str | None = None,
    driver_cpus: float = 0.0,
) -> Submission:
    """Go on with an interrupted job on a cluster. Arguments and errors: `submit`."""
    client = _client(address)
    with Store.open(store_url) as store:
        store.job(job_id)
    return _start(client, job_id, store_url, address, python, driver_cpus)


def read_store_file(path: str | Path) -> str:
    """The store's URL from a file that `submit` sent along.

    Raises:
        JobError: cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"{path}: cannot be read ({error}); give --store instead") from error


def _start(
    client: Any,
    job_id: str,
    store_url: str,
    address: str,
    python: str | None,
    driver_cpus: float,
) -> Submission:
    submission_id = _free_id(client, job_id)
    interpreter = python or (sys.executable if _is_here(address) else "python")
    command = [interpreter, "-P", "-m", "search_server.cli", "resume", job_id]
    with tempfile.TemporaryDirectory(prefix="lossforge-") as folder:
        # The URL can hold a password. It travels as a file: entrypoints, metadata and environments
        # are shown to whoever opens the dashboard.
        secret = Path(folder) / STORE_FILE
        secret.touch(mode=0o600)
        secret.write_text(store_url, encoding="utf-8")
        try:
            client.submit_job(
                entrypoint=shlex.join([*command, "--store-file", STORE_FILE]),
                submission_id=submission_id,
                runtime_env={
                    "working_dir": folder,
                    "env_vars": {"PYTHONSAFEPATH": "1"},
                },
                metadata={"lossforge_job": job_id},
                entrypoint_num_cpus=driver_cpus or None,
            )
        except Exception as error:
            message = str(error).replace(store_url, "(store)")
            raise JobError(
                f"job {job_id} is in the store, but Ray at {address} refused it: {message}"
            ) from error
    return Submission(job_id, submission_id, address)


def _client(address: str) -> Any:
    """A client of the cluster's Jobs API; a token file of this user's is used where one is wanted.

    Raises:
        JobError: nothing answers, or the token is missing or wrong.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    headers: dict[str, str] | None = None
    for attempt in range(2):
        try:
            return JobSubmissionClient(address, headers=headers)
        except AuthenticationError as error:
            token = _token()
            if attempt or token is None:
                raise JobError(f"{address}: {TOKEN_CURE}") from error
            headers = {"Authorization": f"Bearer {token}"}
        except SearchError:
            raise
        except Exception as error:
            raise JobError(
                f"no Ray cluster answers at {address} ({type(error).__name__}); start one with "
                "`ray start --head`, or give the address of its dashboard, http://HOST:8265"
            ) from error
    raise AssertionError("unreachable")


def _token() -> str | None:
    """This user's Ray token, as Ray itself looks for it."""
    given = os.environ.get("RAY_AUTH_TOKEN")
    if given:
        return given.strip()
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _free_id(client: Any, job_id: str) -> str:
    """`JOB-a1`, or the next attempt: Ray takes no id twice."""
    used = {details.submission_id for details in client.list_jobs()}
    attempt = 1
    while f"{job_id}-a{attempt}" in used:
        attempt += 1
    return f"{job_id}-a{attempt}"


def _is_here(address: str) -> bool:
    """Whether an address is one of this machine's."""
    host = urlsplit(address if "://" in address else f"http://{address}").hostname or ""
    if host in ("localhost", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
