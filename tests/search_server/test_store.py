"""The contract of the store, over both databases."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import numpy as np
import pytest
from sqlalchemy import create_engine, text

from search_server.errors import IllegalMove, JobError, StoreError
from search_server.fingerprints import AGREES, Fingerprint
from search_server.leaderboard import leaderboard, leaderboard_row
from search_server.leaderboard_keys import candidates, trials
from search_server.overview import summaries
from search_server.store import CandidateRecord, NoiseFloor, Store, default_url, owner
from search_server.store.records import CANDIDATE_STATES, JOB_STATES, Due
from search_server.store.trials import REMOTE_PATIENCE
from search_server.store.url import parse_url
from workers import TrialResult


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store.open(url) as opened:
        yield opened


def candidate(index: int, **fields: object) -> CandidateRecord:
    values = {
        "origin": "random" if index else "baseline",
        "parents": (),
        "definition": {"name": f"c{index}"},
        "key": f"key {index}",
        **fields,
    }
    return CandidateRecord(index=index, **values)


def result(fitness: float | None = 0.4, status: str = "done", **fields: object) -> TrialResult:
    values = {"reason": "", "seed": 0, "steps": 10, **fields}
    return TrialResult(status=status, fitness=fitness, **values)


@pytest.fixture
def job(store: Store) -> str:
    return store.create_job("My search", {"name": "My search"}, "model = 1", ["cat", "dog"], "g")


class TestJobs:
    def test_what_is_written_is_read_back_from_a_fresh_connection(self, url, store, job):
        with Store.open(url) as other:
            record = other.job(job)
        assert record.id == "my-search-1"
        assert (record.name, record.state, record.reason) == ("My search", "created", "")
        assert record.spec == {"name": "My search"}
        assert (record.detector, record.classes) == ("model = 1", ("cat", "dog"))
        assert record.trial_group == "g"
        assert record.created_at.utcoffset() is not None

    def test_ids_count_per_slug(self, store):
        names = ["a b", "A-B!", "other", "a b", "---", "a" * 100]
        ids = [store.create_job(name, {}, "", ["x"]) for name in names]
        assert ids == ["a-b-1", "a-b-2", "other-1", "a-b-3", "job-1", "a" * 40 + "-1"]
        assert [job.id for job in store.jobs()] == ids
        assert store.latest_job().id == ids[-1]

    def test_an_unknown_job_is_named_and_the_others_listed(self, store, job):
        for call in (store.job, store.candidates, store.trials, store.counts, store.draws):
            with pytest.raises(JobError, match=r"no job 'nope'.*my-search-1"):
                call("nope")

    def test_no_job_at_all(self, store):
        with pytest.raises(JobError, match="lossforge search"):
            store.latest_job()
        assert store.jobs() == []

    @pytest.mark.parametrize(
        ("path", "bad"),
        [
            ([], "done"),
            ([], "interrupted"),
            (["running", "done"], "running"),
            (["running", "cancelled"], "running"),
            (["running", "interrupted"], "done"),
            (["running", "failed"], "done"),
        ],
    )
    def test_an_illegal_move_changes_nothing(self, store, job, path, bad):
        for state in path:
            store.set_job_state(job, state)
        before = store.job(job)
        with pytest.raises(IllegalMove) as caught:
            store.set_job_state(job, bad)
        assert (caught.value.old, caught.value.new) == (before.state, bad)
        assert before.state in str(caught.value)
        assert bad in str(caught.value)
        assert store.job(job) == before

    def test_the_life_of_a_job(self, store, job):
        store.set_job_state(job, "running")
        started = store.job(job).started_at
        store.set_job_state(job, "interrupted", "Ctrl-C")
        assert store.job(job).reason == "Ctrl-C"
        assert store.job(job).finished_at is not None
        store.set_job_state(job, "running")
        assert store.job(job).reason == ""
        assert store.job(job).started_at == started
        assert store.job(job).finished_at is None
        store.set_job_state(job, "failed", "no disk")
        store.set_job_state(job, "running")
        store.set_job_state(job, "done")
        assert store.job(job).state == "done"

    def test_a_job_run_by_a_live_process_cannot_be_taken_over(self, url, store, job):
        code = (
            "import sys; from search_server.store import Store; "
            "store = Store.open(sys.argv[1]); store.set_job_state(sys.argv[2], 'running'); "
            "print('up', flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code, url, job],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout.readline() == "up\n"
            with pytest.raises(JobError, match=f"run by process {process.pid}"):
                store.set_job_state(job, "running")
            with pytest.raises(JobError, match="run by process"):
                store.set_job_state(job, "cancelled")
            process.send_signal(signal.SIGKILL)
            process.wait()
        store.set_job_state(job, "running")  # the dead process's job is free
        store.set_job_state(job, "done")

    def test_two_processes_never_get_one_id(self, store):
        ids: list[str] = []
        threads = [
            threading.Thread(target=lambda: ids.append(store.create_job("x", {}, "", ["a"])))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(ids) == sorted(f"x-{n}" for n in range(1, 9))


class TestCandidates:
    def test_every_column_comes_back(self, store, job):
        record = candidate(
            0,
            parents=(3, 1),
            definition={"name": "n", "cls": None, "alpha": 0.25},
            name="n",
            cls_text="Neg(X)",
            bbox_text="IoULoss",
            size=7,
            stage="proxy",
            simulate_score=0.125,
            fitness=0.1 + 0.2,
            reason="why",
        )
        store.add_candidate(job, record)
        assert store.candidates(job) == [record]
        assert store.candidate(job, 0) == record

    def test_counts_add_up_and_the_rejected_are_no_rows(self, store, job):
        store.add_candidate(job, candidate(0), {("random", "deaf"): 5, ("random", "accepted"): 1})
        store.add_candidate(job, candidate(1), {("random", "deaf"): 2, ("mutation", "known"): 1})
        assert store.counts(job) == {
            ("random", "deaf"): 7,
            ("random", "accepted"): 1,
            ("mutation", "known"): 1,
        }
        assert len(store.candidates(job)) == 2

    def test_traced_draws_keep_their_order(self, store, job):
        store.add_candidate(job, candidate(0), {}, [("random", "B", "deaf"), ("random", "A", "ok")])
        store.add_candidate(job, candidate(1), {}, [("hoist", "C", "ok")])
        assert [(d.candidate, d.text, d.outcome) for d in store.draws(job)] == [
            (0, "B", "deaf"),
            (0, "A", "ok"),
            (1, "C", "ok"),
        ]

    def test_the_next_index_only(self, store, job):
        with pytest.raises(StoreError, match="expects candidate 0"):
            store.add_candidate(job, candidate(1))
        store.add_candidate(job, candidate(0))
        with pytest.raises(StoreError, match="expects candidate 1"):
            store.add_candidate(job, candidate(0, key="other"))

    def test_one_loss_is_one_candidate(self, store, job):
        store.add_candidate(job, candidate(0))
        with pytest.raises(StoreError, match="already has this loss: it is candidate 0"):
            store.add_candidate(job, candidate(1, key="key 0"), {("random", "accepted"): 1})
        assert store.counts(job) == {}  # the whole transaction is gone
        other = store.create_job("other", {}, "", ["x"])
        store.add_candidate(other, candidate(0))  # another job may have it

    def test_a_very_long_key_is_stored(self, store, job):
        store.add_candidate(job, candidate(0, key="Neg(" * 5000))
        with pytest.raises(StoreError, match="already has"):
            store.add_candidate(job, candidate(1, key="Neg(" * 5000))

    def test_updates_touch_what_is_given(self, store, job):
        store.add_candidate(job, candidate(0, reason="r"))
        store.update_candidate(job, 0, stage="proxy", simulate_score=0.5)
        store.update_candidate(job, 0, fitness=0.25, state="done")
        store.update_candidate(job, 0, state="done")  # said again after a crash
        found = store.candidate(job, 0)
        assert (found.stage, found.state, found.simulate_score) == ("proxy", "done", 0.5)
        assert (found.fitness, found.reason) == (0.25, "r")

    @pytest.mark.parametrize("final", ["dropped", "done", "failed"])
    def test_a_resolved_candidate_stays_so(self, store, job, final):
        store.add_candidate(job, candidate(0))
        store.update_candidate(job, 0, state=final)
        for state in set(CANDIDATE_STATES) - {final}:
            with pytest.raises(IllegalMove):
                store.update_candidate(job, 0, state=state, fitness=0.9)
        assert store.candidate(job, 0).fitness is None

    def test_no_way_back_to_an_earlier_stage(self, store, job):
        store.add_candidate(job, candidate(0, stage="proxy"))
        with pytest.raises(IllegalMove, match="stage of candidate"):
            store.update_candidate(job, 0, stage="simulate")

    @pytest.mark.parametrize("index", [-1, 2**31, 99_999_999_999, 2**63, 10**30])
    def test_no_index_is_too_large_to_be_told_that_there_is_none(self, store, job, index):
        store.add_candidate(job, candidate(0))
        for ask in (store.candidate, partial(leaderboard_row, store)):
            with pytest.raises(JobError, match=f"no candidate {index}; it has candidates 0 to 0"):
                ask(job, index)
        assert store.trials(job, index) == []
        keys = [(job, 0), (job, index)]
        with store.reading() as session:
            assert list(candidates(session.connection(), keys)) == [(job, 0)]
            assert trials(session.connection(), keys) == {}

    def test_unknown_candidates(self, store, job):
        with pytest.raises(JobError, match="no candidate 3; it has no candidates yet"):
            store.candidate(job, 3)
        store.add_candidate(job, candidate(0))
        for call in (
            lambda: store.update_candidate(job, 3, state="done"),
            lambda: store.start_trial(job, 3, "proxy", 0, "k"),
        ):
            with pytest.raises(JobError, match="candidates 0 to 0"):
                call()

    def test_text_that_no_database_takes_is_tamed(self, store, job):
        store.add_candidate(job, candidate(0, name="a\x00b\ud800", definition={"name": "\x00é"}))
        found = store.candidate(job, 0)
        assert found.name == "ab?"
        assert found.definition == {"name": "é"}

    def test_numbers_that_are_not_finite_become_unknown(self, store, job):
        nan = float("nan")
        store.add_candidate(job, candidate(0, fitness=nan, definition={"w": [float("inf"), 1.0]}))
        store.update_candidate(job, 0, simulate_score=float("inf"))
        found = store.candidate(job, 0)
        assert (found.fitness, found.simulate_score) == (None, None)
        assert found.definition == {"w": [None, 1.0]}

    @pytest.mark.parametrize("column", ["state", "origin", "stage"])
    def test_the_database_itself_refuses_a_state_that_is_none(self, store, job, column):
        with pytest.raises(StoreError, match="contradicts"):
            store.add_candidate(job, candidate(0, **{column: "nonsense"}))

    def test_the_database_itself_refuses_an_orphan(self, store):
        with pytest.raises(StoreError, match="contradicts"), store.changing() as session:
            session.execute(
                text(
                    "INSERT INTO funnel_counts (job_id, origin, outcome, count) "
                    "VALUES ('ghost', 'random', 'x', 1)"
                )
            )

    def test_a_fitness_beyond_one_is_refused(self, store, job):
        with pytest.raises(StoreError, match="contradicts"):
            store.add_candidate(job, candidate(0, fitness=46.3))


class TestTrials:
    @pytest.fixture(autouse=True)
    def _candidates(self, store, job):
        for index in range(2):
            store.add_candidate(job, candidate(index))

    def test_a_row_before_and_after(self, store, job):
        store.start_trial(job, 1, "proxy", 7, "k" * 64)
        (running,) = store.trials(job)
        assert (running.state, running.seed, running.stage) == ("running", 7, "proxy")
        assert running.fitness is None
        assert running.finished_at is None
        ended = result(
            0.1 + 0.2,
            metrics={"ap50": 0.5, "ap_l": 0.75},
            curves={"step": [1.0, 2.0], "loss": [3.0, 2.5]},
            seconds={"total": 12.5, "train": 10.0, "start": 4.0},
            versions={"torch": "2"},
            steps=10,
        )
        store.finish_trial(job, 1, "proxy", 7, ended)
        (trial,) = store.trials(job, 1)
        assert (trial.state, trial.fitness, trial.spec_key) == ("done", 0.1 + 0.2, "k" * 64)
        assert trial.metrics == {"ap50": 0.5, "ap_l": 0.75}
        assert trial.curves == {"step": [1.0, 2.0], "loss": [3.0, 2.5]}
        assert trial.seconds == {"total": 12.5, "train": 10.0, "start": 4.0}
        assert (trial.steps, trial.versions, trial.log) == (10, {"torch": "2"}, "")
        assert trial.finished_at >= trial.started_at

    def test_curves_can_stay_in_the_database(self, store, job):
        store.start_trial(job, 0, "proxy", 0, "k")
        store.finish_trial(job, 0, "proxy", 0, result(curves={"loss": [1.0]}))
        assert store.trials(job, curves=False)[0].curves == {}

    def test_the_end_of_a_failed_trials_output_is_kept(self, store, job):
        store.start_trial(job, 0, "proxy", 0, "k")
        failed = result(None, "failed", reason="RuntimeError: no", log="line 1\nline 2")
        store.finish_trial(job, 0, "proxy", 0, failed)
        (trial,) = store.trials(job)
        assert (trial.state, trial.reason, trial.log) == (
            "failed",
            "RuntimeError: no",
            "line 1\nline 2",
        )

    def test_a_trial_of_a_dead_process_starts_again(self, store, job):
        store.start_trial(job, 0, "proxy", 0, "old")
        store.start_trial(job, 0, "proxy", 0, "new")
        assert [(t.state, t.spec_key) for t in store.trials(job)] == [("running", "new")]

    @pytest.mark.parametrize("status", ["done", "diverged", "timeout", "failed"])
    def test_a_finished_trial_is_never_repeated(self, store, job, status):
        store.start_trial(job, 0, "simulate", 0, "k")
        store.finish_trial(job, 0, "simulate", 0, result(None, status))
        with pytest.raises(IllegalMove, match=f"is {status}.*final"):
            store.start_trial(job, 0, "simulate", 0, "k")
        with pytest.raises(IllegalMove):
            store.finish_trial(job, 0, "simulate", 0, result(0.9))
        assert store.trials(job)[0].fitness is None

    def test_a_trial_that_was_never_started(self, store, job):
        with pytest.raises(JobError, match="my-search-1:0 proxy seed 0 was never started"):
            store.finish_trial(job, 0, "proxy", 0, result())

    def test_their_order(self, store, job):
        keys = [(1, "proxy", 5), (0, "proxy", 1), (0, "simulate", 9), (0, "proxy", 0)]
        for key in keys:
            store.start_trial(job, *key, "k")
        found = [(t.candidate, t.stage, t.seed) for t in store.trials(job)]
        assert found == [(0, "simulate", 9), (0, "proxy", 0), (0, "proxy", 1), (1, "proxy", 5)]

    def test_a_large_seed(self, store, job):
        store.start_trial(job, 0, "proxy", 2**32 - 1, "k")
        assert store.trials(job)[0].seed == 2**32 - 1


WRITER = """
import sys
from search_server.store import CandidateRecord, Store
store = Store.open(sys.argv[1])
job = sys.argv[2]
index = len(store.candidates(job))
while True:
    traced = [("random", "x" * 200, "deaf")] * 200
    record = CandidateRecord(index, "random", (), {}, f"key {index}")
    store.add_candidate(job, record, {("random", "accepted"): 1}, traced)
    print("written", flush=True)
    index += 1
"""


def test_a_killed_writer_leaves_whole_transactions(sqlite_url):
    """SIGKILL at moments inside writes: counts, draws and candidates always agree."""
    with Store.open(sqlite_url) as store:
        job = store.create_job("killed", {}, "", ["x"])
        before = 0
        for pause in (0.11, 0.23, 0.05):
            command = [sys.executable, "-c", WRITER, sqlite_url, job]
            process = subprocess.Popen(command, stdout=subprocess.PIPE)
            process.stdout.readline()
            threading.Event().wait(pause)
            process.kill()
            process.wait()
            process.stdout.close()
            made = len(store.candidates(job))
            assert store.counts(job).get(("random", "accepted"), 0) == made
            assert len(store.draws(job)) == 200 * made
            assert made > before
            before = made


class TestOpening:
    def test_a_folder_is_made(self, tmp_path):
        with Store.open(str(tmp_path / "a" / "b" / "jobs.db")) as store:
            assert store.jobs() == []
        assert (tmp_path / "a" / "b" / "jobs.db").is_file()

    def test_sqlite_runs_as_configured(self, sqlite_url):
        with Store.open(sqlite_url) as store, store.reading() as session:
            pragmas = {
                name: session.execute(text(f"PRAGMA {name}")).scalar_one()
                for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
            }
        assert pragmas == {
            "journal_mode": "wal",
            "foreign_keys": 1,
            "synchronous": 1,
            "busy_timeout": 15000,
        }

    def test_readers_make_no_store(self, tmp_path):
        with pytest.raises(StoreError, match=r"no store at .*lossforge search"):
            Store.open(str(tmp_path / "none.db"), create=False)
        assert list(tmp_path.iterdir()) == []

    def test_a_reader_sees_what_a_writer_does(self, sqlite_url):
        with Store.open(sqlite_url) as writer, Store.open(sqlite_url) as reader:
            with writer.changing() as writes, reader.reading() as reads:
                for session in (writes, reads):  # neither waits for the other
                    session.execute(text("SELECT count(*) FROM jobs"))
            writer.create_job("x", {}, "", ["a"])
            assert reader.latest_job().id == "x-1"

    def test_not_a_database(self, tmp_path):
        file = tmp_path / "notes.txt"
        file.write_text("this is no database\n" * 100)
        with pytest.raises(StoreError, match="not a database"):
            Store.open(str(file))
        assert file.read_text().startswith("this is no database")

    def test_a_folder_is_no_store(self, tmp_path):
        with pytest.raises(StoreError, match="cannot be opened"):
            Store.open(str(tmp_path))

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreError, match=r"cannot be made.*--store"):
            Store.open(str(tmp_path / "file" / "sub" / "store.db"))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_an_unwritable_folder(self, tmp_path):
        tmp_path.chmod(0o500)
        with pytest.raises(StoreError, match="may this user write"):
            Store.open(str(tmp_path / "store.db"))

    def test_a_database_of_something_else(self, tmp_path):
        engine = create_engine(f"sqlite:///{tmp_path / 'other.db'}")
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE accounts (id INTEGER)"))
        engine.dispose()
        with pytest.raises(StoreError, match=r"something else.*accounts"):
            Store.open(str(tmp_path / "other.db"))

    def test_a_locked_database(self, sqlite_url, monkeypatch):
        monkeypatch.setattr("search_server.store.engine.BUSY_MS", 100)
        with Store.open(sqlite_url) as holder, Store.open(sqlite_url) as other:
            expected = pytest.raises(StoreError, match=r"locked by another process.*PostgreSQL")
            with holder.changing() as session, expected:
                session.execute(text("SELECT 1"))  # takes the lock
                other.create_job("x", {}, "", ["a"])
            assert other.create_job("x", {}, "", ["a"]) == "x-1"

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("", "empty"),
            ("mysql://u:secret@host/db", "SQLite.*or PostgreSQL"),
            ("postgresql://u:secret@host:port/db", "cannot be read"),
            ("postgresql://u:se@cret@host/db", "%40"),
            ("sqlite://", "in memory"),
            ("sqlite:///:memory:", "in memory"),
            ("://", "cannot be read"),
            ("no-such-dialect://u:secret@h/d", "SQLite.*or PostgreSQL|cannot be read"),
        ],
    )
    def test_urls_that_are_none(self, url, message):
        with pytest.raises(StoreError, match=message) as caught:
            Store.open(url)
        assert "secret" not in str(caught.value)
        assert "cret@" not in str(caught.value)

    def test_a_relative_path_is_the_same_store_from_anywhere(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with Store.open("sqlite:///jobs.db") as store:
            monkeypatch.chdir("/")
            assert store.create_job("x", {}, "", ["a"]) == "x-1"
        assert (tmp_path / "jobs.db").is_file()

    def test_where_it_is_by_default(self, own_home, monkeypatch):
        assert default_url() == f"sqlite:///{own_home / 'lossforge.db'}"
        monkeypatch.setenv("LOSSFORGE_STORE", "sqlite:////elsewhere.db")
        assert default_url() == "sqlite:////elsewhere.db"


class TestSecrets:
    URL = (
        "postgresql://lossforge:hunter2secret@127.0.0.1:1/db?password=alsosecret&connect_timeout=1"
    )

    def test_no_password_in_errors_or_logs(self, caplog):
        caplog.set_level("DEBUG")
        with pytest.raises(StoreError) as caught:
            Store.open(self.URL)
        message = str(caught.value) + caplog.text
        assert "127.0.0.1" in message
        assert "hunter2secret" not in message
        assert "alsosecret" not in message

    def test_no_password_in_the_stores_name(self, sqlite_url):
        from search_server.store.url import shown

        assert shown(parse_url(self.URL)) == "postgresql+psycopg://lossforge:***@127.0.0.1:1/db"


def test_every_state_of_a_job_has_its_moves():
    from search_server.store.moves import CANDIDATE_MOVES, JOB_MOVES, TRIAL_MOVES

    assert set(JOB_MOVES) == set(JOB_STATES)
    assert set(CANDIDATE_MOVES) == set(CANDIDATE_STATES)
    for table in (JOB_MOVES, CANDIDATE_MOVES, TRIAL_MOVES):
        assert {new for moves in table.values() for new in moves} <= set(table)


def test_the_pages_work_on_every_backend(store, job):
    """What they say is tested in test_leaderboard; here it is the SQL."""
    for index, fitness in enumerate((0.4, 0.5, None)):
        store.add_candidate(job, candidate(index, fitness=fitness, simulate_score=0.1))
        if fitness is not None:
            store.start_trial(job, index, "proxy", 0, "k")
            store.finish_trial(job, index, "proxy", 0, result(fitness))
            store.update_candidate(job, index, state="done")
    store.create_job("other", {}, "", ["x"])
    for of in (None, job):
        (group,) = leaderboard(store, of)
        assert [(row.rank, row.index) for row in group.rows] == [(1, 1), (2, 0), (None, 2)]
        assert group.rows[0].difference.mean == pytest.approx(0.1)
        assert group.spec == {"name": "My search"}
    (group,) = leaderboard(store, job, state="open", limit=1)
    assert [row.index for row in group.rows] == [2]
    assert leaderboard_row(store, job, 2).state == "open"
    assert [each.best for each in summaries(store)] == [None, 0.5]


KEY = "a1" * 32


def counted(store, job):
    """How many trials of a job the store says are in which stage and state."""
    query = text("SELECT stage, state, count FROM trial_counts WHERE job_id = :job AND count > 0")
    with store.reading() as session:
        found = session.execute(query, {"job": job})
        return {(stage, state): count for stage, state, count in found}


class TestNeverTwice:
    """Two jobs, `job` and `other`, that want to train the same."""

    @pytest.fixture
    def other(self, store, job):
        made = store.create_job("other", {}, "", ["x"])
        for each in (job, made):
            store.set_job_state(each, "running")
            for index in range(2):
                store.add_candidate(each, candidate(index))
        return made

    def start(self, store, job, index=1, **more):
        return store.start_trial(job, index, "proxy", 7, f"spec of {job}", KEY, **more)

    def set(self, store, column, value, job):
        with store.changing() as session:
            table = "jobs" if column == "owner" else "trials"
            name = "id" if column == "owner" else "job_id"
            session.execute(
                text(f"UPDATE {table} SET {column} = :value WHERE {name} = :job"),
                {"value": value, "job": job},
            )

    def test_a_result_is_taken_over(self, store, job, other):
        assert self.start(store, job).verdict == "train"
        ended = result(
            0.1 + 0.2,
            metrics={"ap50": 0.5},
            curves={"step": [1.0], "loss": [3.0]},
            seconds={"total": 12.5},
            versions={"torch": "2"},
            rungs={4: 0.125},
        )
        store.finish_trial(job, 1, "proxy", 7, ended)
        start = self.start(store, other)
        assert start.verdict == "reused"
        (first,), (second,) = store.trials(job), store.trials(other)
        assert start.trial == second
        assert second.reused_from == f"{job}:1:proxy:7"
        assert first.reused_from is None
        for name in ("state", "fitness", "metrics", "curves", "rungs", "steps", "versions"):
            assert getattr(second, name) == getattr(first, name), name
        assert second.rungs == {4: 0.125}
        assert (second.spec_key, second.seconds) == (f"spec of {other}", {})  # none were spent
        with pytest.raises(IllegalMove):
            self.start(store, other)

    def test_a_divergence_is_a_result_and_a_failure_is_none(self, store, job, other):
        for index, status in enumerate(("failed", "timeout")):
            assert self.start(store, job, index).verdict == "train"
            store.finish_trial(job, index, "proxy", 7, result(None, status))
        assert self.start(store, other, 0).verdict == "train"
        store.finish_trial(other, 0, "proxy", 7, result(None, "diverged", reason="a NaN"))
        again = self.start(store, other, 1)
        assert (again.trial.state, again.trial.reason) == ("diverged", "a NaN")
        assert again.trial.reused_from == f"{other}:0:proxy:7"

    def test_one_that_runs_is_waited_for(self, store, job, other):
        assert self.start(store, job).verdict == "train"
        for _ in range(2):
            assert self.start(store, other).verdict == "wait"
        assert store.trials(other) == []
        store.finish_trial(job, 1, "proxy", 7, result(0.25))
        assert self.start(store, other).trial.fitness == 0.25

    @pytest.mark.parametrize("how", ["interrupted", "killed"])
    def test_the_key_of_one_that_stopped_moves(self, store, job, other, how):
        self.start(store, job)
        if how == "interrupted":
            store.set_job_state(job, "interrupted")
        else:
            host, _, _ = owner.mark().rsplit(" ", 2)
            self.set(store, "owner", f"{host} {2**22 + 1} 5", job)
        assert self.start(store, other).verdict == "train"
        store.set_job_state(job, "running")
        assert self.start(store, job).verdict == "wait"  # its row was left running
        store.finish_trial(other, 1, "proxy", 7, result(0.25))
        assert self.start(store, job).trial.reused_from == f"{other}:1:proxy:7"
        assert store.trials(job)[0].state == "done"

    def test_one_on_another_host_is_waited_for_but_not_for_ever(self, store, job, other):
        self.start(store, job)
        self.set(store, "owner", "elsewhere 12 5", job)
        assert self.start(store, other).verdict == "wait"
        long_ago = datetime.now(UTC).replace(tzinfo=None) - REMOTE_PATIENCE
        self.set(store, "started_at", str(long_ago), job)
        assert self.start(store, other).verdict == "train"

    def test_in_one_job_only_what_it_runs_is_waited_for(self, store, job, other):
        self.start(store, job, 0)
        assert self.start(store, job, 1, running={(0, "proxy", 7): None}).verdict == "wait"
        assert self.start(store, job, 1).verdict == "train"

    def test_rungs_are_taken_over_one_after_the_other(self, store, job, other):
        self.start(store, job, pause_after=4)
        store.finish_trial(job, 1, "proxy", 7, result(None, "paused", rungs={4: 0.125}))
        taken = self.start(store, other, pause_after=4).trial
        assert (taken.state, taken.fitness, taken.rungs) == ("paused", None, {4: 0.125})
        # nobody waits for one that is paused: its going on may depend on who waits
        assert self.start(store, other, pause_after=6).verdict == "train"
        assert store.trials(other)[0].reused_from is None
        assert self.start(store, job, pause_after=6).verdict == "wait"
        ended = result(0.5, rungs={4: 0.125, 6: 0.25}, seconds={"total": 3.0})
        store.finish_trial(other, 1, "proxy", 7, ended)
        assert store.trials(other)[0].rungs == {4: 0.125, 6: 0.25}
        assert self.start(store, job, pause_after=6).trial.rungs == {4: 0.125, 6: 0.25}
        assert store.trials(job)[0].state == "paused"
        whole = self.start(store, job).trial
        assert (whole.state, whole.fitness) == ("done", 0.5)

    def test_seconds_of_all_parts_are_kept(self, store, job, other):
        self.start(store, job, pause_after=4)
        store.finish_trial(
            job, 1, "proxy", 7, result(None, "paused", rungs={4: 0.1}, seconds={"total": 2.0})
        )
        self.start(store, job)
        store.finish_trial(job, 1, "proxy", 7, result(0.5, seconds={"total": 3.5, "train": 1.0}))
        assert store.trials(job)[0].seconds == {"total": 5.5, "train": 1.0}

    def test_many_start_and_end_in_one_transaction_or_none_does(self, store, job, other):
        def due(index, key=None, seed=7, **more):
            return Due(index, "proxy", seed, "k", key, **more)

        before = result(0.25, rungs={4: 0.125})
        store.start_trial(other, 0, "proxy", 7, "k", KEY)
        store.finish_trial(other, 0, "proxy", 7, before)
        same = "c3" * 32
        starts = store.start_trials(
            job, [due(0, KEY), due(1, same), due(0, same, seed=8), due(1, seed=9)]
        )
        # taken over; trained; the same as that, which now runs; without a key
        assert [each.verdict for each in starts] == ["reused", "train", "wait", "train"]
        assert starts[0].trial.fitness == 0.25
        assert [(t.candidate, t.seed, t.state) for t in store.trials(job)] == [
            (0, 7, "done"),
            (1, 7, "running"),
            (1, 9, "running"),
        ]
        assert counted(store, job) == {("proxy", "done"): 1, ("proxy", "running"): 2}

        with pytest.raises(IllegalMove):
            store.start_trials(job, [due(1, seed=10), due(0)])
        with pytest.raises(JobError, match="no candidate 5"):
            store.start_trials(job, [due(1, seed=10), due(5)])
        with pytest.raises(JobError, match="never started"):
            store.finish_trials(job, {(1, "proxy", 7): before, (1, "proxy", 11): before})
        with pytest.raises(IllegalMove):
            store.finish_trials(job, {(0, "proxy", 7): before, (1, "proxy", 7): before})
        assert len(store.trials(job)) == 3
        assert store.trials(job)[1].state == "running"

        lost = result(None, "failed")
        store.finish_trials(job, {(1, "proxy", 7): before, (1, "proxy", 9): lost})
        assert counted(store, job) == {("proxy", "done"): 2, ("proxy", "failed"): 1}
        # a loss that one has freed is another's in the same transaction
        starts = store.start_trials(job, [due(0, same, seed=8), due(0, "d4" * 32, seed=9)])
        assert [each.verdict for each in starts] == ["reused", "train"]
        assert starts[0].trial.reused_from == f"{job}:1:proxy:7"

    def test_a_key_moves_to_the_first_that_asks(self, store, job, other):
        store.start_trial(job, 1, "proxy", 7, "k", KEY, pause_after=4)
        store.finish_trial(job, 1, "proxy", 7, result(None, "paused", rungs={4: 0.125}))
        both = [Due(index, "proxy", 7, "k", KEY) for index in (0, 1)]
        starts = store.start_trials(job, both)
        assert [each.verdict for each in starts] == ["train", "wait"]
        assert [t.state for t in store.trials(job)] == ["running", "paused"]

    def test_without_a_key_nothing_is_shared(self, store, job, other):
        for each in (job, other):
            assert store.start_trial(each, 1, "proxy", 7, "same spec").verdict == "train"

    def test_the_database_itself_refuses_a_key_twice(self, store, job, other):
        for each, key in ((job, KEY), (other, "b2" * 32)):
            store.start_trial(each, 1, "proxy", 7, "k", key)
        with pytest.raises(StoreError, match="contradicts"):
            self.set(store, "trained_key", KEY, other)

    def test_of_many_at_once_one_trains(self, store, job, other, url):
        jobs = [job, other]
        for _ in range(4):
            jobs.append(store.create_job("x", {}, "", ["x"]))
            store.set_job_state(jobs[-1], "running")
            for index in range(2):
                store.add_candidate(jobs[-1], candidate(index))
        verdicts: list[str] = []

        def ask(each: str) -> None:
            with Store.open(url) as own:
                verdicts.append(self.start(own, each).verdict)

        threads = [threading.Thread(target=ask, args=(each,)) for each in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(verdicts) == ["train"] + ["wait"] * 5

    def test_one_loss_is_one_row(self, store, job, other):
        def loss_id(each, index, move=0.0, scale=2.0, form="{}"):
            vector = np.random.default_rng(0).normal(size=50) + move
            found = Fingerprint(form, vector, {"cls": scale})
            made = candidate(index, key=f"{each} {index}")
            return store.add_candidate(each, made, fingerprint=found).loss_id

        first = loss_id(job, 2)
        same = [loss_id(other, 2 + n, move) for n, move in enumerate((0.0, 1e-6, -1e-6))]
        same.append(loss_id(other, 5, scale=2.0 * (1 + 1e-8)))
        assert same == [first] * 4
        others = [loss_id(job, 3, 1e-4), loss_id(job, 4, scale=2.1), loss_id(job, 5, form="[]")]
        assert len({first, *others}) == 4
        assert store.candidate(other, 3).loss_id == first
        assert store.identify(job, 0, Fingerprint("{}", np.zeros(0), {})) not in (None, first)

    def test_equal_losses_on_both_sides_of_a_bucket_are_one(self, store, job, other):
        rng = np.random.default_rng(1)
        while True:
            vector = rng.normal(size=50)
            pair = [
                Fingerprint("{}", vector + move, {})
                for move in (0.0, 0.99 * AGREES * rng.choice((-1.0, 1.0), 50))
            ]
            if pair[0].bucket != pair[1].bucket:
                break
        ids = [
            store.add_candidate(job, candidate(2 + n, key=str(n)), fingerprint=each).loss_id
            for n, each in enumerate(pair)
        ]
        assert ids[0] == ids[1]


class TestNoiseFloors:
    def test_the_last_measurement_of_a_group_counts(self, store):
        assert store.noise_floor("g") is None
        for seeds in (4, 8):
            floor = NoiseFloor("g", seeds, 0.25, 0.01, 0.1 + 0.2, 7, [{"name": "a", "aps": [0.5]}])
            store.add_noise_floor(floor)
        store.add_noise_floor(NoiseFloor("h", 2, 0.25, 0.01, None, 1, []))
        found = store.noise_floor("g")
        assert found.created_at.utcoffset() is not None
        assert replace(found, created_at=None) == floor
        assert store.noise_floor("h").sd_paired is None


def test_trials_are_listed_by_stage_in_order(store, job):
    store.add_candidate(job, candidate(0))
    for stage in ("test", "proxy", "confirm", "simulate"):
        store.start_trial(job, 0, stage, 1, "k")
    assert [each.stage for each in store.trials(job)] == ["simulate", "proxy", "confirm", "test"]
