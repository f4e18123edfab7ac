"""Trains several losses from the same seeds and says how far apart they are, and how surely.

Trials of one seed differ in the loss alone: same batches, and the same initialisation where the
losses leave the head its layers (a softmax head has an output more than a ranked one, and then
every weight is drawn anew). What is compared is therefore the difference within each seed, which
mostly varies less than the APs themselves.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from losses import LossDefinition, LossesError, apply_loss
from search_server.coco_layout import named_split
from search_server.comparison_file import ComparisonFile
from search_server.errors import JobError
from search_server.executors import Executor
from search_server.funnel.stages import TrialKey
from search_server.paired_statistics import Paired, paired
from search_server.report.statistics import Spread, spread
from workers import Split, TrialResult, TrialSpec
from workers.data import DataError, check_split, digits, read_classes
from workers.detector import parse_detector
from workers.spec import MAX_SEED

PATIENCE = 0.5  # seconds until the stop signal is looked at again
MARGIN = 1  # trials handed out beyond the slots, so that no slot waits
FEWEST_SEEDS = 2  # for an interval


@dataclass(frozen=True)
class Contender:
    """A loss as the tables name it, and what it is."""

    name: str
    definition: LossDefinition


@dataclass(frozen=True)
class Comparison:
    """What is trained and compared.

    Attributes:
        detector: text of the detector's config.
        contenders: at least one, names all different.
        baseline: index of the contender that the others are measured against.
        train, evaluate: what is trained on, what the AP is of.
        seeds: one trial of each contender per seed, at least two.
        time_limit: seconds a trial may take; None: no limit.

    Raises:
        JobError: too few seeds, a seed out of range, or two contenders of one name.
    """

    detector: str
    contenders: tuple[Contender, ...]
    baseline: int
    train: Split
    evaluate: Split
    classes: tuple[str, ...]
    steps: int
    batch_size: int
    seeds: tuple[int, ...]
    device: str = "auto"
    threads: int = 1
    time_limit: float | None = None

    def __post_init__(self) -> None:
        if len(self.seeds) < FEWEST_SEEDS:
            raise JobError(f"{len(self.seeds)} seed gives no interval; at least 2 are needed")
        if max(self.seeds) > MAX_SEED:
            raise JobError(f"seed {max(self.seeds)} is above {MAX_SEED}; lower --first-seed")
        names = [each.name for each in self.contenders]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise JobError(f"{twice!a} is given twice; each loss has to be there once")

    def trial(self, contender: int, seed: int) -> TrialSpec:
        """One trial."""
        return TrialSpec(
            detector=self.detector,
            definition=self.contenders[contender].definition.to_json(),
            train=self.train,
            evaluate=self.evaluate,
            seed=seed,
            steps=self.steps,
            batch_size=self.batch_size,
            classes=self.classes,
            device=self.device,
            threads=self.threads,
            time_limit=self.time_limit,
        )

    def trials(self) -> Iterator[tuple[int, int]]:
        """Contender and seed of every trial, seed by seed: what is there early is balanced."""
        for seed in self.seeds:
            for contender in range(len(self.contenders)):
                yield contender, seed

    def check(self) -> None:
        """Finds out what can be known before the first trial.

        Raises:
            JobError: a loss does not fit the detector.
            DetectorError: the detector is none.
        """
        config = parse_detector(self.detector)
        for each in self.contenders:
            try:
                apply_loss(config, each.definition)
            except LossesError as error:
                raise JobError(f"{each.name}: {error}") from error


@dataclass(frozen=True)
class Ended:
    """A trial that has just ended, and how far the comparison is.

    Attributes:
        done, of: trials that have ended, those of earlier runs included; all trials.
        seconds_left: None before it can be told.
    """

    name: str
    seed: int
    result: TrialResult
    done: int
    of: int
    seconds_left: float | None


@dataclass(frozen=True)
class Row:
    """One loss in the table.

    Attributes:
        spread: of the AP over the seeds that count; a diverged training counts as AP 0.
        difference: to the baseline; None for the baseline itself and without a common seed.
        by_seed: AP by seed.
        diverged, failed: seeds whose training diverged; seeds that failed or ran out of time and
            do not count at all.
        missing: seeds that have not been trained.
    """

    name: str
    is_baseline: bool
    spread: Spread
    difference: Paired | None
    by_seed: Mapping[int, float]
    diverged: tuple[int, ...]
    failed: tuple[int, ...]
    missing: tuple[int, ...]


Results = Mapping[tuple[int, int], TrialResult]


@dataclass
class _Run:
    """The trials of a comparison: those that have ended, those that wait, those under way."""

    comparison: Comparison
    file: ComparisonFile | None
    results: dict[tuple[int, int], TrialResult] = field(default_factory=dict)
    specs: dict[str, TrialSpec] = field(default_factory=dict)
    wanted: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    running: dict[TrialKey, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        earlier = {} if self.file is None else self.file.results
        for contender, seed in self.comparison.trials():
            spec = self.comparison.trial(contender, seed)
            key = spec.key
            known = earlier.get(key)
            if known is not None and known.status in ("done", "diverged"):
                self.results[contender, seed] = known
                continue
            if key not in self.specs:  # else the same loss by another name: trained once for both
                self.specs[key] = spec
                self.waiting.append(key)
            self.wanted.setdefault(key, []).append((contender, seed))

    def hand_out(self, executor: Executor) -> None:
        """As many trials as there is room for."""
        while self.waiting and len(self.running) < executor.slots() + MARGIN:
            key = self.waiting.pop(0)
            contender, seed = self.wanted[key][0]
            trial = TrialKey(contender, "proxy", seed)
            self.running[trial] = key
            executor.submit(trial, self.specs[key])

    def finish(self, trial: TrialKey, result: TrialResult) -> None:
        """Writes down how a trial ended."""
        key = self.running.pop(trial)
        name = self.comparison.contenders[trial.candidate].name
        if self.file is not None:
            spec = self.specs[key]
            about = {
                "loss": name,
                "seed": spec.seed,
                "steps": spec.steps,
                "batch_size": spec.batch_size,
                "evaluated": spec.evaluate.annotations,
                "definition": dict(spec.definition),
            }
            self.file.add(spec, result, about)
        for place in self.wanted[key]:
            self.results[place] = result


def run_comparison(
    comparison: Comparison,
    executor: Executor,
    file: ComparisonFile | None = None,
    say: Callable[[Ended], None] | None = None,
    stop: threading.Event | None = None,
) -> Results:
    """Runs all trials that are not in the file yet; their results by contender and seed.

    A trial that is done or has diverged is never run again. One that failed or ran out of time is
    tried again by the next run.

    Args:
        file: where ended trials are kept; None: nowhere.
        say: told of every trial that ends.
        stop: when set, running trials are cancelled, and what has ended is returned.
    """
    run = _Run(comparison, file)
    stop = stop or threading.Event()
    total = len(comparison.seeds) * len(comparison.contenders)
    began, ended = time.monotonic(), 0
    try:
        while (run.waiting or run.running) and not stop.is_set():
            run.hand_out(executor)
            for trial, result in executor.wait(PATIENCE):
                run.finish(trial, result)
                ended += 1
                if say is not None:
                    left = len(run.waiting) + len(run.running)
                    seconds = (time.monotonic() - began) / ended * left
                    name = comparison.contenders[trial.candidate].name
                    say(Ended(name, trial.seed, result, len(run.results), total, seconds))
    finally:
        executor.cancel_all()
    return run.results


def table_rows(comparison: Comparison, results: Results) -> list[Row]:
    """The table: the contenders in their order, each against the baseline."""
    values = [_values(comparison, results, i) for i in range(len(comparison.contenders))]
    rows = []
    for index, contender in enumerate(comparison.contenders):
        ended = {s: results[index, s] for s in comparison.seeds if (index, s) in results}
        base = index == comparison.baseline
        rows.append(
            Row(
                name=contender.name,
                is_baseline=base,
                spread=spread(values[index]),
                difference=None if base else paired(values[index], values[comparison.baseline]),
                by_seed=values[index],
                diverged=tuple(s for s, r in ended.items() if r.status == "diverged"),
                failed=tuple(s for s, r in ended.items() if r.status in ("failed", "timeout")),
                missing=tuple(s for s in comparison.seeds if s not in ended),
            )
        )
    return rows


def _values(comparison: Comparison, results: Results, contender: int) -> dict[int, float]:
    found = {}
    for seed in comparison.seeds:
        result = results.get((contender, seed))
        if result is None or result.status not in ("done", "diverged"):
            continue
        found[seed] = result.fitness if result.fitness is not None else 0.0
    return found


def choose_splits(
    data: str, names: Sequence[str], images: Path | None = None
) -> tuple[list[Split], tuple[str, ...]]:
    """Splits of a data set by name, and the classes of the first.

    Args:
        data: `digits`, or a folder with annotation files in COCO format.
        names: the splits; `instances_val2017.json` is `val2017` too.
        images: folder of the images, or of the splits' folders, where it cannot be told.

    Raises:
        JobError: no such split.
        LayoutError, DataError: the folder or a file cannot be used.
    """
    if data == "digits":
        known = digits().splits
        for name in names:
            if name not in known:
                raise JobError(f"digits has no split {name!a}; it has {', '.join(known)}")
        splits = [known[name] for name in names]
        return splits, read_classes(splits[0].annotations)
    splits = [named_split(Path(data), name, images) for name in names]
    classes = read_classes(splits[0].annotations)
    for name, split in zip(names, splits, strict=True):
        try:
            check_split(split, classes)
        except DataError as error:
            raise JobError(f"the split {name}: {error}") from error
    return splits, classes
