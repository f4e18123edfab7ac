"""The leaderboard of a store with 1,000,000 trials in 200 jobs, on SQLite and on PostgreSQL.

    python tests/benchmarks/bench_leaderboard.py [--trials 1000000] [--jobs 200] [--groups 8]

Fills a store of the schema before the aggregates, upgrades it (so the upgrade is measured too), and
prints of 50 calls, in milliseconds, the median and the 95th percentile of the time and of the
processor time, which a busy machine changes less: that of this process and of PostgreSQL's that
answers it. PostgreSQL is the system's package, on a server of its own. With --store it measures
that one, which it fills if it is not there yet, and leaves it.
"""

import argparse
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from large_store import fill, filled, postgres_store
from sqlalchemy import text

from search_server.figures import figures
from search_server.leaderboard import leaderboard, leaderboard_row
from search_server.metrics import JOBS_SHOWN
from search_server.overview import summaries
from search_server.store import Store, schema
from search_server.store.url import parse_url


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
    rows = filled(given.jobs, given.trials, given.groups)
    print(f"{given.jobs} jobs in {given.groups} groups, {len(rows['candidates']):,} candidates, "
          f"{len(rows['trials']):,} trials")  # fmt: skip
    if given.only != "postgresql":
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{folder}/store.db"
            print("SQLite", sqlite3.sqlite_version)
            fill(url, rows)
            measure(url, given.jobs, given.calls)
    if given.only == "sqlite":
        return
    with postgres_store() as url:
        fill(url, rows)
        measure(url, given.jobs, given.calls)


if __name__ == "__main__":
    main()
