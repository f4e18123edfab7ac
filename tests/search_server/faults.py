"""What the tests of faults share: how often, a search to disturb, and what was lost or doubled.

`LOSSFORGE_CHAOS=20` repeats every fault so many times (`make chaos`); `LOSSFORGE_CHAOS_LOG` names a
file to which every run adds its counts.
"""

import importlib.util
import os
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import Session


def _module(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PROGRAM = Path(__file__).with_name("fake_search.py")
RAY_PROGRAM = Path(__file__).with_name("ray_search.py")
fake = _module(PROGRAM)
on_ray = _module(RAY_PROGRAM)
postgres = _module(Path(__file__).parent.parent / "postgres.py")

CHAOS = int(os.environ.get("LOSSFORGE_CHAOS", "1"))
ROUNDS = range(CHAOS)
SMALL: dict[str, Any] = {
    "candidates": 5,
    "window": 3,
    "funnel": {
        "verify": {"max_draws": 400},
        "simulate": None,
        "proxy": {"steps": 5, "seeds": [0, 7]},
    },
}
FAKETIME = (
    "/usr/lib/*/faketime/libfaketimeMT.so.1",
    "/usr/lib*/faketime/libfaketimeMT.so.1",
)
FEW = {**SMALL, "candidates": 3}
KEY = ("job_id", "candidate", "stage", "seed")


def undisturbed(folder: Path, **changes: Any) -> dict[str, Any]:
    """The rows of a search on a store of its own that nothing happens to."""
    url = f"sqlite:///{folder / 'undisturbed.db'}"
    job = fake.new_job(url, **changes)
    assert fake.run(url, job) == "done"
    found: dict[str, Any] = fake.rows(url)
    return found


def same_rows(fault: str, url: str, expected: dict[str, Any], trained: Counter[Any]) -> None:
    """Asserts that a disturbed search came to the rows of an undisturbed one, and writes down what
    was lost or doubled.

    Args:
        trained: how often a trial's result was written, by its key; empty where it is not counted.
    """
    found = fake.rows(url)
    wanted, has = (
        Counter(tuple(row[name] for name in KEY) for row in rows["trials"])
        for rows in (expected, found)
    )
    lost = sum((wanted - has).values())
    doubled = sum((has - wanted).values()) + sum(count - 1 for count in trained.values())
    other = differences(found, expected)
    note(fault, lost, doubled, len(other))
    assert (lost, doubled) == (0, 0)
    assert other == []


def note(fault: str, lost: int, doubled: int, other: int = 0) -> None:
    """Adds a run to the file that `make chaos` counts at its end."""
    log = os.environ.get("LOSSFORGE_CHAOS_LOG")
    if log:
        with Path(log).open("a") as file:
            file.write(f"{fault}\t{lost}\t{doubled}\t{other}\n")


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[Any]:
    """Values that are not the same, table by table; readable where whole stores are not."""
    assert found.keys() == expected.keys()
    return [
        (name, column, (row or {}).get(column), value)
        for name in found
        for row, other in zip_longest(found[name], expected[name])
        for column, value in (other or row).items()
        if row is None or other is None or row[column] != value
    ]


def finished(url: str) -> dict[tuple[Any, ...], Any]:
    """What has come of the trials that have ended, by their key."""
    engine = create_engine(url)
    query = text(
        "SELECT job_id, candidate, stage, seed, state, fitness, finished_at, seconds_total "
        "FROM trials WHERE state NOT IN ('running', 'paused')"
    )
    with engine.connect() as connection:
        found = {tuple(row[:4]): tuple(row[4:]) for row in connection.execute(query)}
    engine.dispose()
    return found


def ended(url: str) -> int:
    """How many trials the store has ended."""
    engine = create_engine(url)
    with engine.connect() as connection:
        query = text("SELECT COUNT(*) FROM trials WHERE state != 'running'")
        count = connection.execute(query).scalar_one()
    engine.dispose()
    return int(count)


def wait_for(condition: Callable[[], Any], seconds: float = 300) -> Any:
    """What the condition gives once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def writes(session: Session) -> bool:
    """Whether a session is one that changes the store."""
    return bool(session.get_bind().get_execution_options().get("lossforge_writes"))


def at_writes(before: Callable[[], None], after: Callable[[], None]) -> None:
    """Has functions called inside each transaction that writes, at its very end, and after it."""
    event.listen(Session, "before_commit", lambda session: before() if writes(session) else None)
    event.listen(Session, "after_commit", lambda session: after() if writes(session) else None)


def forked(work: Callable[[], None]) -> int:
    """Begins the work in a process of its own; its id."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def end_of(child: int) -> int:
    """Waits for a process that was forked; the signal that ended it, 0 for none."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    assert os.WEXITSTATUS(status) == 0
    return 0


def kill_self() -> None:
    """The end of this process, at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def wrong_clock(seconds: int) -> dict[str, str]:
    """Variables that put the wall clock of a process, and of its children, wrong; the clocks that
    only measure spans stay right, as they do on a machine that is set wrong.

    Skips the test where libfaketime is not installed; in CI it fails.
    """
    found = [file for place in FAKETIME for file in Path("/").glob(place.lstrip("/"))]
    if not found:
        say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        say("no wrong clock without libfaketime (Debian: apt install libfaketime)")
    return {
        "LD_PRELOAD": str(found[0]),
        "RAY_LD_PRELOAD_ON_WORKERS": "1",
        "FAKETIME": f"{seconds:+d}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
