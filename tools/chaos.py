"""Runs the tests of faults many times in a row, and counts what was lost or doubled.

    python tools/chaos.py --times 20

Every run of a fault compares the rows of the disturbed search with those of an undisturbed one and
adds a line to a list; a run that ends before that is not in it, and fails its test.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> int:
    """Runs pytest and prints the table; returns its exit status, 1 for a lost or doubled trial."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20, help="how often each fault is tested")
    parser.add_argument("only", nargs="*", help="more arguments for pytest, after a --")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "runs"
        log.touch()
        environment = {
            **os.environ,
            "LOSSFORGE_CHAOS": str(given.times),
            "LOSSFORGE_CHAOS_LOG": str(log),
        }
        files = sorted(ROOT.glob("tests/search_server/test_faults_*.py"))
        command = [sys.executable, "-m", "pytest", *map(str, files), *given.only]
        status = subprocess.run(command, cwd=ROOT, env=environment).returncode
        lost_or_doubled = summary(log.read_text().splitlines())
    return status or int(lost_or_doubled > 0)


def summary(lines: list[str]) -> int:
    """Prints the runs of every fault and of all; returns how many trials were lost or doubled."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for line in lines:
        fault, *counts = line.split("\t")
        for name in (fault, "all faults"):
            sums = found[name]
            sums[0] += 1
            for place, count in enumerate(counts, start=1):
                sums[place] += int(count)
    wide = max(map(len, found), default=0)
    print(f"{'fault':<{wide}}  runs  trials lost  doubled  other differences")
    total = found.pop("all faults", [0, 0, 0, 0])
    for name, (runs, lost, doubled, other) in [*sorted(found.items()), ("all faults", total)]:
        print(f"{name:<{wide}}  {runs:4}  {lost:11}  {doubled:7}  {other:17}")
    return total[1] + total[2]


if __name__ == "__main__":
    sys.exit(main())
