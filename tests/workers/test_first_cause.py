"""Which of several processes is to blame for their end, and what is said of it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from workers.first_cause import death, ended, first_cause

KILLED, ABORTED, TERMINATED = -signal.SIGKILL, -signal.SIGABRT, -signal.SIGTERM


def files(folder: Path, *order: int) -> dict[int, Path]:
    """Files of processes that told in this order."""
    found = {}
    for place, rank in enumerate(order):
        found[rank] = folder / f"told-{rank}"
        found[rank].touch()
        os.utime(found[rank], ns=(place, place))
    return found


@pytest.mark.parametrize(
    ("told", "dead", "blamed"),
    [
        ((), {1: KILLED, 0: ABORTED}, 1),
        ((), {0: ABORTED, 2: ABORTED}, 0),  # nothing better is known
        ((), {2: 3, 0: TERMINATED}, 2),
        ((2, 0), {}, 2),
        ((2, 0), {1: ABORTED}, 2),
        ((2, 0), {1: KILLED}, 1),  # the others tell of a connection that was lost
        ((0,), {2: KILLED, 1: KILLED}, 1),
    ],
)
def test_the_first_cause(tmp_path: Path, told: tuple, dead: dict, blamed: int) -> None:
    assert first_cause(files(tmp_path, *told), dead) == blamed


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os; os.kill(os.getpid(), 9)", "was ended by SIGKILL"),
        ("raise SystemExit(3)", "ended with status 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGRTMIN + 3)", "was ended by signal 37"),
    ],
)
def test_how_it_ended(program: str, said: str) -> None:
    code = subprocess.run([sys.executable, "-c", program], check=False).returncode
    assert ended(code) == said
    assert death(1, 4, code, "") == f"process 2 of 4 {said}"
    assert death(0, 4, code, "first\n the last \n\n") == f"process 1 of 4 {said}: the last"
