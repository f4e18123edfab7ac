"""A small search whose trials are a closed formula; run as a program, it can kill itself anywhere.

    python fake_search.py STORE JOB KIND COUNT

runs a job and sends itself SIGKILL at the COUNT-th event of a KIND: `commit` (inside a write,
before it is committed), `written` (after one), `trial` (while one runs), or `never`.
"""

import hashlib
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import yaml
from sqlalchemy import MetaData, create_engine, event, select
from sqlalchemy.orm import Session

from search_server.controller import run_job
from search_server.executors import InlineExecutor
from search_server.funnel.outcomes import TrialKey
from search_server.jobs import create_job
from search_server.spec import JobSpec, parse_spec
from search_server.store import Store
from workers import TrialResult, TrialSpec

SPEC: dict[str, Any] = {
    "name": "fake",
    "detector": "digits/atss",
    "branches": {"cls": {"space": "binary_cls"}, "bbox": {"space": "box"}},
    "searcher": {
        "population": 5,
        "parents": 3,
        "named": [{"cls": "focal-expression", "bbox": "giou-expression"}, "cse-autoloss-b"],
    },
    "funnel": {
        "verify": {"max_draws": 400},
        "simulate": {"steps": 3, "keep": 2},
        "proxy": {"steps": 5, "seeds": [0, 7]},
    },
    "candidates": 17,
    "window": 6,
    "calibrate": False,
    "seed": 11,
}
# What makes a policy search of it; None leaves a field out.
POLICY: dict[str, Any] = {
    "detector": "digits/retinanet",
    "branches": {"cls": {"space": "pap"}},
    "baseline": "pap-identity",
    "searcher": {"type": "policy", "rounds": 4, "samples": 3, "updates": 20, "warmup": 5},
    "funnel": {"simulate": None, "proxy": {"steps": 5, "seeds": [0, 7]}},
    "candidates": None,
    "window": None,
}
# What makes a search with rungs and a last stage of it, the rivals a stock loss and one that may be
# found anyway.
HALVING: dict[str, Any] = {
    "funnel": {
        "verify": {"max_draws": 400},
        "simulate": {"steps": 3, "keep": 3},
        "proxy": {"steps": 50, "seeds": [0, 7], "rungs": [10, 20], "hopeless": 0.3},
        "confirm": {"top": 2, "seeds": 3, "rivals": ["focal-giou", "cse-autoloss-b"]},
    },
}
TIMES = ("_at", "seconds_", "owner")


def spec(**changes: Any) -> JobSpec:
    """The small spec with other top-level fields."""
    given = {name: value for name, value in {**SPEC, **changes}.items() if value is not None}
    return parse_spec(yaml.safe_dump(given))


def new_job(url: str, **changes: Any) -> str:
    """A job of the small spec in the store at `url`."""
    with Store.open(url) as store:
        return create_job(store, spec(**changes))


def number(trial: TrialSpec) -> float:
    """A number in [0, 1) from a trial's loss, seed and steps; not from where its data is."""
    loss = {name: value for name, value in trial.definition.items() if name != "name"}
    text = json.dumps([loss, trial.seed, trial.steps], sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def _until(trial: TrialSpec, rung: int) -> TrialSpec:
    return replace(trial, steps=rung, rungs=(), pause_after=None)


def fake_trial(trial: TrialSpec) -> TrialResult:
    """Most are done, some diverge, fail or run out of time; always the same for the same trial.

    APs rise from rung to rung, more or less. A paused one leaves a checkpoint that nobody needs.
    """
    value = number(trial)
    status = {0: "diverged", 1: "failed", 2: "timeout"}.get(int(value * 1e6) % 20, "done")
    rungs = {
        rung: value * rung / trial.steps * (0.6 + 0.4 * number(_until(trial, rung)))
        for rung in trial.rungs
    }
    if status != "done":  # it ends somewhere between the rungs, or before the first
        rungs = dict(list(rungs.items())[: int(value * 1e7) % (len(rungs) + 1)])
    passed = rungs
    if status in ("failed", "timeout"):  # whoever ended it does not know how far it came
        rungs = {}
    pause = trial.pause_after
    if pause is not None and (status == "done" or pause in passed):
        assert trial.checkpoint_file is not None
        trial.checkpoint_file.parent.mkdir(parents=True, exist_ok=True)
        trial.checkpoint_file.write_text("made up")
        status, rungs = "paused", {rung: ap for rung, ap in passed.items() if rung <= pause}
    return TrialResult(
        status,  # type: ignore[arg-type]
        "" if status in ("done", "paused") else f"made to be {status}",
        value if status == "done" else None,
        trial.seed,
        trial.steps,
        metrics={"ap50": value} if status == "done" else {},
        curves={"step": [1.0, 2.0], "loss": [1.0, value]},
        seconds={"total": time.perf_counter() % 1.0},
        versions={"torch": "0"},
        rungs=rungs,
    )


def slow_trial(low: float, high: float) -> Callable[[TrialSpec], TrialResult]:
    """The same trials, each with a delay of its own, in seconds."""
    clock = random.Random()

    def run(trial: TrialSpec) -> TrialResult:
        time.sleep(clock.uniform(low, high))
        return fake_trial(trial)

    return run


def run(
    url: str, job: str, slots: int = 2, stop: threading.Event | None = None, **more: Any
) -> str:
    """Run a job with the fake trials; its state."""
    with Store.open(url) as store, InlineExecutor(slots, slow_trial(0.0, 0.005)) as executor:
        return run_job(store, job, executor, stop=stop, trace=1, **more)


def rows(url: str) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables in the order of their keys, without the columns that hold times.

    The numbers of losses are their places: PostgreSQL gives no number twice, not even that of a row
    that was never committed. So a trial's key, into which the number goes, is there or not.
    """
    engine = create_engine(url)
    tables = MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        found = {
            table.name: [
                {
                    name: value
                    for name, value in row._mapping.items()
                    if not any(mark in name for mark in TIMES)
                }
                for row in connection.execute(select(table).order_by(*table.primary_key.columns))
            ]
            for table in tables.sorted_tables
        }
    engine.dispose()
    place = {row["id"]: number for number, row in enumerate(found["losses"])}
    for row in found["losses"]:
        row["id"] = place[row["id"]]
    for row in found["candidates"]:
        row["loss_id"] = place.get(row["loss_id"])
    for row in found["trials"]:
        row["trained_key"] = row["trained_key"] is not None
    return found


class ShuffledExecutor:
    """Gives results back in an order of its own, and changes its number of slots all the time."""

    def __init__(self, seed: int, trial: Callable[[TrialSpec], TrialResult] = fake_trial) -> None:
        self.rng = random.Random(seed)
        self.trial = trial
        self.held: dict[TrialKey, TrialSpec] = {}
        self.most = 0

    def submit(self, key: TrialKey, spec: TrialSpec) -> None:
        assert key not in self.held
        self.held[key] = spec
        self.most = max(self.most, len(self.held))

    def wait(self, timeout: float) -> list[tuple[TrialKey, TrialResult]]:
        count = self.rng.randint(0 if timeout == 0 else 1, 3)
        keys = self.rng.sample(sorted(self.held), min(count, len(self.held)))
        return [(key, self.trial(self.held.pop(key))) for key in keys]

    def slots(self) -> int:
        return self.rng.randint(1, 9)

    def lacks(self) -> str:
        return ""

    def cancel_all(self) -> None:
        self.held.clear()

    def close(self) -> None:
        self.cancel_all()


class Killer:
    """Counts events and kills this very process at one of them."""

    def __init__(self, kind: str, count: int) -> None:
        self.kind = kind
        self.left = count

    def __call__(self, kind: str) -> None:
        if kind == self.kind:
            self.left -= 1
            if self.left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


def main(url: str, job: str, kind: str, count: str) -> None:
    killer = Killer(kind, int(count))
    event.listen(Session, "before_commit", lambda session: killer("commit"))
    event.listen(Session, "after_commit", lambda session: killer("written"))

    def trial(spec: TrialSpec) -> TrialResult:
        killer("trial")
        return fake_trial(spec)

    with Store.open(url) as store, InlineExecutor(2, trial) as executor:
        print(run_job(store, job, executor, trace=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
