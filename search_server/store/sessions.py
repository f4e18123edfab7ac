"""Opening the store, and the two kinds of transaction on it: reading and changing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from sqlalchemy import URL, Engine
from sqlalchemy.orm import Session

from search_server.errors import StoreError
from search_server.store import schema
from search_server.store.engine import WRITES, connect, explained
from search_server.store.url import parse_url, shown


class Sessions:
    """An open store's connections; `Store` adds what is done on them."""

    def __init__(self, engine: Engine, url: URL) -> None:
        self._engine = engine
        self._writing = engine.execution_options(**WRITES)
        self._url = url

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> Self:
        """Open the store at a URL or path; a fresh database gets its schema.

        Args:
            create: False for commands that only read: a missing SQLite file is then an error.

        Raises:
            StoreError: not a store, or it cannot be opened.
            SchemaError: its schema is not this version's; the message has the command to run.
        """
        parsed = parse_url(url)
        if parsed.get_backend_name() == "sqlite":
            file = Path(str(parsed.database))
            if not create and not file.exists():
                raise StoreError(
                    f"there is no store at {file} yet; `lossforge search SPEC` makes one, and "
                    "--store or $LOSSFORGE_STORE name another"
                )
            if create:
                _make_folder(file.parent)
        schema.ensure(parsed)
        return cls(connect(parsed), parsed)

    @property
    def url(self) -> str:
        """The store's URL for people, without its password."""
        return shown(self._url)

    @property
    def engine(self) -> Engine:
        """For the queries of other modules of this package; they only read."""
        return self._engine

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session whose reads see one state of the database; for this package's queries."""
        with explained(self._url), Session(self._engine) as session, session.begin():
            yield session

    @contextmanager
    def changing(self) -> Iterator[Session]:
        """A session whose changes are committed together when the block ends, or not at all."""
        with explained(self._url), Session(self._writing) as session, session.begin():
            yield session


def now() -> datetime:
    """The present time, aware, in UTC."""
    return datetime.now(UTC)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"the store's folder {folder} cannot be made ({error.strerror}); give another path "
            "with --store or $LOSSFORGE_STORE"
        ) from None
