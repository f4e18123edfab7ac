"""Readers of a service, for locust, which `bench_service.py` starts: each opens a page every
so many seconds, and what the page then asks for itself.

The file that $LOSSFORGE_LOAD names says who reads what; what came of it is written beside it.
"""

import json
import os
import random
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import gevent
from locust import FastHttpUser, events, task

FILE = Path(os.environ["LOSSFORGE_LOAD"])
GIVEN: dict[str, Any] = json.loads(FILE.read_text())
CHANCE = random.Random(0)
TOKENS = list(GIVEN["tokens"])
PLOTS = ("progress", "front", "funnel")
took: dict[str, list[float]] = defaultdict(list)
failed: dict[str, list[str]] = defaultdict(list)


class Reader(FastHttpUser):
    """Somebody with a token of their own."""

    network_timeout = connection_timeout = 60.0

    def on_start(self) -> None:
        self.shown = {"Authorization": f"Bearer {TOKENS.pop()}", "Accept": "text/html"}
        gevent.sleep(CHANCE.random() * GIVEN["every"])  # people do not read in step
        self.due = time.perf_counter()

    def wait_time(self) -> float:
        """Seconds until the next page is due; locust's own pacing has all begin together."""
        self.due = max(self.due + GIVEN["every"], time.perf_counter())
        return float(self.due - time.perf_counter())

    def ask(self, kind: str, path: str) -> None:
        self.client.get(path, headers=self.shown, name=kind)

    @task(4)
    def job(self) -> None:
        name = CHANCE.choice(GIVEN["live"] if CHANCE.random() < 0.5 else GIVEN["jobs"])
        self.ask("job", f"/jobs/{name}")
        for plot in PLOTS if GIVEN["plots"] else ():
            self.ask(f"plot: {plot}", f"/api/v1/jobs/{name}/plots/{plot}")

    @task(2)
    def filtered(self) -> None:
        self.ask("job, filtered", f"/jobs/{CHANCE.choice(GIVEN['jobs'])}?{query('&pareto=true')}")

    @task(2)
    def board(self) -> None:
        self.ask("leaderboard", "/leaderboard")

    @task(2)
    def board_filtered(self) -> None:
        self.ask("leaderboard, filtered", f"/leaderboard?{query('&detector=digits/atss')}")

    @task(1)
    def jobs(self) -> None:
        self.ask("jobs", "/jobs")


def query(*more: str) -> str:
    """A filter and an order, as people choose them."""
    kinds = (
        "state=dropped",
        "sort=fitness",
        "sort=gain",
        "sort=size",
        "sort=newest",
        "stage=proxy",
    )
    return CHANCE.choice(kinds) + CHANCE.choice(("", "&confirmed=true", *more))


@events.request.add_listener
def note(name: str, response_time: float, exception: object, **_: object) -> None:
    took[name].append(response_time)
    if exception is not None:
        failed[name].append(str(exception)[:200])


@events.quitting.add_listener
def write(**_: object) -> None:
    FILE.with_suffix(".out").write_text(json.dumps({"took": took, "failed": failed}))
