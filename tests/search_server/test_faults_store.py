"""Stores that fail: PostgreSQL that stops, answers that are lost, SQLite that is full."""

import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import faults
import pytest
from sqlalchemy import event, make_url
from sqlalchemy.engine import Engine

from search_server.controller import run_job
from search_server.errors import StoreAway, StoreError
from search_server.executors import InlineExecutor
from search_server.progress import Progress
from search_server.store import Store
from workers import TrialResult, TrialSpec

fake = faults.fake

AWAY = 30.0  # seconds that PostgreSQL is stopped
HASTY = 2.0  # seconds that a controller waits which gives up
# The throw-away server does not wait for its disk; who is to lose nothing in a crash has to.
SYNCHRONOUS = "?options=-csynchronous_commit%3Don"


class Counted:
    """Trials that take a while, and are counted by their key."""

    def __init__(self, low: float, high: float) -> None:
        self._run = fake.slow_trial(low, high)
        self.begun: Counter[str] = Counter()

    def __call__(self, spec: TrialSpec) -> TrialResult:
        self.begun[spec.key] += 1
        result: TrialResult = self._run(spec)
        return result


def run(url: str, job: str, trial: Any, **more: Any) -> str:
    with Store.open(url) as store, InlineExecutor(2, trial) as executor:
        state: str = run_job(store, job, executor, trace=1, **more)
        return state


@pytest.fixture
def databases(postgres_server: Any) -> Iterator[list[str]]:
    """Two databases on a server of the tests' own, which may be stopped."""
    with ExitStack() as made:
        found = [
            made.enter_context(faults.postgres.database(postgres_server.url)) for _ in range(2)
        ]
        yield [each.render_as_string(hide_password=False) + SYNCHRONOUS for each in found]


@pytest.mark.slow
@pytest.mark.parametrize("turn", faults.ROUNDS)
def test_postgres_stopped_under_load(
    turn: int, postgres_server: Any, databases: list[str], tmp_path: Path
) -> None:
    """One controller waits and goes on; one that has little patience stops, and is resumed."""
    expected = faults.undisturbed(tmp_path, **faults.SMALL)
    jobs = [fake.new_job(url, **faults.SMALL) for url in databases]
    trials = [Counted(0.2, 0.6), Counted(0.2, 0.6)]
    seen: list[Progress] = []
    with ThreadPoolExecutor(2) as threads:
        patient = threads.submit(run, databases[0], jobs[0], trials[0], observer=seen.append)
        hasty = threads.submit(run, databases[1], jobs[1], trials[1], patience=HASTY)
        faults.wait_for(lambda: min(map(faults.ended, databases)) >= 2 + turn % 4)
        postgres_server.stop((signal.SIGINT, signal.SIGQUIT)[turn % 2])
        stopped = time.monotonic()
        try:
            with pytest.raises(StoreAway, match="resume the job once the store answers"):
                hasty.result(timeout=120)
            time.sleep(max(0.0, AWAY - (time.monotonic() - stopped)))
            waited = {each.waiting_for for each in seen}
        finally:
            postgres_server.start()
        assert patient.result(timeout=300) == "done"
    assert any("the store, which has not answered for" in what for what in waited), waited
    faults.same_rows("PostgreSQL stopped", databases[0], expected, trials[0].begun)
    before = faults.finished(databases[1])
    assert run(databases[1], jobs[1], trials[1]) == "done"
    assert before.items() <= faults.finished(databases[1]).items()
    faults.same_rows("PostgreSQL stopped, resumed", databases[1], expected, Counter())


@pytest.mark.slow
@pytest.mark.parametrize("turn", faults.ROUNDS)
def test_answers_to_commits_are_lost(turn: int, databases: list[str], tmp_path: Path) -> None:
    """The connection breaks at a commit, before the server has it, or after it has obeyed."""
    expected = faults.undisturbed(tmp_path, **faults.FEW)
    job = fake.new_job(databases[0], **faults.FEW)
    trial = Counted(0.0, 0.005)
    with broken_at_commits(databases[0], every=3, turn=turn) as (url, broken):
        assert run(url, job, trial) == "done"
    assert min(broken["before"], broken["after"]) > 5
    faults.same_rows("answer to a commit lost", databases[0], expected, trial.begun)


@contextmanager
def broken_at_commits(url: str, every: int, turn: int) -> Iterator[tuple[str, Counter[str]]]:
    """A way to a database that breaks at every n-th COMMIT; its URL, and how often it broke how."""
    parsed = make_url(url)
    broken: Counter[str] = Counter()
    lock = threading.Lock()
    commits = turn

    def ends(chunk: bytes) -> str:
        """How the connection ends at what the client has sent; empty: it does not."""
        nonlocal commits
        if b"COMMIT\0" not in chunk:
            return ""
        with lock:
            commits += 1
            if commits % every:
                return ""
            how = ("before", "after")[commits // every % 2]
            broken[how] += 1
            return how

    def serve(client: socket.socket) -> None:
        server = socket.create_connection((parsed.host, parsed.port))
        answers = threading.Thread(target=pump, args=(server, client), daemon=True)
        answers.start()
        while chunk := received(client):
            if how := ends(chunk):
                end(client, socket.SHUT_RDWR)  # whatever the server says is not heard
            if how != "before":
                server.sendall(chunk)
            if how:
                break
        end(server, socket.SHUT_WR)  # it obeys what it has got, and then finds nobody there

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield (
            parsed.set(port=listener.getsockname()[1]).render_as_string(hide_password=False),
            broken,
        )
        listener.shutdown(socket.SHUT_RDWR)


def received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except OSError:
        return b""


def pump(source: socket.socket, target: socket.socket) -> None:
    """Passes on what comes until there is no more, heard or not."""
    while chunk := received(source):
        with suppress(OSError):
            target.sendall(chunk)
    end(target, socket.SHUT_RDWR)


def end(connection: socket.socket, how: int) -> None:
    with suppress(OSError):
        connection.shutdown(how)


@pytest.mark.parametrize("turn", faults.ROUNDS)
def test_sqlite_is_full(turn: int, tmp_path: Path) -> None:
    """The error names the file and what to do; with room again the job goes on."""
    expected = faults.undisturbed(tmp_path, **faults.SMALL)
    file = tmp_path / "full.db"
    url = f"sqlite:///{file}"
    job = fake.new_job(url, **faults.SMALL)

    def limit(connection: Any, _: object) -> None:
        used = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {used + turn % 3}")

    for _ in range(3):
        before = faults.finished(url)
        event.listen(Engine, "connect", limit)
        try:
            with pytest.raises(StoreError) as error:
                fake.run(url, job)
        finally:
            event.remove(Engine, "connect", limit)
        assert f"the file {file} cannot grow" in str(error.value)
        assert "then resume the job" in str(error.value)
        assert before.items() <= faults.finished(url).items()
        grow(url, job, until=len(before) + 2)
    assert fake.run(url, job) == "done"
    faults.same_rows("SQLite full", url, expected, Counter())


def grow(url: str, job: str, until: int) -> None:
    """Goes on with the job until so many of its trials have ended."""
    stop = threading.Event()

    def look(progress: Progress) -> None:
        if progress.done >= until:
            stop.set()

    fake.run(url, job, stop=stop, observer=look)
