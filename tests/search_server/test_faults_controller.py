"""A controller that is killed at every single write comes to the rows of one that was left alone.

`LOSSFORGE_CHAOS=20` repeats it so many times (`make chaos`).
"""

import importlib.util
import os
import signal
import traceback
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from search_server.controller import run_job
from search_server.executors import InlineExecutor
from search_server.store import Store

PROGRAM = Path(__file__).with_name("fake_search.py")
_spec = importlib.util.spec_from_file_location("fake_search", PROGRAM)
assert _spec is not None
assert _spec.loader is not None
fake: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake)

ROUNDS = range(int(os.environ.get("LOSSFORGE_CHAOS", "1")))
# A run commits its first write, which says that it runs, and at least one more. It is killed right
# after that one, or inside of the next, in turn.
MOMENTS = (("written", 2), ("commit", 3))
SEARCHES = {
    "evolution": {"candidates": 9},
    "halving": {**fake.HALVING, "candidates": 7},
}


def killed_or_done(url: str, job: str, kind: str, count: int) -> bool:
    """Runs the job in a process of its own until it is killed; whether it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            _run(url, job, kind, count)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


def _run(url: str, job: str, kind: str, count: int) -> None:
    killer = fake.Killer(kind, count)
    event.listen(Session, "before_commit", lambda session: killer("commit"))
    event.listen(Session, "after_commit", lambda session: killer("written"))
    with Store.open(url) as store, InlineExecutor(2, fake.fake_trial) as executor:
        assert run_job(store, job, executor, trace=1) == "done"


def finished(url: str) -> dict[tuple[Any, ...], Any]:
    """The rows of trials that have ended, by their key."""
    return {
        (row["candidate"], row["stage"], row["seed"]): row
        for row in fake.rows(url)["trials"]
        if row["state"] not in ("running", "paused")
    }


@pytest.mark.slow
@pytest.mark.parametrize("turn", ROUNDS)
@pytest.mark.parametrize("search", SEARCHES)
def test_killed_at_every_write(search: str, turn: int, url: str, tmp_path: Path) -> None:
    whole = f"sqlite:///{tmp_path / 'whole.db'}"
    jobs = [fake.new_job(each, **SEARCHES[search]) for each in (whole, url)]
    assert fake.run(whole, jobs[0]) == "done"
    runs, before = 0, finished(url)
    while not killed_or_done(url, jobs[1], *MOMENTS[(runs + turn) % 2]):
        runs += 1
        assert runs < 500
        after = finished(url)
        assert before.items() <= after.items()  # what has ended stays, as it was
        before = after
    assert fake.rows(url) == fake.rows(whole)
    assert runs > 40
