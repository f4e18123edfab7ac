"""A search killed with SIGKILL anywhere and resumed gives the rows of one that was left alone."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import faults
import numpy as np
import pytest

fake = faults.fake


def killed(url: str, job: str, kind: str, count: int) -> int:
    """Runs the job in a process of its own that kills itself; the signal that ended it."""
    end: int = faults.end_of(faults.forked(lambda: fake.main(url, job, kind, str(count))))
    return end


def ended(url: str, job: str) -> str:
    """Runs the job to its end, in a process that shares nothing with this one, hash seed included;
    its state."""
    environment = {**os.environ, "PYTHONHASHSEED": "5"}
    command = [sys.executable, str(faults.PROGRAM), url, job, "never", "0"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


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
    assert fake.run(urls[0], jobs[0]) == "done"

    rng = np.random.default_rng()  # other moments in every run of the test
    # all five together stay below the 80 writes and 28 trials of the smaller whole search
    events = ("commit", "written", "trial", "commit", "written")
    moments = [(event, int(rng.integers(2, 9 if event == "trial" else 16))) for event in events]
    for event, count in moments:
        before = trials_ended(urls[1])
        assert killed(urls[1], jobs[1], event, count) == signal.SIGKILL, moments
        after = trials_ended(urls[1])
        assert before.items() <= after.items(), moments
    assert ended(urls[1], jobs[1]) == "done", moments
    assert fake.rows(urls[1]) == fake.rows(urls[0]), moments
