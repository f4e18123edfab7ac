"""A controller killed at every single write comes to the rows of one that was left alone."""

import shutil
import signal
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path

import faults
import pytest

from search_server.controller import run_job
from search_server.executors import InlineExecutor
from search_server.store import Store

fake = faults.fake

HALVING = {**fake.HALVING, "candidates": 5}
# A resumed run writes that it runs, then that it begins again what was under way. All that comes
# after these is new.
AGAIN = 2


def done(url: str, job: str) -> bool:
    """Whether nothing is left to be resumed: the last write of all may be the one that killed."""
    with Store.open(url) as store:
        return store.job(job).state == "done"


def killed(url: str, job: str, where: str, number: int) -> bool:
    """Runs a job in a process that is killed at its `number`-th write; False: it was done before.

    Args:
        where: `inside` the transaction, all of it written and nothing committed, or `after` it.
    """

    def work() -> None:
        left = number

        def step() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                faults.kill_self()

        nothing = list
        faults.at_writes(*((step, nothing) if where == "inside" else (nothing, step)))
        with Store.open(url) as store, InlineExecutor(2, fake.fake_trial) as executor:
            assert run_job(store, job, executor, trace=1) == "done"

    if done(url, job):
        return False
    end = faults.end_of(faults.forked(work))
    assert end in (0, signal.SIGKILL)
    return end != 0


@pytest.mark.slow
@pytest.mark.parametrize("turn", faults.ROUNDS)
def test_killed_once_at_every_write_and_resumed(turn: int, tmp_path: Path) -> None:
    """The n-th search is killed at its n-th write; the last one has fewer than that."""
    expected = faults.undisturbed(tmp_path, **faults.FEW)
    where = ("inside", "after")[turn % 2]
    fresh = tmp_path / "fresh.db"
    job = fake.new_job(f"sqlite:///{fresh}", **faults.FEW)
    for number in count(1):
        file = shutil.copy(fresh, tmp_path / f"killed-{number}.db")
        url = f"sqlite:///{file}"
        if not killed(url, job, where, number):
            break
        before = faults.finished(url)
        if not done(url, job):
            assert fake.run(url, job) == "done"
        assert before.items() <= faults.finished(url).items()
        faults.same_rows(f"controller killed {where} a write", url, expected, Counter())
    # every candidate has a write at its beginning and one at its end, trials may share theirs
    assert number > 2 * len(expected["candidates"])


@pytest.mark.slow
@pytest.mark.parametrize("turn", faults.ROUNDS)
def test_killed_again_and_again(turn: int, new_url: Callable[[], str], tmp_path: Path) -> None:
    """Every run gets one or two writes further than the one before; some of them at a rung."""
    changes = (HALVING, faults.SMALL)[turn % 2]
    expected = faults.undisturbed(tmp_path, **changes)
    url = new_url()
    job = fake.new_job(url, **changes)
    runs, before = 0, faults.finished(url)
    while killed(url, job, ("inside", "after")[runs % 2], AGAIN + 2 + runs % 3):
        runs += 1
        after = faults.finished(url)
        assert before.items() <= after.items()  # what has ended stays, as it was
        before = after
        assert runs < 1000
    assert runs > 3
    faults.same_rows("controller killed again and again", url, expected, Counter())
