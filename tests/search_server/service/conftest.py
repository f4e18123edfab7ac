"""A store of its own for every test of the service, made once; clients that ask it; a browser."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import PATIENCE
from fastapi.testclient import TestClient
from selenium import webdriver

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


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Headless Chromium."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    program = shutil.which("chromedriver")
    if browser is None or program is None:
        why = "there is no browser here (Debian: apt install chromium chromium-driver)"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    profile = tmp_path_factory.mktemp("browser")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     "--window-size=1280,1000", f"--user-data-dir={profile}"):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options, webdriver.ChromeService(program))
    made.set_page_load_timeout(4 * PATIENCE)
    yield made
    made.quit()
