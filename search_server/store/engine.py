"""Connections to the store, and database errors turned into errors that say what to do."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from search_server.errors import StoreAway, StoreError
from search_server.store.away import is_away
from search_server.store.turns import AT_ONCE
from search_server.store.url import shown

BUSY_MS = 15_000
# Execution option of connections that write: they take SQLite's lock at BEGIN, where waiting for
# it works, and not in the middle of a transaction, where SQLite refuses at once.
WRITES = {"lossforge_writes": True}

# libpq's options: a database server that has vanished without a word is noticed within a minute.
NOTICE_SILENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
# Connections that are kept once they were needed, for all who read at once and who write: a new one
# costs more than what it is asked, and has to prepare it anew. Those used last come first.
POOL = AT_ONCE["postgresql"] + 2
IDLE_SECONDS = 60  # in the middle of a transaction, which is made of a few quick statements

log = logging.getLogger(__name__)


def connect(url: URL, *, foreign_keys: bool = True) -> Engine:
    """An engine for a parsed URL; nothing is opened yet.

    Args:
        foreign_keys: whether SQLite enforces foreign keys. Off only while migrations run: a table
            that is rebuilt with them on takes its children's rows along.

    Raises:
        StoreError: the driver for PostgreSQL is not installed.
    """
    if url.get_backend_name() == "postgresql":
        try:
            engine = create_engine(
                url,
                pool_pre_ping=True,
                pool_size=POOL,
                pool_use_lifo=True,
                hide_parameters=True,
                connect_args={k: v for k, v in NOTICE_SILENCE.items() if k not in url.query},
            )
        except ModuleNotFoundError:
            raise StoreError(
                f"{shown(url)}: a PostgreSQL store needs the driver psycopg: "
                "pip install 'psycopg[binary]'"
            ) from None
        if foreign_keys:  # a migration may think for long
            event.listen(engine, "connect", _end_with_silence)
        return engine
    engine = create_engine(url, connect_args={"timeout": BUSY_MS / 1000}, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _: object) -> None:
        connection.isolation_level = None  # BEGIN is ours, below
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("lossforge_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _end_with_silence(connection: Any, _: object) -> None:
    """Has the server end transactions whose process, or machine, has vanished in their middle: they
    hold locks that others wait for."""
    connection.autocommit = True
    connection.execute(f"SET idle_in_transaction_session_timeout = {1000 * IDLE_SECONDS}")
    connection.autocommit = False


@contextmanager
def explained(url: URL) -> Iterator[None]:
    """Turns what SQLAlchemy raises inside the block into a `StoreError` with a cure."""
    try:
        yield
    except SQLAlchemyError as error:
        log.debug("the store %s answered with an error", shown(url), exc_info=True)
        raise explanation(error, url) from None


def explanation(error: SQLAlchemyError, url: URL) -> StoreError:
    """The error for people; a `StoreAway` where the same may well succeed later."""
    kind = StoreAway if is_away(error) else StoreError
    return kind(f"{shown(url)}: {_cure(error, url)}")


def _cure(error: SQLAlchemyError, url: URL) -> str:
    """What happened and what to do, from the driver's message; never the statement's values."""
    cause = str(error.orig if isinstance(error, DBAPIError) else error).strip()
    text = cause.lower()
    folder = Path(url.database or ".").parent if url.get_backend_name() == "sqlite" else None
    if "not a database" in text:
        return "the file is not a database; give another path, or move that file away"
    if "unable to open" in text and folder is not None:
        if not folder.is_dir():
            return f"the folder {folder} does not exist; create it first"
        return f"cannot be opened; may this user write to {folder}?"
    if "readonly" in text or "read-only" in text:
        return "may only be read by this user; change its permissions or give another store"
    if "locked" in text or "busy" in text:
        return (
            f"is locked by another process for more than {BUSY_MS // 1000} s; stop that one "
            "(SQLite takes one writer at a time), or use a PostgreSQL store"
        )
    if "full" in text and "disk" in text:
        return (
            f"the file {url.database} cannot grow: its disk is full, or its own limit "
            "(PRAGMA max_page_count) is reached; make room (`lossforge gc` frees some), then "
            "resume the job: what is in the store stays"
        )
    if "no space left" in text:
        return "the disk of the database server is full; make room there, then resume the job"
    if "malformed" in text:
        return "the database file is damaged; restore it from a backup"
    first = _without_password(cause.splitlines()[0] if cause else type(error).__name__, url)
    if isinstance(error, IntegrityError):
        return f"refused what contradicts its rows: {first}"
    return f"the database says: {first}"


def _without_password(text: str, url: URL) -> str:
    """`text` with the URL's password, and all of its query's values, starred out."""
    secrets = [str(url.password)] if url.password else []
    for value in url.query.values():
        secrets += [value] if isinstance(value, str) else list(value)
    for secret in secrets:
        text = text.replace(secret, "***") if len(secret) > 2 else text
    return text
