"""Many controllers on one store, several for one job, and machines whose clocks disagree."""

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import faults
import pytest
from sqlalchemy import create_engine, text

from search_server.controller import run_job
from search_server.errors import JobError, TakenOver
from search_server.executors import InlineExecutor
from search_server.progress import Progress
from search_server.store import CandidateRecord, Store, models
from workers import TrialResult, TrialSpec
from workers.result import LOST

fake = faults.fake

DAY = 24 * 3600
KEY = "c" * 64


def outcome(url: str, job: str) -> list[Any]:
    """All of a job but its times, and but whether it or another one trained what both needed."""
    with Store.open(url) as store:
        trials = [(t.candidate, t.stage, t.seed, t.state, t.fitness) for t in store.trials(job)]
        found = [(c.key, c.stage, c.state, c.fitness, c.reason) for c in store.candidates(job)]
        return [store.job(job).state, found, trials, store.counts(job)]


def signing(file: Path) -> Callable[[TrialSpec], TrialResult]:
    """Trials that take a while, and write their key down if they are not lost."""
    slow = fake.slow_trial(0.0, 0.05)

    def run(spec: TrialSpec) -> TrialResult:
        result: TrialResult = slow(spec)
        if result.status not in LOST:
            with file.open("a") as signed:
                signed.write(f"{spec.key}\n")
        return result

    return run


def ran(url: str, job: str, trial: Any, said: Path) -> Callable[[], None]:
    """Runs a job, and writes down how that ended."""

    def work() -> None:
        try:
            with Store.open(url) as store, InlineExecutor(2, trial) as executor:
                end = run_job(store, job, executor, trace=1)
        except JobError as error:
            end = str(error)
        said.write_text(end)

    return work


@pytest.mark.slow
@pytest.mark.parametrize("turn", faults.ROUNDS)
def test_many_jobs_at_once_on_one_store(
    turn: int, new_url: Callable[[], str], backend: str, tmp_path: Path
) -> None:
    """Each ends as it would alone. Two are the same search: what both need is trained once."""
    seeds = (1, 2, 3, 3)
    shared = new_url()
    jobs = [fake.new_job(shared, **faults.FEW, seed=seed) for seed in seeds]
    signed = tmp_path / "signed"
    said = [tmp_path / f"said-{job}" for job in jobs]
    begun = [
        faults.forked(ran(shared, job, signing(signed), file))
        for job, file in zip(jobs, said, strict=True)
    ]
    assert [faults.end_of(child) for child in begun] == [0] * len(jobs)
    assert [file.read_text() for file in said] == ["done"] * len(jobs)
    lost = doubled = 0
    for seed in set(seeds):
        url = f"sqlite:///{tmp_path / f'alone-{seed}.db'}"
        alone = fake.new_job(url, **faults.FEW, seed=seed)
        assert fake.run(url, alone) == "done"
        expected = outcome(url, alone)
        for job in (job for job, other in zip(jobs, seeds, strict=True) if other == seed):
            found = outcome(shared, job)
            trials = [Counter(each[2]) for each in (expected, found)]
            lost += (trials[0] - trials[1]).total()
            doubled += (trials[1] - trials[0]).total()
            assert found == expected
    times = Counter(signed.read_text().splitlines())
    doubled += sum(count - 1 for count in times.values())
    faults.note(f"many controllers on {backend}", lost, doubled)
    assert (lost, doubled) == (0, 0), times


@pytest.mark.slow
@pytest.mark.parametrize("turn", faults.ROUNDS)
def test_of_several_resumes_at_once_one_runs_the_job(
    turn: int, url: str, backend: str, tmp_path: Path
) -> None:
    expected = faults.undisturbed(tmp_path, **faults.FEW)
    job = fake.new_job(url, **faults.FEW)
    signed = tmp_path / "signed"
    said = [tmp_path / f"said-{number}" for number in range(3)]
    begun = [faults.forked(ran(url, job, signing(signed), file)) for file in said]
    assert [faults.end_of(child) for child in begun] == [0] * len(said)
    answers = sorted(file.read_text() for file in said)
    assert answers.count("done") == 1, answers
    others = [answer for answer in answers if answer != "done"]
    assert all(f"job {job} is being run by process" in answer for answer in others), answers
    times = Counter(signed.read_text().splitlines())
    faults.same_rows(f"resumes at once on {backend}", url, expected, times)


@pytest.mark.slow
@pytest.mark.parametrize("turn", faults.ROUNDS)
def test_a_controller_that_was_replaced_writes_no_more(
    turn: int, url: str, backend: str, tmp_path: Path
) -> None:
    """Nobody can see from one machine whether a controller on another lives: the job may be taken
    over, and the one before finds out at its next write."""
    expected = faults.undisturbed(tmp_path, **faults.FEW)
    job = fake.new_job(url, **faults.FEW)
    far = threading.Event()

    def look(progress: Progress) -> None:
        if progress.done >= 2 + turn % 4:
            far.set()
            threading.Event().wait(0.2)

    slow = fake.slow_trial(0.1, 0.2)
    with (
        ThreadPoolExecutor(1) as thread,
        Store.open(url) as store,
        InlineExecutor(2, slow) as first,
    ):
        old = thread.submit(run_job, store, job, first, look, trace=1)
        assert far.wait(120)
        put_far_away(url)
        assert fake.run(url, job) == "done"
        with pytest.raises(TakenOver, match=f"job {job} was taken over by another process"):
            old.result(timeout=120)
    faults.same_rows(f"controller replaced on {backend}", url, expected, Counter())


def test_who_is_replaced_in_mid_write_learns_of_that(postgres_url: str) -> None:
    """And not of the row that the other one wrote meanwhile. SQLite lets one write at a time."""
    job = fake.new_job(postgres_url, **faults.FEW)
    with Store.open(postgres_url) as old, Store.open(postgres_url) as new:
        old.set_job_state(job, "running")
        old.add_candidate(job, CandidateRecord(0, "baseline", (), {}, "key"))

        def write() -> None:
            with old.changing(job) as session:
                put_far_away(postgres_url)
                new.set_job_state(job, "running")
                assert new.start_trial(job, 0, "proxy", 0, "spec", KEY).verdict == "train"
                row = models.Trial(job_id=job, candidate=0, stage="proxy", seed=0)
                row.state, row.reason, row.spec_key = "running", "", "spec"
                session.add(row)

        with pytest.raises(TakenOver, match=job):
            write()
        assert [trial.state for trial in new.trials(job)] == ["running"]


def put_far_away(url: str) -> None:
    """The controllers of a store are from now on those of another machine."""
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET owner = 'far-away 1 1' WHERE owner IS NOT NULL"))
    engine.dispose()


# Claims the right to train as a job of another machine, whose clock is wrong, and is never heard of
# again.
CLAIM = """
import sys, time
from search_server.store import CandidateRecord, Store
url, job, key = sys.argv[1:]
with Store.open(url) as store:
    store.set_job_state(job, "running")
    store.add_candidate(job, CandidateRecord(0, "baseline", (), {}, "key"))
    assert store.start_trial(job, 0, "proxy", 0, "spec", key).verdict == "train"
print(time.time())
"""


@pytest.mark.parametrize("turn", faults.ROUNDS)
def test_who_trains_is_not_told_by_the_clock_of_a_machine(turn: int, postgres_url: str) -> None:
    """A trial of another machine is waited for, though by that machine's clock it began a day ago,
    or will begin tomorrow."""
    wrong = (-DAY, DAY)[turn % 2]
    jobs = [fake.new_job(postgres_url, **faults.FEW) for _ in range(2)]
    done = subprocess.run(
        [sys.executable, "-c", CLAIM, postgres_url, jobs[0], KEY],
        env={**os.environ, **faults.wrong_clock(wrong)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    put_far_away(postgres_url)
    with Store.open(postgres_url) as store:
        there = store.trials(jobs[0])[0].started_at
        assert there is not None
        assert abs(store.clock() - there) < timedelta(minutes=10)
        off = float(done.stdout) - store.clock().timestamp()
        assert abs(off - wrong) < DAY / 2  # it was wrong indeed
        record = store.candidates(jobs[0])[0]
        store.add_candidate(jobs[1], record)
        assert store.start_trial(jobs[1], 0, "proxy", 0, "spec", KEY).verdict == "wait"
    faults.note("clock of a controller wrong by a day", 0, 0)
