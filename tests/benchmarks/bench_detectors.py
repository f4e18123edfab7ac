"""How well and how fast the six digits detectors learn with their own losses.

Run: `python tests/benchmarks/bench_detectors.py [--steps 600] [--seeds 0 1 2]
[--detectors atss fcos] [--slots 1]`
Every trial trains on `search_train` in batches of 8 and is evaluated on `search_val`, on the CPU
with one thread; two trials at once at most. AP is in percent, its mean over the seeds.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from itertools import product

from rich.console import Console
from rich.table import Table

from losses import CATALOG, configs_dir
from workers import TrialResult, TrialSpec, TrialWorker, load_detector, run_trial
from workers.data import digits

FOLDER = configs_dir() / "detectors" / "digits"
DETECTORS = tuple(sorted(path.stem for path in FOLDER.glob("[!_]*.py")))
BATCH = 8


def trial(detector: str, seed: int, steps: int) -> TrialSpec:
    """The trial of one detector with its own losses."""
    data = digits()
    return TrialSpec(
        detector=load_detector(FOLDER / f"{detector}.py"),
        definition=CATALOG["default"].to_json(),
        train=data.splits["search_train"],
        evaluate=data.splits["search_val"],
        seed=seed,
        steps=steps,
        batch_size=BATCH,
        classes=data.classes,
        device="cpu",
        threads=1,
    )


def train_all(specs: list[TrialSpec], slots: int) -> list[TrialResult]:
    """Results in the order of the specs; `slots` trials run at once, each in its own process."""

    def share(first: int) -> list[TrialResult]:
        with TrialWorker() as worker:
            return [run_trial(spec, worker) for spec in specs[first::slots]]

    with ThreadPoolExecutor(slots) as pool:
        shares = list(pool.map(share, range(slots)))
    return [shares[index % slots][index // slots] for index in range(len(specs))]


def table(results: dict[str, list[TrialResult]], seeds: list[int], steps: int) -> Table:
    """A row per detector: AP by seed, their mean, and seconds a step."""
    shown = Table(title=f"AP on search_val after {steps} steps of batch {BATCH}")
    for column in ("detector", *(f"seed {seed}" for seed in seeds), "mean", "s/step"):
        shown.add_column(column, justify="left" if column == "detector" else "right")
    for name, trials in results.items():
        scores = [result.fitness for result in trials]
        cells = [
            result.status if score is None else f"{100 * score:.1f}"
            for result, score in zip(trials, scores, strict=True)
        ]
        known = [score for score in scores if score is not None]
        mean = f"{100 * sum(known) / len(known):.1f}" if len(known) == len(scores) else "-"
        pace = sum(result.seconds["train"] for result in trials) / (len(trials) * steps)
        shown.add_row(name, *cells, mean, f"{pace:.3f}")
    return shown


def main() -> None:
    """Trains, prints the table, and the reason of every trial that was not done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--detectors", nargs="+", choices=DETECTORS, default=list(DETECTORS))
    parser.add_argument("--slots", type=int, choices=(1, 2), default=1)
    given = parser.parse_args()
    wanted = list(product(given.detectors, given.seeds))
    specs = [trial(name, seed, given.steps) for name, seed in wanted]
    ended = dict(zip(wanted, train_all(specs, given.slots), strict=True))
    results = {name: [ended[name, seed] for seed in given.seeds] for name in given.detectors}
    Console().print(table(results, given.seeds, given.steps))
    for (name, seed), result in ended.items():
        if result.status != "done":
            print(f"{name}, seed {seed}: {result.status}, {result.reason}")


if __name__ == "__main__":
    main()
