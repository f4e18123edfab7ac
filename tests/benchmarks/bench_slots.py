"""How busy a search keeps the slots of a cluster: trials that only sleep, real Ray, a real store.

    python tests/benchmarks/bench_slots.py [--slots 200] [--seconds 30] [--minutes 4]

The trials import no torch and take no core, so one machine stands for a cluster of many. Every
trial notes when it began and when it ended. The share of the slots' time in which one ran is
counted from the moment when a trial runs on every slot, and, beside it, from the first trial on: a
busy machine takes minutes to start hundreds of workers. The processor time of the controller is
that of the first of the two. Candidates are not verified (`--verify` verifies them), for the cost
of a draw is told by bench_verification.py.
The peer is Ray alone in the same run: a loop that hands the same sleeps out and keeps one waiting,
without a store, a searcher or a funnel.
"""

import argparse
import importlib.util
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from search_server.controller import run_job
from search_server.executors.ray import RayExecutor
from search_server.spec import Resources
from search_server.store import Store

PROGRAM = Path(__file__).parents[1] / "search_server" / "fake_search.py"
_found = importlib.util.spec_from_file_location("fake_search", PROGRAM)
assert _found is not None
assert _found.loader is not None
fake: Any = importlib.util.module_from_spec(_found)
_found.loader.exec_module(fake)

SPREAD = 0.2  # trials take from 1 - this to 1 + this times the mean


def sleeping(folder: str, seconds: float) -> Callable[..., dict[str, Any]]:
    """A trial that sleeps and notes when; its AP is a number from its seed and loss."""

    def trial(spec: Mapping[str, Any], sent: Sequence[Any] = ()) -> dict[str, Any]:
        import hashlib
        import json
        import time as clock

        began = clock.time()
        digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).digest()
        share = int.from_bytes(digest[:6], "big") / 2**48
        clock.sleep(seconds * (1 - SPREAD + 2 * SPREAD * share))
        with Path(folder, str(os.getpid())).open("a") as file:
            file.write(f"{began} {clock.time()}\n")
        return {
            "status": "done",
            "reason": "",
            "fitness": share,
            "seed": spec["seed"],
            "steps": spec["steps"],
        }

    return trial


Times = list[tuple[float, float]]  # begin and end of trials, by the wall clock


def times(folder: Path) -> list[Times]:
    """Of every trial that has ended, by worker."""
    lines = (file.read_text().splitlines() for file in folder.iterdir())
    return [[(float(a), float(b)) for a, b in map(str.split, own)] for own in lines]


def busy(found: Times, slots: int, start: float, until: float) -> float:
    """Share of the slots' time between two moments in which trials ran."""
    ran = sum(max(0.0, min(end, until) - max(began, start)) for began, end in found)
    return ran / (slots * (until - start))


def searched(folder: Path, given: argparse.Namespace) -> None:
    """The real search, until its time is over."""
    url = f"sqlite:///{folder / 'store.db'}"
    verify = {"max_draws": 3000} if given.verify else {"method": "none"}
    job = fake.new_job(
        url,
        candidates=1_000_000,
        window=2 * given.slots,
        searcher={"population": 16, "parents": 6, "random": 0.0, "mutation": 0.7, "crossover": 0.3},
        funnel={"verify": verify, "proxy": {"steps": 5, "seeds": [0, 1]}},
    )
    notes = folder / "search"
    notes.mkdir()
    stop = threading.Event()
    trial = sleeping(str(notes), given.seconds)
    with (
        Store.open(url) as store,
        RayExecutor(Resources(cpus=1), cpus=given.slots, trial=trial) as executor,
    ):
        clock = Clock(notes, given, stop)
        clock.start()
        run_job(store, job, executor, stop=stop)
        clock.join()
    clock.tell("search")


def bare(folder: Path, given: argparse.Namespace) -> None:
    """Ray alone."""
    import ray

    notes = folder / "bare"
    notes.mkdir()
    stop = threading.Event()
    ray.init("local", num_cpus=given.slots, include_dashboard=False, log_to_driver=False)
    task = ray.remote(num_cpus=1, max_retries=0)(sleeping(str(notes), given.seconds))
    clock = Clock(notes, given, stop)
    clock.start()
    waiting: list[Any] = []
    while not stop.is_set():
        while len(waiting) <= given.slots:
            waiting.append(task.remote({"seed": random.random(), "steps": 5}))
        _, waiting = ray.wait(waiting, num_returns=1, timeout=0.5)
    clock.join()
    ray.shutdown()
    clock.tell("Ray alone")


class Clock(threading.Thread):
    """Ends a run when its time is over, and tells how busy the slots were."""

    def __init__(self, notes: Path, given: argparse.Namespace, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.notes, self.given, self.stop = notes, given, stop
        self.until = self.cpu = 0.0

    def run(self) -> None:
        """Waits for a first trial on every slot, then for the minutes that are asked for."""
        while len(list(self.notes.iterdir())) < self.given.slots:
            time.sleep(0.5)
        cpu, began = time.process_time(), time.monotonic()
        time.sleep(60 * self.given.minutes)
        self.cpu = (time.process_time() - cpu) / (time.monotonic() - began)
        self.until = time.time()
        longest = self.given.seconds * (1 + SPREAD)
        time.sleep(longest + 2)  # what runs now is to be counted up to now
        self.stop.set()

    def tell(self, name: str) -> None:
        """Prints the shares."""
        slots, until = self.given.slots, self.until
        workers = times(self.notes)
        found = [each for own in workers for each in own if each[0] < until]
        full = sorted(min(own)[0] for own in workers)[slots - 1]
        first = min(found)[0]
        print(
            f"{name:10} slots {slots}  trials {len(found)} of {self.given.seconds:g} s  "
            f"busy {busy(found, slots, full, until):.2%} over the {until - full:.0f} s since all "
            f"were filled, {busy(found, slots, first, until):.2%} over the {until - first:.0f} s "
            f"since the first trial  controller {self.cpu:.1%} of a core",
            flush=True,
        )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=30.0, help="that a trial takes, mean")
    parser.add_argument("--minutes", type=float, default=4.0, help="that are measured")
    parser.add_argument("--verify", action="store_true", help="candidates are verified")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lossforge-") as name:
        searched(Path(name), given)
        bare(Path(name), given)


if __name__ == "__main__":
    main()
