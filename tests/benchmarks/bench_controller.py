"""Whether a controller keeps up with results at a fixed rate, and whether its memory stays flat.

    python tests/benchmarks/bench_controller.py [--rate 200] [--trials 100000] [--postgres]

The trials are a closed formula that comes back at the rate, whatever the controller does meanwhile;
controller, searcher, funnel and store are the real ones, ten seeds a candidate. Candidates are
drawn by evolution and not verified (`--verify` verifies them: what a draw costs is told by
bench_verification.py). Printed after every tenth of the trials: the rate that was reached, the
processor time of the controller, in all and for each result, and its memory. The first tenth is
warm-up. A busy machine lowers the rate, not the processor time: results that wait come together,
and are written together.
"""

import argparse
import contextlib
import importlib.util
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from search_server.controller import run_job
from search_server.funnel.outcomes import TrialKey
from search_server.store import Store
from workers import TrialResult, TrialSpec

TESTS = Path(__file__).parents[1]
SEEDS = 10
SLOTS = 400
WEIGHTS = {"random": 1.0, "mutation": 0.0, "crossover": 0.0}
MIB = 2**20


def loaded(path: Path) -> Any:
    """A module of the tests by its path."""
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[path.stem] = module
    found.loader.exec_module(module)
    return module


fake = loaded(TESTS / "search_server" / "fake_search.py")


class Metronome:
    """Gives trials back in their order, one every 1 / `rate` seconds, and reports as it goes."""

    def __init__(self, rate: float, trials: int) -> None:
        self.rate, self.trials = rate, trials
        self.held: deque[tuple[TrialKey, TrialSpec]] = deque()
        self.ended = 0
        self.began = self.told = time.monotonic()
        self.cpu = time.process_time()
        self.memory: list[float] = []
        self.each: list[float] = []  # milliseconds of processor time for a result
        self.counted = 0

    def submit(self, key: TrialKey, spec: TrialSpec) -> None:
        """See `Executor.submit`."""
        self.held.append((key, spec))

    def wait(self, timeout: float) -> list[tuple[TrialKey, TrialResult]]:
        """See `Executor.wait`."""
        due = self._due()
        if not due and self.held:
            time.sleep(min(timeout, 1.0 / self.rate))
            due = self._due()
        ready = [self.held.popleft() for _ in range(min(due, len(self.held)))]
        self.ended += len(ready)
        found = [(key, fake.fake_trial(spec)) for key, spec in ready]
        if self.ended // (self.trials // 10) > len(self.memory):
            self._tell()
        return found

    def slots(self) -> int:
        """See `Executor.slots`."""
        return SLOTS

    def lacks(self) -> str:
        """See `Executor.lacks`."""
        return ""

    def cancel_all(self) -> None:
        """See `Executor.cancel_all`."""
        self.held.clear()

    def close(self) -> None:
        """See `Executor.close`."""

    def _due(self) -> int:
        return int((time.monotonic() - self.began) * self.rate) - self.ended

    def _tell(self) -> None:
        now, cpu = time.monotonic(), time.process_time()
        self.memory.append(resident())
        self.each.append(1000 * (cpu - self.cpu) / (self.ended - self.counted))
        print(
            f"{self.ended:8,} trials  {self.ended / (now - self.began):6.1f} a second  "
            f"controller {(cpu - self.cpu) / (now - self.told):5.1%} of a core, "
            f"{self.each[-1]:.2f} ms a result  memory {self.memory[-1]:7.1f} MiB",
            flush=True,
        )
        self.cpu, self.told, self.counted = cpu, now, self.ended


def resident() -> float:
    """MiB of this process that lie in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


@contextlib.contextmanager
def store_url(postgres: bool) -> Iterator[str]:
    """An empty store."""
    if postgres:
        server = loaded(TESTS / "postgres.py")
        with server.running() as running, server.database(running.url) as url:
            yield url.render_as_string(hide_password=False)
        return
    with tempfile.TemporaryDirectory(prefix="lossforge-") as folder:
        yield f"sqlite:///{folder}/store.db"


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=200.0, help="results a second")
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--postgres", action="store_true", help="instead of SQLite")
    parser.add_argument("--verify", action="store_true", help="candidates are verified")
    given = parser.parse_args()
    verify = {"max_draws": 3000} if given.verify else {"method": "none"}
    with store_url(given.postgres) as url:
        job = fake.new_job(
            url,
            candidates=given.trials // SEEDS,
            window=2 * SLOTS // SEEDS,
            # grown, for offspring of parents whose made-up APs nobody beats are soon all known
            searcher={**WEIGHTS, "population": 16, "parents": 6},
            funnel={"verify": verify, "proxy": {"steps": 5, "seeds": list(range(SEEDS))}},
        )
        executor = Metronome(given.rate, given.trials)
        with Store.open(url) as store:
            run_job(store, job, executor)  # type: ignore[arg-type]
        after, end = executor.memory[0], executor.memory[-1]
        print(f"memory after a tenth {after:.1f} MiB, at the end {end:.1f}: {end - after:+.1f}")
        first, last = executor.each[1], executor.each[-1]
        print(f"processor time a result: second tenth {first:.2f} ms, last tenth {last:.2f} ms")


if __name__ == "__main__":
    main()
