"""The schema's revision: created in a fresh database, checked in every other, upgraded on request.

The migrations travel inside the package and are found through its path, never through the
current folder.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, inspect, text

from search_server.errors import SchemaError, StoreError
from search_server.store.backup import back_up
from search_server.store.engine import WRITES, connect, explained
from search_server.store.url import shown

MIGRATIONS = Path(__file__).parent / "migrations"
# Any constant will do: the lock that keeps two processes from creating one schema at once.
_POSTGRES_LOCK = 7_313_501


@cache
def head() -> str:
    """The revision that this version of Lossforge reads and writes."""
    revision = ScriptDirectory(str(MIGRATIONS)).get_current_head()
    assert revision is not None
    return revision


def current(url: URL) -> str | None:
    """The revision of the database at `url`; None for one without tables.

    Raises:
        StoreError: cannot be opened, or holds the tables of something else.
    """
    engine = connect(url)
    try:
        with explained(url), engine.connect() as connection:
            return _revision(connection, url)
    finally:
        engine.dispose()


def ensure(url: URL) -> None:
    """Create the schema in a fresh database; return if it is the one this version reads.

    Raises:
        SchemaError: an older or newer one, with the command to run.
        StoreError: cannot be opened, or holds the tables of something else.
    """
    found, wanted = current(url), head()
    if found is None:
        upgrade(url)
    elif found != wanted:
        raise _refusal(url, found, wanted)


def upgrade(url: URL, backed_up: Callable[[Path], None] | None = None) -> tuple[str | None, str]:
    """Bring the database to this version's schema, in one transaction; returns (before, after).

    Args:
        backed_up: asks for a copy of an SQLite store that is about to change, and is called with
            its file once it is complete; None: no copy is made.

    Raises:
        SchemaError: its schema is newer than this version.
        StoreError: cannot be opened, written or copied. Nothing has changed then.
    """
    engine = connect(url, foreign_keys=False)
    try:
        with explained(url), engine.connect().execution_options(**WRITES) as connection:
            with connection.begin():
                if connection.dialect.name == "postgresql":
                    connection.execute(text(f"SELECT pg_advisory_xact_lock({_POSTGRES_LOCK})"))
                # Asked again under the lock: another process may just have created it.
                before, wanted = _revision(connection, url), head()
                if before == wanted:
                    return before, wanted
                if before is not None and not _known(before):
                    raise _refusal(url, before, wanted)
                if backed_up is not None and before is not None:
                    # Under the lock: nothing can be written between the copy and the change.
                    file = back_up(url, wanted)
                    if file is not None:
                        backed_up(file)
                config = Config()
                config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
                config.attributes["connection"] = connection
                command.upgrade(config, wanted)
                if connection.dialect.name == "sqlite":
                    _check_foreign_keys(connection, url)
            return before, wanted
    finally:
        engine.dispose()


def _revision(connection: Connection, url: URL) -> str | None:
    """The revision a connection's database is stamped with, None for one without tables."""
    tables = inspect(connection).get_table_names()
    if not tables:
        return None
    heads = MigrationContext.configure(connection).get_current_heads()
    if len(heads) != 1:
        raise StoreError(
            f"{shown(url)} holds tables of something else ({', '.join(sorted(tables)[:3])}, ...); "
            "give Lossforge a database of its own"
        )
    return heads[0]


def _known(revision: str) -> bool:
    try:
        return ScriptDirectory(str(MIGRATIONS)).get_revision(revision) is not None
    except CommandError:
        return False


def _refusal(url: URL, found: str, wanted: str) -> SchemaError:
    """Says which command, or which version, makes store and program fit."""
    if not _known(found):
        return SchemaError(
            f"{shown(url)} has schema {found}, which is newer than this version of Lossforge "
            f"(schema {wanted}); run: pip install --upgrade lossforge",
            found,
            wanted,
        )
    name = shown(url)
    hidden = " (*** stands for the password)" if url.password else ""
    return SchemaError(
        f"{name} has schema {found}, this version of Lossforge reads {wanted}; "
        f"back it up, then run: lossforge db upgrade --store '{name}'{hidden}",
        found,
        wanted,
    )


def _check_foreign_keys(connection: Connection, url: URL) -> None:
    """What SQLite did not check while the migrations ran."""
    broken = connection.execute(text("PRAGMA foreign_key_check")).fetchall()
    if broken:
        raise StoreError(
            f"{shown(url)}: {len(broken)} rows point to rows that do not exist, first in table "
            f"{broken[0][0]}; restore the database from a backup. Nothing was changed"
        )
