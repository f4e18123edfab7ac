"""Submits a search to a Ray cluster: the job's row is written here, the controller runs there."""

from __future__ import annotations

import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from search_server.attempts import live_attempt, runs_here
from search_server.cluster import Cluster, Node, described, on_this_machine
from search_server.errors import JobError
from search_server.packing import Packed
from search_server.store import JobRecord, Store, SubmissionRecord
from search_server.store.url import parse_url
from workers.modules import MODULES

if TYPE_CHECKING:
    from search_server.spec import JobSpec, Resources

STORE_FILE = "store-url"
ATTEMPT_FILE = "attempt"
MODULES_FOLDER = "lossforge-modules"  # no name that can be imported
LOG_LINES = 15
LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Wishes:
    """How a controller is to run on a cluster.

    Attributes:
        python: the interpreter there that has this project; None: this one if the cluster is on
            this machine, else `python`.
        driver_cpus: CPUs that Ray reserves for the controller. None: 1, which keeps it off a head
            node without CPUs; 0 where no trial would have room besides.
        wait_for_nodes: submit although no node has what a trial takes: an autoscaler may start one.
        patience: seconds to wait for the controller's first sign of life in the store.
        modules: the user's own modules.
        force: submit though the last attempt cannot be asked whether it still runs.
    """

    python: str | None = None
    driver_cpus: float | None = None
    wait_for_nodes: bool = False
    patience: float = 30.0
    modules: Packed | None = None
    force: bool = False


@dataclass(frozen=True)
class Submission:
    """A search on a cluster: its job in the store, its id at Ray, the cluster's address.

    Attributes:
        submission_id, address: None if the job runs in a process of this machine.
        already: it ran before; nothing was submitted.
        started: the controller was seen at work in the store.
    """

    job_id: str
    submission_id: str | None
    address: str | None
    already: bool = False
    started: bool = False


def submit(
    spec: JobSpec,
    store_url: str,
    address: str,
    source: object = "spec",
    wishes: Wishes | None = None,
) -> Submission:
    """Create a job in the store and start its controller on a cluster.

    Args:
        store_url: must lead to the same database from the cluster.
        address: of the cluster's Jobs API, `http://head:8265`.

    Raises:
        JobError: no cluster answers at the address, it wants a token, runs another Ray, has no node
            for a trial, cannot reach the store, or refuses.
        SpecError: see `create_job`.
    """
    from search_server.jobs import create_job  # torch and mmdet; who asks for less need not wait

    wishes = wishes or Wishes()
    cluster = Cluster(address)  # first of all: without a cluster no job is created
    nodes = cluster.nodes()
    _check_store(store_url, cluster, nodes)
    driver = _driver_cpus(spec.resources, cluster, nodes, wishes)
    with Store.open(store_url) as store:
        job = store.job(create_job(store, spec, source))
        return _start(store, job, store_url, cluster, nodes, driver, wishes)


def resubmit(job_id: str, store_url: str, address: str, wishes: Wishes | None = None) -> Submission:
    """Go on with a job on a cluster, unless it runs already. Arguments and errors: `submit`."""
    wishes = wishes or Wishes()
    cluster = Cluster(address)
    nodes = cluster.nodes()
    _check_store(store_url, cluster, nodes)
    with Store.open(store_url) as store:
        job = store.job(job_id)
        check_resumable(job)
        running = running_already(store, job, wishes.force)
        if running is not None:
            return running
        from search_server.spec import JobSpec

        spec = JobSpec.from_json(job.spec)
        driver = _driver_cpus(spec.resources, cluster, nodes, wishes)
        return _start(store, job, store_url, cluster, nodes, driver, wishes)


def running_already(store: Store, job: JobRecord, force: bool = False) -> Submission | None:
    """Where a job runs at this moment, if it does.

    Raises:
        JobError: its last cluster does not answer, so nobody knows; not with `force`.
    """
    attempt = live_attempt(store, job, force)
    if attempt is not None:
        return Submission(job.id, attempt.submission_id, attempt.address, already=True)
    return Submission(job.id, None, None, already=True) if runs_here(job) else None


def check_resumable(job: JobRecord) -> None:
    """Return if a job can go on.

    Raises:
        JobError: it is at its end.
    """
    if job.state == "cancelled":
        raise JobError(
            f"job {job.id} is cancelled, which is final; search or submit its spec again: the new "
            "job takes over all its finished trials from the store"
        )
    if job.state == "cancelling":
        raise JobError(f"job {job.id} is being cancelled; see: lossforge status {job.id}")
    if job.state == "done":
        raise JobError(f"job {job.id} is done; see: lossforge leaderboard {job.id}")


def read_store_file(path: str | Path) -> str:
    """The store's URL from a file that `submit` sent along.

    Raises:
        JobError: cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"{path}: cannot be read ({error}); give --store instead") from error


def _check_store(store_url: str, cluster: Cluster, nodes: Sequence[Node]) -> None:
    """An SQLite file is on one machine."""
    if parse_url(store_url).get_backend_name() == "sqlite" and not on_this_machine(nodes):
        raise JobError(
            f"the cluster at {cluster.address} is not this machine, so it cannot reach a store in "
            "an SQLite file here; give a PostgreSQL database that both reach: "
            "--store postgresql://user:password@host/database"
        )


def _driver_cpus(
    needs: Resources, cluster: Cluster, nodes: Sequence[Node], wishes: Wishes
) -> float:
    """CPUs to reserve for the controller.

    Raises:
        JobError: there is no room for it, or no node has what a trial takes.
    """
    if not any(node.room(needs) for node in nodes) and not wishes.wait_for_nodes:
        memory = "" if needs.memory_gb is None else f", {needs.memory_gb:g} GiB of memory"
        raise JobError(
            f"a trial takes {needs.cpus:g} CPUs, {needs.gpus:g} GPUs{memory}; no node of the "
            f"cluster at {cluster.address} has that: {described(nodes)}. Lower `resources` in the "
            "spec, or give --wait-for-nodes to `lossforge submit` if an autoscaler starts one"
        )
    most = max((node.resources.get("CPU", 0.0) for node in nodes), default=0.0)
    if wishes.driver_cpus is not None:
        if wishes.driver_cpus > most and not wishes.wait_for_nodes:
            raise JobError(
                f"--driver-cpus {wishes.driver_cpus:g}: no node of the cluster at "
                f"{cluster.address} has that many: {described(nodes)}"
            )
        return wishes.driver_cpus
    return reserved_cpus(needs, nodes)


def reserved_cpus(needs: Resources, nodes: Sequence[Node]) -> float:
    """CPUs for a controller nobody has wished any for: 1 if there is room for that and a trial."""
    if all(node.resources.get("CPU", 0.0) < 1 for node in nodes):
        return 0.0
    beside = any(
        node.resources.get("CPU", 0.0) >= 1
        and node.room(needs, 1.0) + sum(other.room(needs) for other in nodes if other is not node)
        > 0
        for node in nodes
    )
    awaited = not any(node.room(needs) for node in nodes)  # trials go to nodes to come
    return 1.0 if beside or awaited else 0.0


def _start(
    store: Store,
    job: JobRecord,
    store_url: str,
    cluster: Cluster,
    nodes: Sequence[Node],
    driver_cpus: float,
    wishes: Wishes,
) -> Submission:
    """Claim the next attempt, submit it and look whether it begins."""
    attempts = store.submissions(job.id)
    last = attempts[-1].attempt if attempts else 0
    used = cluster.known()  # by a store that has been restored from a backup, say
    attempt = last + 1
    while f"{job.id}-a{attempt}" in used:
        attempt += 1
    claimed = store.add_submission(job.id, attempt, cluster.address, last)
    if claimed is None:  # somebody else was faster
        winner = store.submissions(job.id)[-1]
        return Submission(job.id, winner.submission_id, winner.address, already=True)
    interpreter = wishes.python or (sys.executable if on_this_machine(nodes) else "python")
    command = [interpreter, "-P", "-m", "search_server.cli", "resume", job.id]
    environment = {"PYTHONSAFEPATH": "1"}
    with tempfile.TemporaryDirectory(prefix="lossforge-") as folder:
        # The URL can hold a password. It travels as a file: entrypoints, metadata and environments
        # are shown to whoever opens the dashboard.
        secret = Path(folder) / STORE_FILE
        secret.touch(mode=0o600)
        secret.write_text(store_url, encoding="utf-8")
        # Ray keeps a folder by its content, and removes it with the attempt that needed it last: of
        # one that has just been killed, from under its successor that sent the same.
        (Path(folder) / ATTEMPT_FILE).write_text(claimed.submission_id, encoding="utf-8")
        if wishes.modules is not None:
            wishes.modules.copy(Path(folder) / MODULES_FOLDER)
            environment[MODULES] = MODULES_FOLDER
        try:
            cluster.submit(
                entrypoint=shlex.join([*command, "--store-file", STORE_FILE]),
                submission_id=claimed.submission_id,
                runtime_env={"working_dir": folder, "env_vars": environment},
                metadata={"lossforge_job": job.id},
                entrypoint_num_cpus=driver_cpus or None,
            )
        except Exception as error:
            if cluster.status(claimed.submission_id) is None:
                store.drop_submission(job.id, attempt)
            message = str(error).replace(store_url, "(store)")
            raise JobError(
                f"job {job.id} is in the store, but Ray at {cluster.address} refused it: {message}"
            ) from error
    started = _begins(store, job, cluster, claimed, wishes.patience)
    return Submission(job.id, claimed.submission_id, cluster.address, started=started)


def _begins(
    store: Store, before: JobRecord, cluster: Cluster, attempt: SubmissionRecord, patience: float
) -> bool:
    """Whether the controller shows up in the store within `patience` seconds.

    Raises:
        JobError: it has failed; the message ends with the last lines of its log.
    """
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        job = store.job(before.id)
        if job.owner not in (None, before.owner) or job.state not in ("created", before.state):
            return True
        status = cluster.status(attempt.submission_id)
        if status not in ("PENDING", "RUNNING", None):
            lines = cluster.log(attempt.submission_id).strip().splitlines()[-LOG_LINES:]
            said = " | ".join(lines) or "it printed nothing"
            raise JobError(
                f"{attempt.submission_id} at {attempt.address} has {status.lower()} before it "
                f"reached the store; it said: {said}"
            )
        time.sleep(LOOK_SECONDS)
    return False
