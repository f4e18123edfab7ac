"""The databases that the store is tested on: SQLite, and PostgreSQL from the system's package."""

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from search_server.store.url import parse_url

_spec = importlib.util.spec_from_file_location(
    "postgres", Path(__file__).parent.parent / "postgres.py"
)
assert _spec is not None
assert _spec.loader is not None
postgres: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(postgres)


def must_have_postgres() -> bool:
    """Whether tests on PostgreSQL may not be skipped."""
    asked = os.environ.get("LOSSFORGE_TEST_POSTGRES") == "required"
    return asked or os.environ.get("CI") == "true"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Any]:
    """A throw-away server; tests that stop it start it again."""
    if postgres.programs() is None:
        say = pytest.fail if must_have_postgres() else pytest.skip
        say(postgres.HOW_TO_GET_IT)
    with postgres.running() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_root(request: pytest.FixtureRequest) -> URL:
    """A server to make databases on: the one that $LOSSFORGE_TEST_POSTGRES names, or one made."""
    given = os.environ.get("LOSSFORGE_TEST_POSTGRES", "")
    if given not in ("", "required"):
        return parse_url(given)
    return parse_url(
        request.getfixturevalue("postgres_server").url.render_as_string(hide_password=False)
    )


@pytest.fixture
def new_url(
    request: pytest.FixtureRequest, tmp_path: Path, backend: str
) -> Iterator[Callable[[], str]]:
    """Makes empty databases of the test's own, of the kind that it runs on; gives their URLs."""
    with ExitStack() as databases:

        def make() -> str:
            if backend == "sqlite":
                return f"sqlite:///{tmp_path / f'store-{next(numbers)}.db'}"
            root = request.getfixturevalue("postgres_root")
            url = databases.enter_context(postgres.database(root))
            return str(url.render_as_string(hide_password=False))

        numbers = count(1)
        yield make


@pytest.fixture(params=["sqlite", "postgres"])
def backend(request: pytest.FixtureRequest) -> str:
    """The kind of database: a test that asks for it, or for a URL, runs on both."""
    return str(request.param)


@pytest.fixture
def url(new_url: Callable[[], str]) -> str:
    """An empty database of the test's own, of either kind."""
    return new_url()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """An SQLite file of the test's own, which does not exist yet."""
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def postgres_url(postgres_root: URL) -> Iterator[str]:
    """An empty PostgreSQL database of the test's own."""
    with postgres.database(postgres_root) as url:
        yield url.render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def postgres_database(postgres_root: URL) -> Callable[[], AbstractContextManager[URL]]:
    """Makes empty PostgreSQL databases, for fixtures that many tests share; each is gone when its
    block ends."""
    return lambda: postgres.database(postgres_root)
