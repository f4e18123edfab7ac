"""Opening the store, and the two kinds of transaction on it: reading and changing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, Self, TypeVar

from sqlalchemy import URL, Engine, func, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from search_server.errors import SearchError, StoreAway, StoreError
from search_server.store import schema
from search_server.store.away import Patience, is_away, pause
from search_server.store.controllers import Leases, Seal
from search_server.store.engine import WRITES, connect, explained, explanation
from search_server.store.turns import AT_ONCE, Turns
from search_server.store.url import parse_url, shown

_S = TypeVar("_S", bound="Sessions")
_P = ParamSpec("_P")
_R = TypeVar("_R")


class Sessions:
    """An open store's connections; `Store` adds what is done on them."""

    def __init__(self, engine: Engine, url: URL) -> None:
        self._engine = engine
        self._writing = engine.execution_options(**WRITES)
        self._url = url
        self._leases = Leases()
        self._turns = Turns(AT_ONCE[engine.dialect.name])
        self._patience: Patience | None = None
        self._away_since: float | None = None
        self._tries = 0

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
        with (
            self._turns.taken(),
            explained(self._url),
            Session(self._engine) as session,
            session.begin(),
        ):
            yield session
        self._away_since = None

    @contextmanager
    def changing(self, job_id: str | None = None, seal: Seal | None = None) -> Iterator[Session]:
        """A session whose changes are committed together when the block ends, or not at all.

        Args:
            job_id: of the job that the changes are the controller's of.
            seal: what becomes of this process's lease of the job; by default it is renewed, where
                there is one.

        Raises:
            TakenOver: another process runs the job now.
            StoreAway: nothing was written, and the same may be tried again. A commit whose answer
                was lost is asked for as soon as the store answers.
        """
        with self._leases.lock, explained(self._url), Session(self._writing) as session:
            try:
                yield session
                session.flush()
            except (SearchError, IntegrityError):
                self._check_lease(session, job_id)  # of one that was replaced, that is the reason
                raise
            if seal is None and job_id is not None:
                seal = self._leases.renewal(job_id)
            if seal is not None:
                seal.write(session)
            try:
                session.commit()
            except SQLAlchemyError as error:
                if seal is None or not is_away(error) or not self._was_committed(seal, error):
                    raise
            if seal is not None:
                self._leases.note(seal)
        self._away_since = None

    def _check_lease(self, session: Session, job_id: str | None) -> None:
        own = None if job_id is None else self._leases.renewal(job_id)
        if own is not None:
            session.rollback()
            own.check(session)

    @contextmanager
    def patient(self, patience: Patience) -> Iterator[None]:
        """While the block lasts, this store's methods wait for a database that does not answer."""
        before, self._patience, self._away_since = self._patience, patience, None
        try:
            yield
        finally:
            self._patience = before

    def wait(self, error: StoreError) -> None:
        """Wait a little for a store that is away, as `error` says.

        Raises:
            StoreError: this very one; nobody is patient.
            StoreAway: nobody is patient any longer.
        """
        patience = self._patience
        if patience is None:
            raise error
        if self._away_since is None:
            self._away_since, self._tries = time.monotonic(), 0
        gone = time.monotonic() - self._away_since
        if patience.stop.is_set() or gone > patience.seconds:
            why = f"it was waited for, {gone:.0f} s" if gone > patience.seconds else "told to stop"
            raise StoreAway(
                f"{error} ({why}; nothing that was written is lost: resume the job once the store "
                "answers)"
            )
        patience.say(f"the store, which has not answered for {gone:.0f} s: {error}")
        patience.stop.wait(pause(self._tries))
        self._tries += 1

    def _was_committed(self, seal: Seal, error: SQLAlchemyError) -> bool:
        """Whether a commit without an answer took place; asked until the store tells."""
        while True:
            self.wait(explanation(error, self._url))
            try:
                # Whoever asks waits at the row until the old transaction is over.
                with Session(self._writing) as session, session.begin():
                    return seal.was_written(session)
            except SQLAlchemyError as again:
                if not is_away(again):
                    raise
                error = again


def outlasting(
    method: Callable[Concatenate[_S, _P], _R],
) -> Callable[Concatenate[_S, _P], _R]:
    """A method of the store that is repeated while the store is away, as far as it is patient."""

    @wraps(method)
    def repeated(self: _S, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        while True:
            try:
                return method(self, *args, **kwargs)
            except StoreAway as error:
                self.wait(error)

    return repeated


def now() -> datetime:
    """The present time by this machine's clock, aware, in UTC; for people."""
    return datetime.now(UTC)


def clock(session: Session) -> datetime:
    """The present time by the one clock that all machines of a store share, aware, in UTC: its
    server's. What is compared between machines is told by it."""
    if session.get_bind().dialect.name != "postgresql":
        return now()
    with session.no_autoflush:  # it is asked in the middle of making rows
        told = session.scalar(select(func.clock_timestamp()))
    assert isinstance(told, datetime)
    return told.astimezone(UTC)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"the store's folder {folder} cannot be made ({error.strerror}); give another path "
            "with --store or $LOSSFORGE_STORE"
        ) from None
