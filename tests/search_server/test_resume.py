"""A search killed with SIGKILL anywhere and resumed gives the rows of one that was left alone."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PROGRAM = Path(__file__).with_name("fake_search.py")
_spec = importlib.util.spec_from_file_location("fake_search", PROGRAM)
assert _spec is not None
assert _spec.loader is not None
fake: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake)


def child(url: str, job: str, kind: str, count: int) -> subprocess.CompletedProcess[str]:
    """Run the job in a process of its own, with a hash seed of its own."""
    environment = {**os.environ, "PYTHONHASHSEED": str(count + 1)}
    command = [sys.executable, str(PROGRAM), url, job, kind, str(count)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def trials_ended(url: str) -> dict[tuple[Any, ...], Any]:
    return {
        (row["candidate"], row["stage"], row["seed"]): row
        for row in fake.rows(url)["trials"]
        if row["state"] not in ("running", "paused")
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["evolution", "policy", "halving"])
def test_killed_at_random_moments_and_resumed(kind: str, new_url: Callable[[], str]) -> None:
    changes = {"policy": fake.POLICY, "halving": fake.HALVING}.get(kind, {})
    urls = [new_url(), new_url()]
    jobs = [fake.new_job(url, **changes) for url in urls]
    assert child(urls[0], jobs[0], "never", 0).stdout.strip() == "done"

    rng = np.random.default_rng()  # other moments in every run of the test
    # all five together stay below the 80 writes and 28 trials of the smaller whole search
    events = ("commit", "written", "trial", "commit", "written")
    moments = [(event, int(rng.integers(2, 9 if event == "trial" else 16))) for event in events]
    for event, count in moments:
        before = trials_ended(urls[1])
        dead = child(urls[1], jobs[1], event, count)
        assert dead.returncode == -signal.SIGKILL, (moments, dead.stderr)
        after = trials_ended(urls[1])
        assert before.items() <= after.items(), moments
    last = child(urls[1], jobs[1], "never", 5)
    assert last.stdout.strip() == "done", (moments, last.stderr)
    assert fake.rows(urls[1]) == fake.rows(urls[0]), moments
