"""Redoes the evidence of docs/results.md: tunings, searches, readings of the split `test`.

    python tools/evidence.py --minutes 60     # as often as it takes; `make evidence` has no limit

Each step is a lossforge command that anyone can run. What is done is not repeated, and what was
interrupted goes on: the store has every trial. It lies in docs/evidence too, so that another
machine goes on where one has stopped; `--afresh` trains all of it again.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from evidence_kept import keep, restore
from results_page import (
    DETECTORS,
    FEWEST,
    GAINS,
    MOST,
    ROOT,
    SPECS,
    STORE,
    WORK,
    confirm_group,
    discovered,
    done,
    jobs,
    read,
    write_page,
)

from search_server.cli.options import open_store
from search_server.export.choice import choose, gains_of
from search_server.power import seeds_needed
from search_server.store import Store

LOSSFORGE = [sys.executable, "-m", "search_server.cli"]
PATIENCE = 120  # seconds that an interrupted command has to put its things away
GONE = ("failed", "cancelled")  # jobs that nobody goes on with


@dataclass(frozen=True)
class Step:
    """One command of the evidence.

    Attributes:
        name: as the ledger has it.
        done: whether it need not be run (again).
        command: the arguments of lossforge; asked for when it is the step's turn.
        after: what follows from its result.
    """

    name: str
    done: Callable[[], bool]
    command: Callable[[], list[str]]
    after: Callable[[], None] = lambda: None


def steps(store: Store, detectors: list[str], slots: int) -> Iterator[Step]:
    """All steps, in the order in which they need each other."""
    here = ["--address", "none", "--slots", str(slots), "--store", STORE]
    for detector in detectors:
        floor = WORK / f"{detector}_noise.jsonl"
        yield Step(
            f"{detector}: noise",
            lambda d=detector: store.noise_floor(confirm_group(d)) is not None,  # type: ignore[misc]
            lambda d=detector, f=floor: [  # type: ignore[misc]
                *("noise", str(SPECS / f"{d}_tuning.yaml"), "--seeds", "8", "-o", str(f)),
                *("--gain", f"{100 * GAINS[d]:g}", *here),
            ],
        )
        for kind in ("tuning", "tuning_long"):
            yield _search(store, detector, kind, here, keep=f"{detector}_{kind}.json")
        yield _search(store, detector, "search", here)
        yield _test(store, detector, here)
        for kind in ("vanilla", "random", "plain"):
            if (SPECS / f"{detector}_{kind}.yaml").exists():
                yield _search(store, detector, kind, here)


def _test(store: Store, detector: str, here: list[str]) -> Step:
    """The reading of the split `test`; there is none where the search confirmed nothing of its
    own, and the page says so."""

    def is_done() -> bool:
        job = _job(store, detector, "search")
        return discovered(store, job) is None or read(store, job) is not None

    def command() -> list[str]:
        job = _job(store, detector, "search")
        row = f"{job}:{discovered(store, job)}"
        return ["publish", row, "--seeds", str(_seeds(store, detector)), *here]

    return Step(f"{detector}: test", is_done, command, lambda: write_page(store))


def _search(store: Store, detector: str, kind: str, here: list[str], keep: str = "") -> Step:
    def command() -> list[str]:
        begun = [job.id for job in jobs(store, detector, kind) if job.state not in GONE]
        if begun:
            return ["resume", begun[-1], *here]
        return ["search", str(SPECS / f"{detector}_{kind}.yaml"), *here]

    def after() -> None:
        if keep:
            job = _job(store, detector, kind)
            _, definition = choose(job, store.candidates(job), None, gains_of(store, job))
            content = {**definition.to_json(), "name": f"tuned for {detector}, {job}"}
            path = SPECS / "losses" / keep.replace("tuning", "tuned")
            path.write_text(json.dumps(content, indent=2) + "\n")
        else:
            write_page(store)

    return Step(
        f"{detector}: {kind}", lambda: done(store, detector, kind) is not None, command, after
    )


def _job(store: Store, detector: str, kind: str) -> str:
    found = done(store, detector, kind)
    assert found is not None  # the step before this one ended
    return found


def _seeds(store: Store, detector: str) -> int:
    """As many as the noise floor asks for, fixed before `test` is read."""
    floor = store.noise_floor(confirm_group(detector))
    if floor is None or floor.sd_paired is None:
        return FEWEST
    return min(MOST, max(FEWEST, seeds_needed(GAINS[detector], floor.sd_paired) or MOST))


def _run(command: list[str], deadline: float, done: Callable[[], bool]) -> bool:
    """Whether a step came to its end; at the deadline it is interrupted, which it survives."""
    print("$ lossforge", *command, flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # in a session of its own: a Ctrl-C of the terminal reaches it once, from here
    process = subprocess.Popen(
        [*LOSSFORGE, *command], cwd=ROOT, env=environment, start_new_session=True
    )
    try:
        code = process.wait(None if deadline == float("inf") else deadline - time.monotonic())
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # it is resumed as after any other death
            process.wait()
        return done()
    if code and not done():  # a reading that lost a trial is complete all the same
        raise SystemExit(f"lossforge {command[0]} ended with {code}")
    return True


def main() -> None:
    """Runs what is left of the evidence until it is done or the time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after that")
    parser.add_argument("--slots", type=int, default=2, help="trials at once")
    parser.add_argument(
        "--afresh", action="store_true", help="start from nothing, not from docs/evidence"
    )
    parser.add_argument("--detector", action="append", choices=DETECTORS, help="only this one")
    given = parser.parse_args()
    deadline = time.monotonic() + 60 * given.minutes
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a command must not be left behind
    WORK.mkdir(parents=True, exist_ok=True)
    if not given.afresh:
        restore()
    with open_store(STORE, create=True) as store:
        for step in steps(store, given.detector or list(DETECTORS), given.slots):
            if not step.done():
                if time.monotonic() > deadline or not _run(step.command(), deadline, step.done):
                    keep()
                    raise SystemExit(f"stopped in {step.name}; the same command goes on")
                keep()
            step.after()  # of a step that was done before, too: it may have been killed in between
            print(f"done: {step.name}", flush=True)


if __name__ == "__main__":
    main()
