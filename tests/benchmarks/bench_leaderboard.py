"""The leaderboard of a store with 1,000,000 trials in 200 jobs, on SQLite and on PostgreSQL.

    python tests/benchmarks/bench_leaderboard.py [--trials 1000000] [--jobs 200] [--groups 8]

Fills a store of the schema before the aggregates, upgrades it (so the upgrade is measured too), and
prints of 50 calls, in milliseconds, the median and the 95th percentile of the time and of the
processor time, which a busy machine changes less: that of this process and of PostgreSQL's that
answers it. PostgreSQL is the system's package, on a server of its own. With --store it measures
that one, which it fills if it is not there yet, and leaves it.
"""

import argparse
import importlib.util
import json
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from search_server.figures import figures
from search_server.leaderboard import leaderboard, leaderboard_row
from search_server.metrics import JOBS_SHOWN
from search_server.overview import summaries
from search_server.store import Store, schema
from search_server.store.engine import connect
from search_server.store.url import parse_url

BEFORE = "0004"
AT = "2026-01-02 03:04:05.000000"
JOBS = "id serial slug number name state reason spec detector classes trial_group created_at"
CANDIDATES = (
    "job_id index origin parents definition key key_hash cls_text bbox_text size stage state "
    "simulate_score fitness reason created_at"
)
TRIALS = "job_id candidate stage seed state spec_key reason fitness steps started_at"
CONFIRMED, SEEDS = 5, 8

Rows = Iterator[Sequence[Any]]


def filled(jobs: int, trials: int, groups: int) -> tuple[list[Any], list[Any], list[Any]]:
    """Rows of the three tables: a baseline, two fifths of a job's trials simulations, the others of
    the proxy with two seeds each, and five losses confirmed from eight seeds."""
    rng = random.Random(0)
    each = trials // jobs
    made: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    for serial in range(1, jobs + 1):
        job = f"bench-{serial}"
        spec = json.dumps({"detector": "d", "searcher": {"type": "evolution"}, "pad": "x" * 900})
        group = f"{(serial - 1) % groups:064d}"
        made[0].append((job, serial, "bench", serial, "bench", "done", "", spec, "model", '["a"]',
                        group, AT))  # fmt: skip
        judging = (CONFIRMED + 1) * SEEDS
        count = int((each - judging) / (1 + 2 * 0.75))
        trained = []
        for index in range(count):
            score = rng.random()
            done = index == 0 or score > 0.25
            fitness = [round(0.5 * rng.betavariate(5, 3), 6) for _ in range(2)] if done else []
            mean = statistics.fmean(fitness) if fitness else None
            made[2].append((job, index, "simulate", 0, "done", "k", "", score, 50, AT))
            for seed, value in enumerate(fitness):
                made[2].append((job, index, "proxy", seed, "done", "k", "", value, 400, AT))
            if mean is not None:
                trained.append((mean, index))
            key = f"{job}:{index}"
            made[1].append((job, index, "random" if index else "baseline", "[]",
                            json.dumps({"name": key, "cls": {"expression": "Neg(X)" * 20}}),
                            "Neg(X)" * 30 + key, key, "Neg(X)" * 10, "IoU" * 10,
                            rng.randint(3, 60) if index else 0, "proxy" if done else "simulate",
                            "done" if done else "dropped", score, mean, "", AT))  # fmt: skip
        best = [index for _, index in sorted(trained, reverse=True)[:CONFIRMED] if index]
        for index in (0, *best):
            for seed in range(1000, 1000 + SEEDS):
                value = round(min(1.0, max(0.0, rng.gauss(0.4, 0.02))), 6)
                made[2].append((job, index, "confirm", seed, "done", "k", "", value, 1200, AT))
    return made


def insert(url: str, table: str, columns: str, rows: Sequence[Sequence[Any]]) -> None:
    """By the fastest way that a database has."""
    names = ", ".join(f'"{name}"' for name in columns.split())
    if url.startswith("sqlite"):
        marks = ", ".join("?" * len(columns.split()))
        with sqlite3.connect(str(parse_url(url).database)) as connection:
            connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)
        connection.close()
        return
    engine = create_engine(parse_url(url))
    connection: Any = engine.raw_connection()
    with connection.cursor() as cursor, cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
    connection.commit()
    connection.close()
    engine.dispose()


def fill(url: str, rows: tuple[list[Any], list[Any], list[Any]]) -> None:
    """A store of the newest schema with these rows."""
    engine = connect(parse_url(url), foreign_keys=False)
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, BEFORE)
    engine.dispose()
    start = time.perf_counter()
    tables = (("jobs", JOBS), ("candidates", CANDIDATES), ("trials", TRIALS))
    for (table, columns), own in zip(tables, rows, strict=True):
        insert(url, table, columns, own)
    filled_at = time.perf_counter()
    schema.upgrade(parse_url(url))
    upgraded = time.perf_counter()
    if not url.startswith("sqlite"):
        engine = create_engine(parse_url(url), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text("VACUUM ANALYZE"))
        engine.dispose()
    print(f"  filled in {filled_at - start:.0f} s, upgraded in {upgraded - filled_at:.0f} s")


def timed(name: str, ask: Callable[[], object], calls: int, server: Callable[[], float]) -> None:
    """Print the percentiles of a question's time; `server` tells what the server's process has
    worked so far, in milliseconds."""
    ask()
    taken = []
    for _ in range(calls):
        before = (time.perf_counter(), time.process_time(), server())
        ask()
        after = (time.perf_counter(), time.process_time(), server())
        wall, own, other = (new - old for new, old in zip(after, before, strict=True))
        taken.append((1000 * wall, 1000 * own + other, 1000 * own, other))
    p95 = min(calls - 1, int(0.95 * calls))
    walls, work, *parts = (sorted(column) for column in zip(*taken, strict=True))
    own, other = (part[calls // 2] for part in parts)
    print(f"  {name:<30} p50 {walls[calls // 2]:6.1f}   p95 {walls[p95]:6.1f}   CPU p50 "
          f"{work[calls // 2]:5.1f} ({own:.1f} + {other:.1f})   CPU p95 {work[p95]:5.1f}",
          flush=True)  # fmt: skip


def server_of(store: Store) -> Callable[[], float]:
    """Tells what PostgreSQL's process that serves this store's one connection has worked, in
    milliseconds (Linux); 0 for SQLite, which is in this process."""
    if store.engine.dialect.name == "sqlite":
        return lambda: 0.0
    with store.engine.connect() as connection:
        number = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    told = Path(f"/proc/{number}/schedstat")
    return lambda: int(told.read_text().split()[0]) / 1e6


def measure(url: str, jobs: int, calls: int) -> None:
    """The questions that people ask, over an open store."""
    job = f"bench-{(jobs + 1) // 2}"
    with Store.open(url) as store:
        server = server_of(store)
        for name, ask in (
            ("all jobs", lambda: leaderboard(store)),
            ("all jobs, rows 1,000 to 1,020", lambda: leaderboard(store, offset=1000)),
            ("all jobs, --pareto", lambda: leaderboard(store, pareto=True)),
            ("all jobs, --state dropped", lambda: leaderboard(store, state="dropped")),
            ("all jobs, --state failed", lambda: leaderboard(store, state="failed")),
            ("one job", lambda: leaderboard(store, job)),
            ("one job, rows 1,000 to 1,020", lambda: leaderboard(store, job, offset=1000)),
            ("one job, --pareto", lambda: leaderboard(store, job, pareto=True)),
            ("one job, --state dropped", lambda: leaderboard(store, job, state="dropped")),
            ("one row", lambda: leaderboard_row(store, job, 7)),
            ("lossforge jobs", lambda: summaries(store)),
            ("a scrape of lossforge metrics", lambda: figures(store, JOBS_SHOWN)),
        ):
            timed(name, ask, calls, server)


def main() -> None:
    parser = argparse.ArgumentParser(description="Times the leaderboard of a large store.")
    parser.add_argument("--trials", type=int, default=1_000_000)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--only", choices=("sqlite", "postgresql"))
    parser.add_argument("--store", help="an own store, by its URL; it is left as it is")
    given = parser.parse_args()
    if given.store is not None:
        if schema.current(parse_url(given.store)) is None:
            fill(given.store, filled(given.jobs, given.trials, given.groups))
        measure(given.store, given.jobs, given.calls)
        return
    path = Path(__file__).parent.parent / "postgres.py"
    found = importlib.util.spec_from_file_location("postgres", path)
    assert found is not None
    assert found.loader is not None
    postgres = importlib.util.module_from_spec(found)
    found.loader.exec_module(postgres)
    rows = filled(given.jobs, given.trials, given.groups)
    print(f"{given.jobs} jobs in {given.groups} groups, {len(rows[1]):,} candidates, "
          f"{len(rows[2]):,} trials")  # fmt: skip
    if given.only != "postgresql":
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{folder}/store.db"
            print("SQLite", sqlite3.sqlite_version)
            fill(url, rows)
            measure(url, given.jobs, given.calls)
    if given.only == "sqlite":
        return
    if postgres.programs() is None:
        sys.exit(postgres.HOW_TO_GET_IT)
    with postgres.running() as server:
        url = server.url.render_as_string(hide_password=False)
        print("PostgreSQL", postgres.programs())
        fill(url, rows)
        measure(url, given.jobs, given.calls)


if __name__ == "__main__":
    main()
