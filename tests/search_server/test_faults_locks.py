"""Locks that another process keeps for longer than anybody waits, or for ever."""

import sqlite3
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faults
import pytest

from search_server.controller import run_job
from search_server.errors import StoreAway
from search_server.executors import InlineExecutor
from search_server.progress import Progress
from search_server.store import Store, engine, lookup

fake = faults.fake


@pytest.mark.parametrize("turn", faults.ROUNDS)
def test_a_locked_store_is_waited_for(
    turn: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite gives up after a fifth of a second here; the controller does not."""
    monkeypatch.setattr(engine, "BUSY_MS", 200)
    expected = faults.undisturbed(tmp_path, **faults.FEW)
    url = f"sqlite:///{tmp_path / 'locked.db'}"
    job = fake.new_job(url, **faults.FEW)
    begun, waiting = threading.Event(), threading.Event()

    def look(progress: Progress) -> None:
        if progress.done >= 1 + turn % 5:
            begun.set()
        if "is locked by another process" in progress.waiting_for:
            waiting.set()

    with (
        ThreadPoolExecutor(1) as thread,
        Store.open(url) as store,
        InlineExecutor(2, fake.slow_trial(0.05, 0.1)) as executor,
    ):
        running = thread.submit(run_job, store, job, executor, look, trace=1)
        assert begun.wait(120)
        other = sqlite3.connect(tmp_path / "locked.db", timeout=60, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with Store.open(url) as impatient, pytest.raises(StoreAway, match="is locked by another"):
            impatient.request_cancel(job)
        assert waiting.wait(120)
        other.execute("ROLLBACK")
        other.close()
        assert running.result(timeout=300) == "done"
    faults.same_rows("SQLite locked", url, expected, Counter())


def test_a_process_that_vanished_keeps_no_lock(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends a transaction in which nothing happens: after a second here."""
    monkeypatch.setattr(engine, "IDLE_SECONDS", 1)
    job = fake.new_job(postgres_url, **faults.FEW)
    with Store.open(postgres_url) as vanished, Store.open(postgres_url) as other:

        def cancel_in_the_middle() -> None:
            with vanished.changing() as session:
                assert lookup.job(session, job, lock=True).state == "created"
                assert other.request_cancel(job) == "cancelled"  # once the lock is given up

        with pytest.raises(StoreAway, match=r"idle-in-transaction|closed the connection"):
            cancel_in_the_middle()
