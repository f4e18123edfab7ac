"""kill -9 of `lossforge serve`, in mid-submit and in mid-search: nothing is lost, nothing doubled.

Every service is a process of its own over a port, ended by SIGKILL. Those of mid-submit are forked
from this one, which has loaded what checks specs, and run controllers whose trials are a formula;
the one of mid-search is the command, and its search trains a real detector on Ray.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faults
import pytest
import tiny_detectors as tiny
from ports import free_port

from search_server.cli import run
from search_server.client import Client
from search_server.controller import run_job
from search_server.errors import JobError, ServiceError
from search_server.executors import InlineExecutor
from search_server.jobs import create_job
from search_server.service import serving
from search_server.service.admission import admitted
from search_server.service.reconciler import Reconciler
from search_server.service.settings import load_settings
from search_server.store import Store
from search_server.store.url import parse_url

fake = faults.fake
TABLES = ("candidates", "trials", "losses", "funnel_counts")
PATIENCE = 900.0  # seconds; a machine may have other work
MADE_UP = {**fake.SPEC, **faults.FEW}
MOMENTS: dict[str, tuple[str, int]] = {
    "inside the write of the job": ("inside", 1),
    "after it, before the answer": ("after", 1),
    "inside the claim of its start": ("inside", 2),
    "after the note of its start": ("after", 3),
    "after its start": ("started", 1),
}
TINY: dict[str, Any] = {
    "name": "tiny",
    "detector": "tiny",
    "data": "few",
    "branches": {"cls": {"space": "binary_cls"}, "bbox": {"space": "box"}},
    "searcher": {
        "population": 3,
        "named": [
            "cse-autoloss-b",
            {"cls": "focal-expression", "bbox": "iou-expression"},
            {"cls": "qfl-giou", "bbox": "iou-expression"},
        ],
    },
    "funnel": {"simulate": None, "proxy": {"steps": 100, "batch_size": 4, "seeds": [0, 1]}},
    "candidates": 3,
    "window": 1,
    "calibrate": False,
    "resources": {"device": "cpu"},
}


@dataclass
class Controllers:
    """Starts searches whose trials are a formula, as processes that outlive the service.

    Attributes:
        log: gets a line for every start.
        started: called after each.
    """

    url: str
    log: Path
    started: Callable[[], None] = lambda: None

    def start(self, job_id: str) -> "subprocess.Popen[bytes]":
        with self.log.open("a") as file:
            file.write(f"{job_id}\n")
        command = [sys.executable, str(faults.PROGRAM), self.url, job_id, "never", "0"]
        process = subprocess.Popen(command, start_new_session=True)
        self.started()
        return process


class Nobody:
    """A cluster that is away."""

    def start(self, job_id: str) -> None:
        raise JobError("no Ray cluster answers")


@dataclass
class Served:
    """A service that was forked."""

    pid: int
    url: str

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


@pytest.fixture
def serve(url: str, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Forks services over the store, and waits until they answer."""
    made: list[Served] = []
    config = tmp_path / "service.yaml"
    config.write_text("bounds: {requests: 1000000, changes: 1000000}\n")
    Store.open(url).close()

    def make(runner: object, prepare: Callable[[], None] = lambda: None, **given: Any) -> Served:
        port = free_port()

        def work() -> None:
            serving.make_runner = lambda runs, store_url: runner  # type: ignore[assignment]
            serving.Reconciler = partial(Reconciler, every=0.1, **given)  # type: ignore[misc]
            prepare()
            run(["serve", "--port", str(port), "--store", url, "--config", str(config)])

        made.append(Served(faults.forked(work), f"http://127.0.0.1:{port}"))
        _until_it_answers(made[-1].url)
        return made[-1]

    yield make
    for each in made:
        each.kill()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], dict[str, Any]]:
    """The rows of the search that nothing happens to; made once, and everything that the services
    need is loaded then."""
    found: list[dict[str, Any]] = []

    def rows() -> dict[str, Any]:
        if not found:
            found.append(faults.undisturbed(tmp_path_factory.mktemp("undisturbed"), **faults.FEW))
        return found[0]

    return rows


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_in_mid_submit(
    moment: str, serve: Any, url: str, tmp_path: Path, undisturbed: Any
) -> None:
    expected = undisturbed()
    kind, count = MOMENTS[moment]
    log = tmp_path / "started"
    end = _at(count)
    nothing = lambda: None  # noqa: E731
    first = serve(
        Controllers(url, log, end if kind == "started" else nothing),
        lambda: faults.at_writes(
            end if kind == "inside" else nothing, end if kind == "after" else nothing
        ),
        # The next one waits for so long for a controller that may have been started.
        starting=PATIENCE if kind == "started" else 2.0,
    )
    answered = []
    with suppress(ServiceError):
        answered.append(_submitted(first.url, MADE_UP, "key"))
    assert faults.end_of(first.pid) == signal.SIGKILL
    with Store.open(url) as store:
        written = (kind, count) != ("inside", 1)
        assert store.waiting_requests() == written
        second = serve(Controllers(url, log))
        job = _submitted(second.url, MADE_UP, "key")
        assert job["id"] == "fake-1"
        assert all(each["id"] == job["id"] for each in answered)
        faults.wait_for(lambda: _settled(store, job["id"]), PATIENCE)
        assert store.job(job["id"]).state == "done"
        again = _submitted(second.url, MADE_UP, "key")
        assert (again["id"], again["state"]) == (job["id"], "done")
    assert log.read_text().split() == ["fake-1"]  # whoever it was
    found = fake.rows(url)
    assert [row["id"] for row in found["jobs"]] == ["fake-1"]
    assert len(found["requests"]) == 1
    assert (
        faults.differences(
            {name: found[name] for name in TABLES}, {name: expected[name] for name in TABLES}
        )
        == []
    )


def test_killed_at_any_time_while_many_submit(serve: Any, url: str, undisturbed: Any) -> None:
    """Each key is sent thrice at a time, and again after the next start."""
    undisturbed()
    service = serve(Nobody())
    began = time.monotonic()
    _many(service.url, ["a", "b"])
    whole = time.monotonic() - began
    keys, told = ["a", "b"], dict[str, set[str]]()
    for number, share in enumerate((0.1, 0.3, 0.5, 0.7, 0.9, 1.0)):
        new = [f"{number}-{each}" for each in range(2)]
        sending = threading.Thread(target=_many, args=(service.url, new, told))
        sending.start()
        time.sleep(share * whole)
        service.kill()
        sending.join()
        keys += new
        service = serve(Nobody())
    _many(service.url, keys, told)
    assert told.keys() == set(keys)
    assert all(len(jobs) == 1 for jobs in told.values())  # what was answered once is so for ever
    found = fake.rows(url)
    assert {row["id"] for row in found["jobs"]} == set().union(*told.values())
    assert len(found["jobs"]) == len(found["requests"]) == len(keys)
    assert all(row["state"] == "created" for row in found["jobs"])


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(4 * PATIENCE)
def test_killed_in_mid_search(tmp_path: Path, sqlite_url: str) -> None:
    """The search goes on without its service; and where both are killed, the next service has it
    go on."""
    config = _tiny_settings(tmp_path)
    Store.open(sqlite_url).close()
    with Store.open(sqlite_url) as store, _Command(sqlite_url, config) as command:
        url = command.start()
        job = _submitted(url, TINY, "key")["id"]
        faults.wait_for(lambda: faults.finished(sqlite_url), PATIENCE)
        command.kill()
        seen = faults.finished(sqlite_url)
        controller = store.job(job).owner
        faults.wait_for(lambda: len(faults.finished(sqlite_url)) > len(seen), PATIENCE)
        assert store.job(job).owner == controller  # the same one, with no service anywhere
        assert controller is not None
        _held_still(int(controller.split()[1]), sqlite_url)  # however long the service takes
        url = command.start()
        with Client(url) as client:
            assert client.job(job)["state"] == "running"
            assert client.submit(TINY, "key")["id"] == job
        os.kill(int(controller.split()[1]), signal.SIGKILL)
        command.kill()
        seen = faults.finished(sqlite_url)
        assert len(seen) < 8  # or there was nothing left to lose
        url = command.start()
        faults.wait_for(lambda: _settled(store, job), PATIENCE)
        assert store.job(job).state == "done", store.job(job).reason
        found = faults.finished(sqlite_url)
        assert seen.items() <= found.items()  # nothing was trained again
        with Client(url) as client:
            assert [each["id"] for each in client.jobs()] == [job]
        request = store.request_of(job)
        assert request is not None
        assert request.tries == 2
        command.stop()
    expected = _trained(tmp_path, config)
    rows = fake.rows(sqlite_url)
    for table, columns in (
        ("candidates", ("index", "origin", "key", "state", "definition", "parents")),
        ("trials", ("candidate", "stage", "seed", "state", "spec_key", "steps")),
    ):
        assert [[row[name] for name in columns] for row in rows[table]] == [
            [row[name] for name in columns] for row in expected[table]
        ]
    fitness = [row["fitness"] for row in expected["trials"]]
    assert [row["fitness"] for row in rows["trials"]] == pytest.approx(fitness, abs=1e-6)


class _Command:
    """`lossforge serve` in a process, started and killed again and again."""

    def __init__(self, url: str, config: Path) -> None:
        self._url, self._config = url, config
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "_Command":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()
        with Store.open(self._url) as store:
            for job in store.jobs():
                if job.owner is not None:  # it leads a session of its own
                    with suppress(ProcessLookupError):
                        os.killpg(int(job.owner.split()[1]), signal.SIGKILL)

    def start(self) -> str:
        """Where it is, once it answers."""
        port = free_port()
        command = [sys.executable, "-P", "-m", "search_server.cli", "serve", "--port", str(port)]
        self._process = subprocess.Popen(
            [*command, "--store", self._url, "--config", str(self._config)],
            # Ray's workers would step back behind everything else on this machine.
            env={**os.environ, "RAY_worker_niceness": "0"},
            stdout=subprocess.DEVNULL,
        )
        _until_it_answers(f"http://127.0.0.1:{port}")
        return f"http://127.0.0.1:{port}"

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(PATIENCE) == 0


def _held_still(pid: int, url: str) -> None:
    """Stop a controller where it holds no lock of its store, so that others can go on."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        with closing(sqlite3.connect(str(parse_url(url).database), timeout=1.0)) as store:
            try:
                store.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError:
                os.kill(pid, signal.SIGCONT)
        time.sleep(0.1)


def _tiny_settings(folder: Path) -> Path:
    """The file of a service that has a detector and a data set of a dozen images."""
    (folder / "tiny.py").write_text(tiny.DETECTORS["atss"])
    data = {}
    for seed, name in enumerate(("search_train", "search_val")):
        tiny.write_split(folder / name, 10, seed)
        data[name] = {"annotations": f"{name}.json", "images": name}
    file = folder / "service.yaml"
    settings = {"detectors": {"tiny": "tiny.py"}, "data": {"few": data}, "runs": {"slots": 1}}
    file.write_text(json.dumps(settings))
    return file


def _trained(folder: Path, config: Path) -> dict[str, Any]:
    """The rows of the same search without any service."""
    url = f"sqlite:///{folder / 'undisturbed.db'}"
    spec = admitted(json.dumps(TINY).encode(), "json", load_settings(config))
    with Store.open(url) as store, InlineExecutor(1) as executor:
        assert run_job(store, create_job(store, spec), executor) == "done"
    found: dict[str, Any] = fake.rows(url)
    return found


def _at(count: int) -> Callable[[], None]:
    """Kills this process when it is called so often."""
    left = [count]

    def call() -> None:
        left[0] -= 1
        if not left[0]:
            faults.kill_self()

    return call


def _until_it_answers(url: str) -> None:
    def answers() -> bool:
        with suppress(ServiceError), Client(url) as client:
            next(client.jobs(), None)
            return True
        return False

    faults.wait_for(answers, PATIENCE)


def _submitted(url: str, spec: dict[str, Any], key: str) -> dict[str, Any]:
    """The job that a service answers with, which may ask for patience at first.

    Raises:
        ServiceError: it is gone.
    """
    while True:
        try:
            with Client(url, timeout=PATIENCE) as client:
                return client.submit(spec, key)
        except ServiceError as error:
            if "try again" not in str(error):
                raise
            time.sleep(0.2)


def _many(url: str, keys: list[str], told: dict[str, set[str]] | None = None) -> None:
    """Submit each key from three threads at a time, and note which jobs were answered."""

    def send(key: str) -> None:
        with suppress(ServiceError):
            job = _submitted(url, MADE_UP, key)["id"]
            if told is not None:
                told.setdefault(key, set()).add(job)

    threads = [threading.Thread(target=send, args=(key,)) for key in keys for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _settled(store: Store, job: str) -> bool:
    request = store.request_of(job)
    return request is not None and request.settled
