"""Proxy trials per hour: ours beside stock mmengine's, and where a trial's time goes.

Run: `python tests/benchmarks/bench_throughput.py [--detector atss] [--steps 200] [--repeats 3]
[--slots 2] [--trials 2] [--json]`

Stock is one process a trial, started as an mmengine user starts it, with the detector's own hooks,
data loader, checkpoint and log, and mmdet's `CocoMetric`; config, seed and thread count are the
same. Ours is one `TrialWorker` a slot, as in a search: its process is started before the clock, and
a fiftieth of that is added to every trial, since it serves fifty. Both keep all slots busy; in each
repeat the sides take their turns on the same seeds. A ratio is that of one repeat; the table shows
the median and the range. In float32 all APs of both sides have to be equal to the three decimals
that `CocoMetric` gives, or the run fails. CPU seconds are user and system time of all processes of
a side: what to look at on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from losses import CATALOG, configs_dir
from workers import TrialResult, TrialSpec, TrialWorker, build_config, load_detector
from workers.data import digits
from workers.worker import RECYCLE_AFTER

FOLDER = configs_dir() / "detectors" / "digits"
BATCH = 8
SIDES = ("stock", "float32", "bfloat16")
CODE = (
    "import sys; from mmengine.config import Config; from mmengine.runner import Runner; "
    "Runner.from_cfg(Config.fromfile(sys.argv[1])).train()"
)


@dataclass(frozen=True)
class Cost:
    """Seconds that a trial takes from a slot, and CPU seconds that it takes from the machine."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Turn:
    """One side's turn: what a trial cost, and AP, AP50 and AP75 by seed."""

    cost: Cost
    scores: dict[int, tuple[float, ...]]
    results: tuple[TrialResult, ...] = ()


def trial(detector: str, seed: int, steps: int) -> TrialSpec:
    """The trial of a detector with its own losses."""
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
    )


def stock_config(detector: str, spec: TrialSpec, folder: Path) -> Path:
    """The file that a user of mmengine would train: the trial's config without our parts."""
    from mmengine.config import Config

    own = Config.fromfile(FOLDER / f"{detector}.py")
    config = build_config(spec)
    metric = {"type": "CocoMetric", "ann_file": spec.evaluate.annotations, "metric": "bbox"}
    config.val_evaluator = config.test_evaluator = metric
    config.default_hooks = own.default_hooks
    config.default_hooks.checkpoint.interval = spec.steps
    config.log_processor = own.log_processor
    config.log_level = own.log_level
    config.pop("visualizer")
    config.work_dir = str(folder / "work")
    path = folder / f"{detector}_{spec.seed}.py"
    config.dump(path)
    return path


def cpu_of_children() -> float:
    """CPU seconds of all processes of this one that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(run: Callable[[], Any]) -> tuple[Any, Cost]:
    """What a function gives, and its cost."""
    wall, cpu = time.perf_counter(), cpu_of_children()
    found = run()
    return found, Cost(time.perf_counter() - wall, cpu_of_children() - cpu)


def train_stock(detector: str, spec: TrialSpec) -> tuple[float, ...]:
    """AP, AP50 and AP75 that stock mmengine logs."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryDirectory(prefix="lossforge-stock-") as name:
        folder = Path(name)
        path = stock_config(detector, spec, folder)
        command = [sys.executable, "-P", "-c", CODE, str(path)]
        done = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"stock mmengine failed:\n{done.stderr[-2000:]}")
        (log,) = folder.glob("work/*/vis_data/scalars.json")
        last = json.loads(log.read_text().splitlines()[-1])
    return tuple(last[f"coco/bbox_mAP{suffix}"] for suffix in ("", "_50", "_75"))


def stock_turn(detector: str, specs: Sequence[TrialSpec], slots: int) -> Turn:
    """A process a trial, `slots` at a time."""
    with ThreadPoolExecutor(slots) as pool:
        scores, cost = timed(
            lambda: list(pool.map(lambda spec: train_stock(detector, spec), specs))
        )
    by_seed = {spec.seed: found for spec, found in zip(specs, scores, strict=True)}
    return Turn(Cost(cost.wall * slots / len(specs), cost.cpu / len(specs)), by_seed)


def start_cost() -> Cost:
    """Of a worker's process."""

    def start() -> None:
        with TrialWorker() as worker:
            worker.warm_up(device="cpu")

    return timed(start)[1]


def our_turn(specs: Sequence[TrialSpec], slots: int, start: Cost) -> Turn:
    """A worker a slot; its process is there before the clock starts."""
    workers = [TrialWorker() for _ in range(slots)]
    cpu = cpu_of_children()
    with ThreadPoolExecutor(slots) as pool:
        list(pool.map(lambda worker: worker.warm_up(device="cpu"), workers))
        began = time.perf_counter()

        def share(slot: int) -> list[TrialResult]:
            return [workers[slot].run(spec) for spec in specs[slot::slots]]

        shares = list(pool.map(share, range(slots)))
        wall = time.perf_counter() - began
    for worker in workers:
        worker.close()
    cpu = cpu_of_children() - cpu - slots * start.cpu
    results = [shares[index % slots][index // slots] for index in range(len(specs))]
    for result in results:
        if result.status != "done":
            raise SystemExit(f"a trial of ours {result.status}: {result.reason}\n{result.log}")
    cost = Cost(
        wall * slots / len(specs) + start.wall / RECYCLE_AFTER,
        cpu / len(specs) + start.cpu / RECYCLE_AFTER,
    )
    return Turn(cost, {each.seed: scores_of(each) for each in results}, tuple(results))


def scores_of(result: TrialResult) -> tuple[float, ...]:
    """AP, AP50 and AP75."""
    assert result.fitness is not None
    return result.fitness, result.metrics["ap50"], result.metrics["ap75"]


def check_equal(stock: Turn, ours: Turn) -> None:
    """All APs of all seeds, to the decimals that stock gives."""
    for seed, expected in stock.scores.items():
        found = tuple(round(value, 3) for value in ours.scores[seed])
        if found != expected:
            raise SystemExit(f"seed {seed}: stock has the APs {expected}, ours are {found}")


def measure(detector: str, steps: int, repeats: int, slots: int, trials: int) -> dict[str, Any]:
    """All figures, as JSON."""
    start = start_cost()
    turns: dict[str, list[Turn]] = {side: [] for side in SIDES}
    for repeat in range(repeats):
        seeds = range(repeat * trials, (repeat + 1) * trials)
        specs = [trial(detector, seed, steps) for seed in seeds]
        turns["stock"].append(stock_turn(detector, specs, slots))
        for side in SIDES[1:]:
            own = [replace(spec, precision=side) for spec in specs]
            turns[side].append(our_turn(own, slots, start))
        check_equal(turns["stock"][-1], turns["float32"][-1])
        print(f"repeat {repeat + 1} of {repeats} done", file=sys.stderr)
    return {
        "detector": detector, "steps": steps, "batch_size": BATCH, "slots": slots,
        "trials_a_repeat": trials, "start_seconds": start.wall,
        "sides": {side: side_figures(turns[side], turns["stock"]) for side in SIDES},
    }  # fmt: skip


def side_figures(own: Sequence[Turn], stock: Sequence[Turn]) -> dict[str, Any]:
    """Of one side: seconds a trial, ratios to stock by repeat, phases of its trials."""
    results = [result for turn in own for result in turn.results]
    phases = {
        name: statistics.median(result.seconds[name] for result in results)
        for name in ("setup", "train", "evaluate")
        if results
    }
    pairs = list(zip(own, stock, strict=True))
    return {
        "wall_seconds": [turn.cost.wall for turn in own],
        "cpu_seconds": [turn.cost.cpu for turn in own],
        "wall_ratios": [other.cost.wall / turn.cost.wall for turn, other in pairs],
        "cpu_ratios": [other.cost.cpu / turn.cost.cpu for turn, other in pairs],
        "phases": phases,
        "mean_ap": statistics.mean(s[0] for turn in own for s in turn.scores.values()),
    }


def show(found: dict[str, Any]) -> None:
    """The table."""
    print(
        f"digits/{found['detector']}, {found['steps']} steps of batch {found['batch_size']}, "
        f"{found['slots']} slots of one thread; medians (and range) of the repeats"
    )
    print(f"{'':10s}{'trials/h':>9s}{'s/trial':>9s}{'CPU s':>8s}   times stock       by CPU time")
    for side, figures in found["sides"].items():
        wall = statistics.median(figures["wall_seconds"])
        line = f"{side:10s}{3600 * found['slots'] / wall:9.0f}{wall:9.2f}"
        line += f"{statistics.median(figures['cpu_seconds']):8.2f}"
        for name in ("wall_ratios", "cpu_ratios"):
            ratios = figures[name]
            line += f"   {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        print(line + f"   mean AP {100 * figures['mean_ap']:.2f}")
    for side, figures in found["sides"].items():
        if figures["phases"]:
            phases = ", ".join(f"{name} {value:.2f} s" for name, value in figures["phases"].items())
            print(f"{side}: {phases} a trial; {found['start_seconds']:.1f} s to start a process")
    print("float32 and stock have equal APs for every seed")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    detectors = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))
    parser.add_argument("--detector", choices=detectors, default="atss")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--trials", type=int, default=2, help="of each side, in each repeat")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = measure(given.detector, given.steps, given.repeats, given.slots, given.trials)
    if given.json:
        print(json.dumps(found))
    else:
        show(found)


if __name__ == "__main__":
    main()
