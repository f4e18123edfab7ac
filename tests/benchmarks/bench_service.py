"""The service over a store with 1,000,000 trials in 200 jobs, on SQLite and on PostgreSQL.

    python tests/benchmarks/bench_service.py [--seconds 60] [--readers 50] [--streams 200]
        [--trials 1000000] [--jobs 200] [--only sqlite|postgresql] [--store FILE] [--json]

`lossforge serve` runs as people start it, with tokens. First each kind of page is asked for alone,
one after the other: the time, and the processor time of the service and of PostgreSQL, which a busy
machine changes less. Then come the readers, each of whom opens a page every two seconds (locust),
the event streams are held, and a running search writes a result a second. Printed are the times,
how many streams were held to the end, and the service's memory.

A throw-away store is filled first, a minute or two; --store keeps an SQLite file, or takes a
database of yours by its URL, and the next run takes it as it is. Linux.
"""

import argparse
import json
import os
import secrets
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from large_store import fill, filled, postgres_store
from service_use import PATIENCE, Streams, searching
from sqlalchemy import select, text

from search_server.store import Store, schema
from search_server.store.models import Job
from search_server.store.url import parse_url

LIVE = 10
GROUPS = 8
EVERY = 2.0  # seconds between two pages of a reader
TICKS = os.sysconf("SC_CLK_TCK")
SMALL: dict[str, Any] = {
    "name": "small",
    "detector": "digits/atss",
    "branches": {"bbox": {"space": "box"}},
    "limits": {"steps": 400},
}
LOAD = Path(__file__).with_name("service_load.py")


@dataclass(frozen=True)
class Wanted:
    """What is asked of each store."""

    seconds: float
    readers: int
    streams: int
    calls: int
    writes: float
    plots: bool


@dataclass
class Service:
    """`lossforge serve` in a process of its own."""

    process: "subprocess.Popen[str]"
    url: str

    @property
    def place(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return str(parts.hostname), int(parts.port or 80)

    def memory(self) -> float:
        """Resident, in MiB."""
        told = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(told.partition("VmRSS:")[2].split()[0]) / 1024

    def worked(self) -> float:
        """Processor time so far, in seconds."""
        return _worked(self.process.pid)


def _worked(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def database_clock(store: Store) -> Callable[[], float]:
    """Tells the processor time of PostgreSQL's processes that answer somebody at the moment, in
    seconds; 0 for SQLite, which is in the service."""
    if store.engine.dialect.name == "sqlite":
        return lambda: 0.0

    def read() -> float:
        with store.engine.connect() as connection:
            found = connection.execute(
                text("SELECT pid FROM pg_stat_activity WHERE pid != pg_backend_pid()")
            )
            pids = [int(pid) for (pid,) in found]
        total = 0.0
        for pid in pids:
            with suppress(OSError):
                total += _worked(pid)
        return total

    return read


@contextmanager
def served(url: str, home: Path) -> Iterator[Service]:
    """The service over a store, once it answers."""
    options = ("--port", "0", "--tokens", "--log-level", "error")
    command = [sys.executable, "-P", "-m", "search_server.cli", "serve", *options]
    environment = {**os.environ, "LOSSFORGE_STORE": url, "LOSSFORGE_HOME": str(home)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("Lossforge at "):
            raise SystemExit(f"the service has not begun: {line}")
        yield Service(process, line.split()[-1].rstrip("/"))
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()
        process.wait()


def until_loaded(service: Service, token: str) -> None:
    """Waits until the service checks specs: what that takes is loaded after it answers."""
    head = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body = json.dumps({"spec": SMALL}).encode()
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        connection = HTTPConnection(*service.place, timeout=PATIENCE)
        connection.request("POST", "/api/v1/specs/check", body, head)
        status = connection.getresponse().status
        connection.close()
        if status == 200:
            return
        time.sleep(1.0)
    raise SystemExit(f"the service does not check specs: it answers {status}")


def pages(jobs: Sequence[str], live: Sequence[str]) -> dict[str, list[str]]:
    """Kind of page -> paths of it."""
    few = [jobs[len(jobs) * n // 7] for n in range(7)]
    kinds = {
        "jobs": ["/jobs"],
        "leaderboard": ["/leaderboard"],
        "leaderboard, by size": ["/leaderboard?sort=size"],
        "leaderboard, dropped": ["/leaderboard?state=dropped"],
        "leaderboard, one detector": ["/leaderboard?detector=digits/atss&sort=fitness"],
        "job": [f"/jobs/{job}" for job in few],
        "job, running": [f"/jobs/{job}" for job in live],
        "job, by size": [f"/jobs/{job}?sort=size" for job in few],
        "job, front": [f"/jobs/{job}?pareto=true" for job in few],
        "job, confirmed": [f"/jobs/{job}?confirmed=true" for job in few],
    }
    for plot in ("progress", "front", "funnel"):
        kinds[f"plot: {plot}"] = [f"/api/v1/jobs/{job}/plots/{plot}" for job in few]
    return kinds


def alone(
    service: Service,
    kinds: dict[str, list[str]],
    token: str,
    calls: int,
    database: Callable[[], float],
) -> dict[str, dict[str, float]]:
    """Each kind of page, asked for one after the other: times and processor times in ms."""
    head = {"Authorization": f"Bearer {token}", "Accept": "text/html"}
    connection = HTTPConnection(*service.place, timeout=PATIENCE)
    found = {}
    for kind, paths in kinds.items():
        taken = []
        for number in range(-2, calls):  # the first two are not counted
            if number == 0:
                before = service.worked(), database()
            began = time.perf_counter()
            connection.request("GET", paths[number % len(paths)], headers=head)
            answer = connection.getresponse()
            size = len(answer.read())
            if answer.status != 200:
                raise SystemExit(f"{paths[number % len(paths)]} answers {answer.status}")
            if number >= 0:
                taken.append(1000 * (time.perf_counter() - began))
        own, other = service.worked() - before[0], database() - before[1]
        found[kind] = {
            **percentiles(taken),
            "cpu": 1000 * own / calls,
            "database_cpu": 1000 * other / calls,
            "kib": size / 1024,
        }
    connection.close()
    return found


def percentiles(taken: Sequence[float]) -> dict[str, float]:
    ordered = sorted(taken)
    at = min(len(ordered) - 1, int(0.95 * len(ordered)))
    return {"p50": statistics.median(ordered), "p95": ordered[at], "max": ordered[-1]}


def loaded(
    service: Service, given: dict[str, Any], wanted: Wanted, folder: Path
) -> tuple[dict[str, Any], dict[str, float], float]:
    """The readers: times by kind in ms, memory in MiB, processor time by seconds."""
    file = folder / "load.json"
    file.write_text(json.dumps(given))
    command = [
        *(sys.executable, "-m", "locust", "-f", str(LOAD), "--headless", "--only-summary"),
        *("--host", service.url, "-u", str(wanted.readers), "-r", str(wanted.readers)),
        *("-t", f"{wanted.seconds:g}s", "--stop-timeout", "60", "--exit-code-on-error", "0"),
    ]
    environment = {**os.environ, "LOSSFORGE_LOAD": str(file)}
    memory = {"begin": service.memory()}
    before, began = service.worked(), time.monotonic()
    with (folder / "locust.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        time.sleep(wanted.seconds / 10)
        memory["tenth"] = service.memory()
        process.wait()
    memory["end"] = service.memory()
    share = (service.worked() - before) / (time.monotonic() - began)
    if process.returncode:
        raise SystemExit((folder / "locust.log").read_text()[-2000:])
    told = json.loads(file.with_suffix(".out").read_text())
    lost = told["failed"]
    found = {
        kind: {"count": len(taken), "failed": len(lost.get(kind, ())), **percentiles(taken)}
        for kind, taken in sorted(told["took"].items())
    }
    whole = [taken for kind, each in told["took"].items() if "plot" not in kind for taken in each]
    found["all pages"] = {"count": len(whole), "failed": 0, **percentiles(whole)}
    found["all pages"]["failed"] = sum(each["failed"] for each in found.values())
    for kind, why in lost.items():
        print(f"  {kind}: {why[0]}", file=sys.stderr)
    return found, memory, share


def measured(url: str, wanted: Wanted) -> dict[str, Any]:
    """All of one store."""
    with tempfile.TemporaryDirectory() as folder, Store.open(url) as store:
        mark = secrets.token_hex(4)
        names = [f"reader {mark} {number}" for number in range(wanted.readers)]
        tokens = [store.create_token(name, "read") for name in names]
        names.append(f"submitter {mark}")
        submitter = store.create_token(names[-1], "submit")
        with store.reading() as session:
            rows = session.execute(select(Job.id, Job.state).order_by(Job.serial)).all()
        jobs = [job for job, _ in rows]
        live = [job for job, state in rows if state == "running"]
        if not live:
            raise SystemExit("no job of this store runs, so nothing can be watched; fill another")
        try:
            with served(url, Path(folder)) as service:
                until_loaded(service, submitter)
                clock = database_clock(store)
                one = alone(service, pages(jobs, live), tokens[0], wanted.calls, clock)
                given = {
                    "tokens": tokens, "jobs": jobs, "live": live, "every": EVERY,
                    "plots": wanted.plots,
                }  # fmt: skip
                with (
                    Streams(service.place, tokens, live, wanted.streams) as streams,
                    searching(url, live, wanted.writes) as written,
                ):
                    many, memory, share = loaded(service, given, wanted, Path(folder))
                    held, events = streams.held, streams.events
        finally:
            for name in names:
                store.revoke_token(name)
    return {
        "database": parse_url(url).get_backend_name(),
        "alone": one,
        "load": many,
        "streams": {"wanted": wanted.streams, "held": held, "events": events},
        "results_written": len(written),
        "memory_mib": memory,
        "cores_used": share,
    }


def print_found(found: dict[str, Any]) -> None:
    print(found["database"])
    print("  alone, ms                        p50     p95    CPU of service + database     KiB")
    for kind, each in found["alone"].items():
        print(f"    {kind:<26} {each['p50']:7.1f} {each['p95']:7.1f}  {each['cpu']:10.1f}"
              f" + {each['database_cpu']:4.1f}    {each['kib']:14.0f}")  # fmt: skip
    print("  under load, ms                 count  failed      p50     p95      max")
    for kind, each in found["load"].items():
        print(f"    {kind:<26} {each['count']:7} {each['failed']:7}"
              f"  {each['p50']:7.0f} {each['p95']:7.0f} {each['max']:8.0f}")  # fmt: skip
    streams, memory = found["streams"], found["memory_mib"]
    print(f"  {streams['held']} of {streams['wanted']} event streams were held, with "
          f"{streams['events']:,} events, while {found['results_written']} results were "
          "written")  # fmt: skip
    print(f"  memory {memory['begin']:.0f} MiB at the beginning, {memory['tenth']:.0f} after a "
          f"tenth, {memory['end']:.0f} at the end; {found['cores_used']:.2f} cores")  # fmt: skip


def stores(given: argparse.Namespace) -> Iterator[str]:
    """The URLs of the stores, one after the other, each filled; its server runs meanwhile."""

    def prepared(url: str) -> str:
        if schema.current(parse_url(url)) is None:
            fill(url, filled(given.jobs, given.trials, GROUPS, LIVE))
        return url

    own, kind = "", None
    if given.store is not None:
        own = parse_url(given.store).render_as_string(hide_password=False)
        kind = parse_url(given.store).get_backend_name()
    if given.only != "postgresql" and kind in (None, "sqlite"):
        with tempfile.TemporaryDirectory() as folder:
            print("SQLite", sqlite3.sqlite_version, file=sys.stderr)
            yield prepared(own or f"sqlite:///{folder}/store.db")
    elif kind == "postgresql":
        yield prepared(own)
        return
    if given.only != "sqlite":
        with postgres_store() as url:
            yield prepared(url)


def main() -> None:
    parser = argparse.ArgumentParser(description="Times the service over a large store.")
    parser.add_argument("--seconds", type=float, default=60.0, help="that the readers read")
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--calls", type=int, default=50, help="of each kind of page, alone")
    parser.add_argument("--writes", type=float, default=1.0, help="results a second")
    parser.add_argument("--no-plots", action="store_true", help="pages alone, without their plots")
    parser.add_argument("--trials", type=int, default=1_000_000)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--only", choices=("sqlite", "postgresql"))
    parser.add_argument("--store", help="an own store, a file or a URL; it is left there")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    wanted = Wanted(
        given.seconds, given.readers, given.streams, given.calls, given.writes, not given.no_plots
    )
    found = []
    for url in stores(given):
        found.append(measured(url, wanted))
        if not given.json:
            print_found(found[-1])
    if given.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
