"""What the start of a trial's process costs: forked from a server, and from nothing.

Starts `--slots` workers one after another, ends them and starts them again, as after a trial that
ran out of time, `--repeats` times each way, the two ways in turns. Linux's /proc says what CPU time
the processes took and how much memory they hold together once they are ready.

    python tests/benchmarks/bench_start.py [--slots 2] [--repeats 3]
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "workers"))

from processes import called

from workers import TrialWorker
from workers.forks import SWITCH

TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1024.0


@dataclass(frozen=True)
class Start:
    """One process that became ready.

    Attributes:
        seconds: until then, by the clock.
        cpu: seconds of the process itself, and of the fork server meanwhile.
    """

    seconds: float
    cpu: float


def cpu_seconds(pid: int) -> float:
    """What a process has taken so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pids: set[int]) -> float:
    """MiB that processes hold; what several share counts once, in parts."""
    found = 0.0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                found += int(line.split()[1]) / MIB
    return found


def mine() -> set[int]:
    """The processes of this benchmark."""
    return called("lossforge-trial") | called("lossforge-forks")


def starts(slots: int) -> Iterator[tuple[Start, float]]:
    """Workers that are made ready one after another, with the memory of all so far."""
    with ExitStack() as workers:
        for _ in range(slots):
            before = {pid: cpu_seconds(pid) for pid in mine()}
            began = time.monotonic()
            workers.enter_context(TrialWorker()).warm_up(device="cpu")
            took = time.monotonic() - began
            spent = sum(cpu_seconds(pid) - before.get(pid, 0.0) for pid in mine())
            yield Start(took, spent), memory(mine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    found: dict[str, list[Start]] = {"from nothing": [], "forked": [], "forked, the first": []}
    held: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as home:
        os.environ["LOSSFORGE_HOME"] = home
        for _ in range(given.repeats):
            for way, switch in (("from nothing", "off"), ("forked", "on")):
                os.environ[SWITCH] = switch
                served = bool(called("lossforge-forks"))
                for number, (start, together) in enumerate(starts(given.slots)):
                    first = way == "forked" and not served and number == 0
                    found["forked, the first" if first else way].append(start)
                    held[way] = together
    print(f"{'start of a process':<20} {'seconds':>8} {'CPU s':>8}   medians")
    for way, each in found.items():
        seconds = statistics.median(start.seconds for start in each)
        cpu = statistics.median(start.cpu for start in each)
        print(f"{way:<20} {seconds:8.2f} {cpu:8.2f}   of {len(each)}")
    for way, together in held.items():
        print(f"{given.slots} processes {way} hold {together:,.0f} MiB together")


if __name__ == "__main__":
    main()
