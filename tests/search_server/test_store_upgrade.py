"""Upgrades of stores with data: killed midway, backed up first, and with the same columns after."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, create_engine, event, select, text
from sqlalchemy.engine import Engine

from search_server.cli import run
from search_server.leaderboard import leaderboard
from search_server.overview import summaries
from search_server.store import CandidateRecord, Store, schema
from search_server.store.engine import connect
from search_server.store.url import parse_url
from workers import TrialResult

HEAD = schema.head()
REVISIONS = [each.revision for each in ScriptDirectory(str(schema.MIGRATIONS)).walk_revisions()]
WRITING = ("ALTER", "CREATE", "DROP", "INSERT", "UPDATE")
PROGRAM = """
import os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from search_server.store import schema
from search_server.store.url import parse_url

left = int(sys.argv[2])

@event.listens_for(Engine, "after_cursor_execute")
def count(connection, cursor, statement, *rest):
    global left
    if statement.strip().startswith(("ALTER", "CREATE", "DROP", "INSERT", "UPDATE")):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

schema.upgrade(parse_url(sys.argv[1]), print)
"""


def filled(url: str) -> None:
    """Two jobs of one group, with trials of every stage, one still running."""
    with Store.open(url) as store:
        for name in ("a", "b"):
            job = store.create_job(name, {"detector": name}, "model = 1", ["x"], "group")
            for index in range(5):
                origin: Any = ("baseline", "random", "random", "rival", "mutation")[index]
                record = CandidateRecord(index, origin, (), {"cls": None}, f"k{index}", size=index)
                store.add_candidate(job, record, {("random", "deaf"): 3})
                for stage, seeds in (("proxy", 2), ("confirm", 3), ("test", 1)):
                    for seed in range(seeds):
                        place: Any = (job, index, stage, seed)
                        store.start_trial(*place, "key", sha256(repr(place).encode()).hexdigest())
                        if (index, stage, seed) == (4, "confirm", 2):
                            continue
                        value = 0.3 + 0.05 * index * (1 + 0.1 * seed)
                        store.finish_trial(*place, TrialResult("done", "", value, seed, 10))
                store.update_candidate(job, index, state="done", fitness=0.3 + 0.05 * index)


def migrate(url: str, revision: str) -> None:
    """Down to a revision, as `schema.upgrade` goes up."""
    engine = connect(parse_url(url), foreign_keys=False)
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
        if connection.dialect.name == "sqlite":
            assert connection.execute(text("PRAGMA foreign_key_check")).fetchall() == []
    engine.dispose()


def rows(url: str) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables, by the names of their columns; a count of nothing is no row."""
    engine = create_engine(url)
    tables = MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        found = {
            table.name: [dict(row._mapping) for row in connection.execute(select(table))]
            for table in tables.sorted_tables
        }
    engine.dispose()
    counts = "trial_counts"
    if counts in found:
        found[counts] = [row for row in found[counts] if row["count"]]
    return {name: sorted(each, key=repr) for name, each in found.items()}


@pytest.fixture
def store_url(url: str) -> str:
    filled(url)
    return url


@pytest.mark.parametrize("revision", [each for each in REVISIONS if each >= "0003"][1:])
def test_down_and_up_again_gives_every_row_and_every_aggregate(
    store_url: str, revision: str
) -> None:
    """The columns that are filled by an upgrade are those that the store's methods had written."""
    before = rows(store_url)
    with Store.open(store_url) as store:
        pages = (leaderboard(store), leaderboard(store, "b-1"), summaries(store))
    migrate(store_url, revision)
    older = rows(store_url)
    for name in older.keys() - {"alembic_version"}:
        kept = [{column: row[column] for column in older[name][0]} for row in before[name]] if (
            older[name]
        ) else []  # fmt: skip
        assert older[name] == sorted(kept, key=repr), name
    assert schema.upgrade(parse_url(store_url)) == (revision, HEAD)
    after = rows(store_url)
    assert after.keys() == before.keys()
    for name, wanted in before.items():
        assert after[name] == wanted, name
    with Store.open(store_url) as store:
        assert (leaderboard(store), leaderboard(store, "b-1"), summaries(store)) == pages


def writes_of_an_upgrade(url: str) -> int:
    counted = 0

    def count(*given: Any) -> None:
        nonlocal counted
        counted += given[2].strip().startswith(WRITING)

    event.listen(Engine, "after_cursor_execute", count)
    schema.upgrade(parse_url(url))
    event.remove(Engine, "after_cursor_execute", count)
    return counted


def test_an_upgrade_killed_midway_has_changed_nothing_and_succeeds_when_run_again(
    new_url: Callable[[], str],
) -> None:
    whole, killed = new_url(), new_url()
    for url in (whole, killed):
        filled(url)
        migrate(url, "0002")
    before = rows(killed)
    writes = writes_of_an_upgrade(whole)
    assert writes > 20
    for moment in (1, writes // 2, writes):
        command_line = [sys.executable, "-c", PROGRAM, killed, str(moment)]
        ended = subprocess.run(command_line, capture_output=True, text=True, timeout=120)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        assert schema.current(parse_url(killed)) == "0002"
        assert rows(killed) == before, moment
    assert schema.upgrade(parse_url(killed)) == ("0002", HEAD)

    def without_times(found: dict[str, list[dict[str, Any]]]) -> Any:
        return {
            name: [{key: row[key] for key in row if not key.endswith("_at")} for row in each]
            for name, each in found.items()
        }

    assert without_times(rows(killed)) == without_times(rows(whole))


class TestBackup:
    @pytest.fixture
    def file(self, sqlite_url: str) -> Path:
        filled(sqlite_url)
        migrate(sqlite_url, "0003")
        return Path(str(parse_url(sqlite_url).database))

    def test_a_store_is_copied_before_it_is_changed(self, file, sqlite_url, capsys):
        before = rows(sqlite_url)
        assert run(["db", "upgrade", "--store", sqlite_url]) == 0
        copy = file.with_name(f"{file.name}.before-{HEAD}")
        said = capsys.readouterr().out
        assert f"backed up to {copy}" in said
        assert f"schema {HEAD} (from 0003)" in said
        assert rows(f"sqlite:///{copy}") == before
        assert run(["db", "upgrade", "--store", sqlite_url]) == 0  # nothing to do, nothing to copy
        assert sorted(each.name for each in file.parent.glob("*before*")) == [copy.name]
        # restored as the manual says, it is upgraded again, and the first copy is not replaced
        os.replace(copy, file)
        copy.write_text("an older copy")
        assert run(["db", "upgrade", "--store", sqlite_url]) == 0
        assert copy.read_text() == "an older copy"
        assert rows(f"sqlite:///{copy}.2") == before
        with Store.open(sqlite_url) as store:
            assert len(store.jobs()) == 2

    def test_what_is_only_in_the_log_is_copied_too(self, file, sqlite_url):
        """A reader keeps SQLite from moving the last writes out of its log."""
        with closing(sqlite3.connect(file)) as reader, closing(sqlite3.connect(file)) as writer:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM jobs").fetchall()
            writer.execute("UPDATE jobs SET reason = 'written last'")
            writer.commit()
            found: list[Path] = []
            schema.upgrade(parse_url(sqlite_url), found.append)
        assert {row["reason"] for row in rows(f"sqlite:///{found[0]}")["jobs"]} == {"written last"}

    def test_no_backup(self, file, sqlite_url, capsys):
        assert run(["db", "upgrade", "--no-backup", "--store", sqlite_url]) == 0
        assert list(file.parent.glob("*before*")) == []
        assert "backed up" not in capsys.readouterr().out

    def test_a_store_that_cannot_be_copied_is_not_changed(self, file, sqlite_url, capsys):
        (file.parent / f"{file.name}.before-{HEAD}.part").mkdir()
        assert run(["db", "upgrade", "--store", sqlite_url]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert "no copy can be made beside it" in said
        assert "--no-backup" in said
        assert "Traceback" not in said
        assert schema.current(parse_url(sqlite_url)) == "0003"

    def test_no_room_for_a_copy(self, file, sqlite_url):
        """The process may write no file of more than 64 KiB; the store is larger."""
        code = (
            "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
            "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536)); "
            "from search_server.cli import run; sys.exit(run(sys.argv[1:]))"
        )
        given = [sys.executable, "-c", code, "db", "upgrade", "--store", sqlite_url]
        ended = subprocess.run(given, capture_output=True, text=True, timeout=120)
        assert ended.returncode == 2, ended
        assert "no copy can be made" in " ".join(ended.stderr.split())
        assert "Traceback" not in ended.stderr
        assert list(file.parent.glob("*before*")) == []
        assert schema.current(parse_url(sqlite_url)) == "0003"

    def test_a_postgresql_store_is_left_to_pg_dump(self, postgres_url, capsys):
        filled(postgres_url)
        migrate(postgres_url, "0003")
        assert run(["db", "upgrade", "--store", postgres_url]) == 0
        assert "backed up" not in capsys.readouterr().out
