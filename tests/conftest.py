"""What every test shares: a home folder of its own, one thread, no stray environment, an order."""

import gc
import os
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

os.environ.setdefault("OMP_NUM_THREADS", "1")

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[1]


class Scheduling(LoadFileScheduling):
    """A process runs whole files; one runs all that start clusters of several nodes, which would
    wait for each other (`ray_nodes.one_at_a_time`)."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "clusters" if _starts_clusters(file) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling | None:
    """Tests of one file stay together, files in our order; None: the command line wants
    otherwise."""
    if config.getoption("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest go first, so that processes come to their end together: those
    with clusters, then those of few tests, which are large ones; files that the command
    line names as well."""
    files = {item: item.nodeid.partition("::")[0] for item in items}
    count = Counter(files.values())
    order = {file: (not _starts_clusters(file), count[file], file) for file in count}
    items.sort(key=lambda item: order[files[item]])


@cache
def _starts_clusters(file: str) -> bool:
    path = ROOT / file
    return path.is_file() and "from ray_nodes import" in path.read_text()


def pytest_collection_finish() -> None:
    """What tests import stays: collections need not look at it again. mmengine has one made with
    every data set, a third of a second each with all that torch and mmdet consist of."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def golden_path() -> Path:
    """The folder of reference numbers."""
    return GOLDEN


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keeps tests, and what they share, away from the user's store, data and settings.

    The folder is the same for all tests of one process, so that the digits are drawn once.
    """
    home = tmp_path_factory.getbasetemp() / "lossforge-home"
    home.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOSSFORGE_HOME", str(home))
        patch.delenv("LOSSFORGE_STORE", raising=False)
        yield home
