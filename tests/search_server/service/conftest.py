"""A store of its own for every test of the service, made once, and clients that ask of it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from search_server.service.app import make_app
from search_server.service.settings import ServiceSettings
from search_server.spec import JobSpec
from search_server.store import Store
from search_server.store.requests import Asked

HERE = "http://127.0.0.1"
SPEC: dict[str, Any] = {
    "name": "digits atss",
    "detector": "digits/atss",
    "branches": {"cls": {"space": "binary_cls"}, "bbox": {"space": "box"}},
    "limits": {"steps": 400},
}


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store's file with its schema and nothing else."""
    file = tmp_path_factory.mktemp("empty") / "store.db"
    Store.open(str(file)).close()
    return file


@pytest.fixture
def store_file(empty_store: Path, tmp_path: Path) -> Path:
    """A store of the test's own."""
    return Path(shutil.copy(empty_store, tmp_path / "store.db"))


@pytest.fixture
def store(store_file: Path) -> Iterator[Store]:
    """The same, open."""
    with Store.open(str(store_file)) as opened:
        yield opened


@pytest.fixture
def client(store: Store) -> Callable[..., TestClient]:
    """Makes a client of a service over the store."""

    def make(
        settings: ServiceSettings | None = None, *, tokens: bool = False, token: str = ""
    ) -> TestClient:
        app = make_app(store, settings or ServiceSettings(), tokens_wanted=tokens)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return TestClient(app, base_url=HERE, headers=headers)

    return make


@pytest.fixture
def new_job(store: Store) -> Callable[..., str]:
    """Writes a job without asking whether it could run."""

    def make(name: str = "digits atss", request: Asked | None = None, **changes: Any) -> str:
        spec = JobSpec.model_validate({**SPEC, "name": name, **changes}).to_json()
        return store.create_job(name, spec, "model = dict()", ["0", "1"], request=request)

    return make
