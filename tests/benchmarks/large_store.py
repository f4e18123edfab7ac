"""A store with as many trials and jobs as a team has after years, filled in a minute or two.

It is filled by the fastest way of each database with the schema before the aggregates, and then
upgraded, so that what it has counted is what the migrations count.
"""

import importlib.util
import json
import random
import sqlite3
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from search_server.store import schema
from search_server.store.engine import connect
from search_server.store.url import parse_url

BEFORE = "0004"
AT = "2026-01-02 03:04:05.000000"
JOBS = (
    "id serial slug number name state reason spec detector classes trial_group created_at "
    "started_at finished_at"
)
CANDIDATES = (
    "job_id index origin parents definition key key_hash cls_text bbox_text size stage state "
    "simulate_score fitness reason created_at"
)
TRIALS = "job_id candidate stage seed state spec_key reason fitness steps started_at"
COUNTS = "job_id origin outcome count"
TABLES = {"jobs": JOBS, "candidates": CANDIDATES, "trials": TRIALS, "funnel_counts": COUNTS}
CONFIRMED, SEEDS = 5, 8
ORIGINS = ("random", "mutation", "crossover")
OUTCOMES = ("accepted", "flat", "grows", "no gradient", "not finite", "same as another", "too deep")
CLS = "Mul(Sub(Q,Sig(X)),Sub(Softplus(X),Mul(Add(Q,Mul(PY,{n})),Add(X,Mul(NY,Sig(Mul(Q,X)))))))"
BBOX = "Add(Sub(1,Div(I,U)),Div(Sub(E,Mul(U,{n})),E))"
SPEC: dict[str, Any] = {
    "name": "bench",
    "detector": "digits/atss",
    "data": "digits",
    "branches": {"cls": {"space": "binary_cls"}, "bbox": {"space": "box"}},
    "baseline": "default",
    "searcher": {"type": "evolution", "population": 50, "parents": 20, "named": []},
    "funnel": {
        "verify": {"max_draws": 4000},
        "simulate": {"steps": 50, "batch_size": 8, "keep": 8, "images_per_class": 1},
        "proxy": {"steps": 400, "batch_size": 8, "seeds": [0, 1]},
        "confirm": {"top": 5, "seeds": 8, "steps": 1200, "rivals": []},
    },
    "limits": {"steps": None, "trial_seconds": 1800, "job_hours": None},
    "resources": {"cpus": 1, "gpus": 0, "device": "cpu", "threads": 1},
    "window": 16,
    "seed": 0,
}

Rows = dict[str, list[Any]]
"""By table."""


def definition(name: str, number: int) -> dict[str, Any]:
    """A loss definition that no other number has."""
    cls = {"type": "expression", "space": "binary_cls", "expression": CLS.format(n=number)}
    box = {"type": "expression", "space": "box", "expression": BBOX.format(n=number)}
    return {"name": name, "cls": cls, "bbox": box, "iou_centerness": False}


def filled(jobs: int, trials: int, groups: int, live: int = 0) -> Rows:
    """Rows: of each job a baseline, two fifths of its trials simulations, the others of the proxy
    with two seeds each, and five losses confirmed from eight seeds.

    Args:
        groups: of jobs that train alike.
        live: so many of the newest jobs run.
    """
    rng = random.Random(0)
    each = trials // jobs
    made: Rows = {table: [] for table in TABLES}
    began = str((datetime.now(UTC) - timedelta(hours=1)).replace(tzinfo=None))
    for serial in range(1, jobs + 1):
        job = f"bench-{serial}"
        judging = (CONFIRMED + 1) * SEEDS
        count = int((each - judging) / (1 + 2 * 0.75))
        running = serial > jobs - live
        state = "running" if running else "done"
        spec = json.dumps({**SPEC, "candidates": 2 * count if running else count})
        group = f"{(serial - 1) % groups:064d}"
        times = (began, None) if running else (AT, AT)
        made["jobs"].append((job, serial, "bench", serial, "bench", state, "", spec, "model",
                             '["a"]', group, AT, *times))  # fmt: skip
        for origin in ORIGINS:
            made["funnel_counts"] += [
                (job, origin, outcome, count // 3 if outcome == "accepted" else 97 * count)
                for outcome in OUTCOMES
            ]
        trained = []
        for index in range(count):
            score = rng.random()
            done = index == 0 or score > 0.25
            fitness = [round(0.5 * rng.betavariate(5, 3), 6) for _ in range(2)] if done else []
            mean = statistics.fmean(fitness) if fitness else None
            made["trials"].append((job, index, "simulate", 0, "done", "k", "", score, 50, AT))
            for seed, value in enumerate(fitness):
                made["trials"].append((job, index, "proxy", seed, "done", "k", "", value, 400, AT))
            if mean is not None:
                trained.append((mean, index))
            key = f"{job}:{index}"
            made["candidates"].append((
                job, index, rng.choice(ORIGINS) if index else "baseline", "[]",
                json.dumps(definition(key, index)), "Neg(X)" * 30 + key, key,
                CLS.format(n=index), BBOX.format(n=index),
                rng.randint(3, 60) if index else 0, "proxy" if done else "simulate",
                "done" if done else "dropped", score, mean, "", AT,
            ))  # fmt: skip
        best = [index for _, index in sorted(trained, reverse=True)[:CONFIRMED] if index]
        for index in (0, *best):
            for seed in range(1000, 1000 + SEEDS):
                value = round(min(1.0, max(0.0, rng.gauss(0.4, 0.02))), 6)
                made["trials"].append(
                    (job, index, "confirm", seed, "done", "k", "", value, 1200, AT)
                )
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


def fill(url: str, rows: Rows) -> None:
    """A store of the newest schema with these rows."""
    engine = connect(parse_url(url), foreign_keys=False)
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, BEFORE)
    engine.dispose()
    start = time.perf_counter()
    for table, columns in TABLES.items():
        insert(url, table, columns, rows[table])
    filled_at = time.perf_counter()
    schema.upgrade(parse_url(url))
    upgraded = time.perf_counter()
    if not url.startswith("sqlite"):
        engine = create_engine(parse_url(url), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text("VACUUM ANALYZE"))
        engine.dispose()
    took = f"filled in {filled_at - start:.0f} s, upgraded in {upgraded - filled_at:.0f} s"
    print(f"  {took}", file=sys.stderr)


def own_postgres() -> Any:
    """The module that starts servers of PostgreSQL for tests and benchmarks."""
    path = Path(__file__).parent.parent / "postgres.py"
    found = importlib.util.spec_from_file_location("postgres", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@contextmanager
def postgres_store() -> Iterator[str]:
    """The URL of an empty database on a server of its own, gone when the block ends; ends the
    program where there is no PostgreSQL."""
    postgres = own_postgres()
    if postgres.programs() is None:
        sys.exit(postgres.HOW_TO_GET_IT)
    with postgres.running() as server:
        print("PostgreSQL", postgres.programs(), file=sys.stderr)
        yield server.url.render_as_string(hide_password=False)
