"""The page of results, from a store of made-up trials."""

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from losses.catalog import read_definition
from search_server.controller import run_job
from search_server.executors import InlineExecutor
from search_server.publish import prepare_publication, run_publication
from search_server.store import Store
from workers import TrialResult, TrialSpec

HERE = Path(__file__).parent


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


page, fake = (
    load(HERE.parent / "tools" / "results_page.py"),
    load(HERE / "search_server" / "fake_search.py"),
)
SEARCH: dict[str, Any] = {
    "name": "evidence-atss-search",
    "funnel": {
        "simulate": None,
        "proxy": {"steps": 5, "rungs": [2]},
        "confirm": {"steps": 9, "top": 2, "seeds": 3, "rivals": ["focal-ciou", "vfl-giou"]},
    },
    "searcher": {"population": 4},
    "candidates": 8,
    "window": 3,
}


def trial(spec: TrialSpec) -> TrialResult:
    result: TrialResult = fake.fake_trial(spec)
    return result


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with nothing but the protocol."""
    for name in ("docs/images", "work"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "docs" / "results.md").write_text("# Protocol\n\nAs it was fixed.\n")
    monkeypatch.setattr(page, "ROOT", tmp_path)
    monkeypatch.setattr(page, "PAGE", tmp_path / "docs" / "results.md")
    monkeypatch.setattr(page, "FOUND", tmp_path / "losses")
    monkeypatch.setattr(page, "WORK", tmp_path / "work")
    return tmp_path


def test_the_page_says_what_the_store_holds_and_says_it_again(root: Path) -> None:
    text = root / "docs" / "results.md"
    with (
        Store.open(f"sqlite:///{root / 'store.db'}") as store,
        InlineExecutor(2, trial) as executor,
    ):
        job = fake.create_job(store, fake.spec(**SEARCH))
        assert run_job(store, job, executor) == "done"
        other = {**SEARCH, "name": "evidence-atss-random", "seed": 5}
        run_job(store, fake.create_job(store, fake.spec(**other)), executor)
        page.write_page(store)
        assert text.read_text() == "# Protocol\n\nAs it was fixed.\n"
        publication = prepare_publication(store, job, seeds=4)
        run_publication(store, publication, executor, None, None)
        page.write_page(store)
        once = text.read_text()
        page.write_page(store)
    assert text.read_text() == once
    assert once.startswith("# Protocol\n\nAs it was fixed.\n\n## Results\n\n### ATSS\n")
    assert "| default |" in once
    assert "| focal-ciou |" in once
    assert "`evidence-atss-random-1`" in once
    assert "### Ledger" in once
    for link in re.findall(r"\]\(([^)]+)\)", once):
        assert (root / "docs" / link).is_file(), link
    for table in re.findall(r"(?:^\|.*\n)+", once, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table
    kept = read_definition(root / "losses" / "discovered-atss.json")
    assert kept.key == publication.row.key
