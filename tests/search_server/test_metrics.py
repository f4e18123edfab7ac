"""Metrics: what they say of real jobs, on both databases, and of a store that is not there."""

import hashlib
import random
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import fake_search
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import create_engine, event, select, text
from sqlalchemy.pool import NullPool

from search_server.figures import figures
from search_server.metrics import ENDED, StoreCollector
from search_server.overview import summaries
from search_server.store import (
    JOB_STATES,
    STAGES,
    TRIAL_STATES,
    CandidateRecord,
    Store,
    schema,
)
from search_server.store.models import Trial, TrialCount
from search_server.store.url import parse_url
from workers import TrialResult

Labels = tuple[tuple[str, str], ...]


def parsed(exposed: str) -> dict[str, dict[Labels, float]]:
    """Sample name -> labels -> value."""
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(exposed):
        for sample in family.samples:
            place = tuple(sorted(sample.labels.items()))
            own = found.setdefault(sample.name, {})
            assert place not in own, "a series is there twice"
            own[place] = sample.value
    return found


def scraped(url: str, **options: Any) -> dict[str, dict[Labels, float]]:
    collector = StoreCollector(url, **options)
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        return parsed(generate_latest(registry).decode())
    finally:
        collector.close()


def empty_job(url: str) -> str:
    """A job in which nothing has happened yet."""
    with Store.open(url) as store:
        return store.create_job("empty", {}, "model", ["one"])


def counted(url: str) -> dict[tuple[str, str, str], int]:
    """(job, stage, state) -> trials, counted one by one."""
    with Store.open(url) as store, store.reading() as session:
        query = select(Trial.job_id, Trial.stage, Trial.state)
        return Counter((row[0], row[1], row[2]) for row in session.execute(query))


def ended(status: str) -> TrialResult:
    value = 0.5 if status == "done" else None
    return TrialResult(status, "", value, 0, 5, rungs={2: 0.1} if status == "paused" else {})  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [0, 1])
def test_counts_are_those_of_the_trials_whatever_happens_to_them(url: str, seed: int) -> None:
    """Trials of two jobs start, pause, end, are taken over and planned, in any order."""
    rng = random.Random(seed)
    with Store.open(url) as store:
        jobs = [store.create_job("walk", {}, "model", ["one"]) for _ in range(2)]
        for job, origin in product(jobs, ("baseline", "random")):
            index = int(origin == "random")
            made = CandidateRecord(index, origin, (), {}, key=origin)  # type: ignore[arg-type]
            store.add_candidate(job, made)
        planned = {(1, "test", seed): "k" for seed in range(3)}
        store.plan_trials(jobs[0], planned)  # type: ignore[arg-type]
        states = {
            (job, index, stage, 0): "new"
            for job, index, stage in product(jobs, range(2), ("proxy", "confirm"))
        } | {(jobs[0], *place): "running" for place in planned}
        for _ in range(60):
            place = rng.choice([place for place, state in states.items() if state not in ENDED])
            if states[place] == "running" and rng.random() < 0.7:
                states[place] = rng.choice((*ENDED, "paused"))
                store.finish_trial(*place, ended(states[place]))  # type: ignore[arg-type]
            else:
                key = hashlib.sha256(str(place[1:]).encode()).hexdigest()
                verdict = store.start_trial(*place, "k", key).verdict  # type: ignore[arg-type]
                states[place] = "done" if verdict == "reused" else "running"
            if all(state in ENDED for state in states.values()):
                break
        with store.reading() as session:
            rows = session.scalars(select(TrialCount).where(TrialCount.count > 0))
            kept = {(row.job_id, row.stage, row.state): row.count for row in rows}
    assert kept == counted(url)
    assert len(kept) > 4


@pytest.mark.slow
def test_metrics_of_real_jobs(url: str) -> None:
    done = fake_search.new_job(url, candidates=6)
    assert fake_search.run(url, done) == "done"
    active = empty_job(url)
    with Store.open(url) as store:
        store.set_job_state(active, "running")
        store.add_candidate(active, CandidateRecord(0, "baseline", (), {}, key="open"))
        store.start_trial(active, 0, "proxy", 0, "k")
        summary = {each.id: each for each in summaries(store)}[done]
        trials = counted(url)
        found = scraped(url)
    assert found["lossforge_up"] == {(): 1}
    head = schema.head()
    assert found["lossforge_schema_info"] == {(("found", head), ("reads", head)): 1}
    assert found["lossforge_jobs"] == {
        (("state", state),): int(state in ("done", "running")) for state in JOB_STATES
    }
    for stage in STAGES:
        for state in TRIAL_STATES:
            place = (("stage", stage), ("state", state))
            count = sum(trials[job, stage, state] for job in (done, active))
            assert found["lossforge_trials"][place] == count
            if state in ENDED:
                assert found["lossforge_trials_finished_total"][place] == count
    assert found["lossforge_queue_trials"] == {
        (("state", "running"),): 1,
        (("state", "paused"),): 0,
    }
    assert found["lossforge_queue_candidates"] == {(): 1}
    of_done = (("job_id", done),)
    assert found["lossforge_job_best"][of_done] == pytest.approx(summary.best)
    assert found["lossforge_job_baseline"][of_done] == pytest.approx(summary.baseline)
    assert found["lossforge_job_trained"][of_done] == summary.trained
    assert found["lossforge_job_open"] == {(("job_id", active),): 1}
    assert found["lossforge_job_state"] == {
        (("job_id", done), ("state", "done")): 1,
        (("job_id", active), ("state", "running")): 1,
    }
    shown = {
        (place["job_id"], place["stage"], place["state"]): value
        for place, value in ((dict(key), v) for key, v in found["lossforge_job_trials"].items())
        if value
    }
    assert shown == trials


def test_few_jobs_have_series_of_their_own_and_active_ones_come_first(url: str) -> None:
    old, *others = (empty_job(url) for _ in range(5))
    with Store.open(url) as store:
        for job in (old, others[0]):
            store.set_job_state(job, "running")
    for limit, expected, left in (
        (3, {old, others[0], others[-1]}, 0),
        (1, {others[0]}, 1),
        (0, set(), 2),
    ):
        found = scraped(url, jobs=limit)
        told = {dict(key)["job_id"] for key in found.get("lossforge_job_state", {})}
        assert told == expected
        assert found["lossforge_jobs_left_out"] == {(): left}
        assert sum(found["lossforge_jobs"].values()) == 5


def test_a_scrape_reads_no_trials_and_writes_nothing(url: str) -> None:
    empty_job(url)
    collector = StoreCollector(url)
    registry = CollectorRegistry()
    registry.register(collector)
    generate_latest(registry)  # opens the store
    said: list[str] = []
    assert collector._store is not None
    event.listen(
        collector._store.engine,
        "before_cursor_execute",
        lambda _c, _cursor, statement, *_: said.append(statement),
    )
    generate_latest(registry)
    collector.close()
    assert said
    assert all(statement.lstrip().upper().startswith(("SELECT", "BEGIN")) for statement in said)
    assert not any("trials." in statement or "FROM trials" in statement for statement in said)


def test_open_candidates_are_found_by_an_index(sqlite_url: str) -> None:
    """SQLite tells how it would look for them: never through all rows of a table but the jobs'."""
    empty_job(sqlite_url)
    with Store.open(sqlite_url) as store, store.reading() as session:
        queries: list[str] = []

        def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
            queries.append(statement)

        event.listen(store.engine, "before_cursor_execute", note)
        figures(store, 5)
        event.remove(store.engine, "before_cursor_execute", note)
        plans: list[str] = []
        for query in queries:
            if query.startswith("SELECT"):
                values = ("0",) * query.count("?")
                explained = f"EXPLAIN QUERY PLAN {query}"
                plans += [row[3] for row in session.connection().exec_driver_sql(explained, values)]
    scans = {plan for plan in plans if plan.startswith("SCAN")}
    assert scans
    assert not any("candidates" in scan or scan.startswith("SCAN trials") for scan in scans)
    assert any("ix_candidates_board_state" in plan for plan in plans)


def test_a_store_that_is_away_is_told_and_comes_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "late.db"
    collector = StoreCollector(str(file))
    registry = CollectorRegistry()
    registry.register(collector)

    def up() -> float:
        found = parsed(generate_latest(registry).decode())
        assert ("lossforge_trials" in found) == (found["lossforge_up"][()] == 1)
        return found["lossforge_up"][()]

    assert (up(), up()) == (0, 0)
    assert not file.exists()
    assert collector.trouble
    empty_job(str(file))
    assert up() == 1
    assert collector.trouble == ""
    for path in tmp_path.glob("late.db*"):
        path.rename(path.with_name(f"gone-{path.name}"))
    collector.close()
    assert up() == 0
    collector.close()
    said = [record.message for record in caplog.records]
    assert len(said) == 3, "each change is said once"
    assert "answers again" in said[1]


@pytest.fixture
def own_database(postgres_server: Any) -> Iterator[str]:
    """An empty database on the server that the test may stop."""
    engine = create_engine(postgres_server.url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    name = "metrics_of_a_server_that_stops"
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template0"))
    yield postgres_server.url.set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


def test_a_postgres_that_stops_and_starts(postgres_server: Any, own_database: str) -> None:
    Store.open(own_database).close()
    collector = StoreCollector(own_database)
    registry = CollectorRegistry()
    registry.register(collector)

    def up() -> float | None:
        return registry.get_sample_value("lossforge_up")

    assert up() == 1
    postgres_server.stop()
    try:
        assert (up(), up()) == (0, 0)
        assert postgres_server.password not in collector.trouble
    finally:
        postgres_server.start()
    assert up() == 1
    collector.close()


def test_an_older_schema_is_told_and_no_figures(url: str) -> None:
    Store.open(url).close()
    engine = create_engine(parse_url(url))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    engine.dispose()
    found = scraped(url)
    assert found["lossforge_up"] == {(): 0}
    assert found["lossforge_schema_info"] == {(("found", "0001"), ("reads", schema.head())): 1}
    assert "lossforge_jobs" not in found


def test_an_empty_database_is_left_empty(url: str) -> None:
    if url.startswith("sqlite"):
        Path(str(parse_url(url).database)).touch()
    assert scraped(url)["lossforge_up"] == {(): 0}
    assert schema.current(parse_url(url)) is None


def lossforge(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "search_server.cli", *arguments]


def test_the_verb_serves_prints_and_ends(sqlite_url: str) -> None:
    job = empty_job(sqlite_url)
    once = subprocess.run(
        lossforge("metrics", "--once", "--store", sqlite_url), capture_output=True, text=True
    )
    assert once.returncode == 0, once.stderr
    assert parsed(once.stdout)["lossforge_up"] == {(): 1}
    command = lossforge("metrics", "--port", "0", "--store", sqlite_url)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().rpartition(" ")[2].strip()
        with urllib.request.urlopen(address, timeout=30) as answer:
            found = parsed(answer.read().decode())
        assert (("job_id", job), ("state", "created")) in found["lossforge_job_state"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address, timeout=5)


def test_the_verb_says_in_a_line_what_is_wrong(tmp_path: Path) -> None:
    missing = subprocess.run(
        lossforge("metrics", "--once", "--store", str(tmp_path / "none.db")),
        capture_output=True,
        text=True,
    )
    assert missing.returncode == 1
    assert parsed(missing.stdout)["lossforge_up"] == {(): 0}
    assert "there is no store" in missing.stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = subprocess.run(
            lossforge("metrics", "--port", port, "--store", str(tmp_path / "none.db")),
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert refused.returncode == 2
    assert port in refused.stderr
    assert "Traceback" not in refused.stderr
