"""What every test shares: a home folder of its own, one thread, no stray environment."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

GOLDEN = Path(__file__).parent / "golden"


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
