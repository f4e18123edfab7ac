"""The contract of the store, over every backend: SQLite always, PostgreSQL where one is given."""

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from search_server.errors import IllegalMove, JobError, StoreError
from search_server.leaderboard import leaderboard, leaderboard_row
from search_server.overview import summaries
from search_server.store import CandidateRecord, Store, default_url
from search_server.store.records import CANDIDATE_STATES, JOB_STATES
from search_server.store.url import parse_url
from workers import TrialResult

POSTGRES = os.environ.get("LOSSFORGE_TEST_POSTGRES", "")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """A database of its own on the server that $LOSSFORGE_TEST_POSTGRES names."""
    name = f"lossforge_test_{uuid.uuid4().hex[:12]}"
    server = create_engine(parse_url(POSTGRES), isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    url = parse_url(POSTGRES).set(database=name)
    yield url.render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


def test_postgresql_is_there():
    """One skip that says so, instead of one per test of the contract."""
    if not POSTGRES:
        pytest.skip("set LOSSFORGE_TEST_POSTGRES=postgresql://user@host/database to test it")


@pytest.fixture(params=["sqlite", "postgres"] if POSTGRES else ["sqlite"])
def url(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(f"{request.param}_url")


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
print("up", flush=True)
index = len(store.candidates(job))
while True:
    traced = [("random", "x" * 200, "deaf")] * 200
    record = CandidateRecord(index, "random", (), {}, f"key {index}")
    store.add_candidate(job, record, {("random", "accepted"): 1}, traced)
    index += 1
"""


def test_a_killed_writer_leaves_whole_transactions(sqlite_url):
    """SIGKILL at moments inside writes: counts, draws and candidates always agree."""
    with Store.open(sqlite_url) as store:
        job = store.create_job("killed", {}, "", ["x"])
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
        assert made > 0


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
