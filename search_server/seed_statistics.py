"""How good a candidate is: mean over its seeds, spread, and difference paired by seed."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol


class Trial(Protocol):
    """What the statistics read of a trial's row."""

    @property
    def candidate(self) -> int: ...
    @property
    def stage(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def state(self) -> str: ...
    @property
    def fitness(self) -> float | None: ...


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of values that are paired with seeds.

    Attributes:
        mean: mean of the values; NaN without any.
        deviation: sample standard deviation, None with fewer than two values.
        seeds: the seeds that took part, ascending.
        low: the smallest value, NaN without any.
        high: the largest value, NaN without any.
    """

    mean: float
    deviation: float | None
    seeds: tuple[int, ...]
    low: float
    high: float

    @property
    def count(self) -> int:
        """How many seeds took part."""
        return len(self.seeds)

    def text(self, *, signed: bool = False) -> str:
        """``47.1 ± 0.8`` in points of AP (x 100); without a deviation just the mean."""
        if not self.seeds:
            return "none"
        mean = f"{100 * self.mean:+.1f}" if signed else f"{100 * self.mean:.1f}"
        return mean if self.deviation is None else f"{mean} ± {100 * self.deviation:.1f}"


def by_seed(trials: Iterable[Trial], candidate: int, stage: str = "proxy") -> dict[int, float]:
    """Fitness by seed of a candidate's ended trials; one that diverged counts as 0."""
    values: dict[int, float] = {}
    for trial in trials:
        if trial.candidate != candidate or trial.stage != stage:
            continue
        if trial.state == "done" and trial.fitness is not None:
            values[trial.seed] = trial.fitness
        elif trial.state == "diverged":
            values[trial.seed] = 0.0
    return values


def spread(values: Mapping[int, float]) -> Spread:
    """Mean and spread of values by seed."""
    seeds = tuple(sorted(values))
    if not seeds:
        return Spread(math.nan, None, (), math.nan, math.nan)
    numbers = [values[seed] for seed in seeds]
    return Spread(fmean(numbers), deviation(numbers), seeds, min(numbers), max(numbers))


def deviation(numbers: Sequence[float]) -> float | None:
    """Sample standard deviation, None of fewer than two; 0.0 exactly where all are equal.

    That of `statistics` is exact to the last bit, by fractions, and takes thirty times as long.
    """
    if len(numbers) < 2:
        return None
    moved = [number - numbers[0] for number in numbers]
    squares = math.fsum([each * each for each in moved]) - math.fsum(moved) ** 2 / len(moved)
    return math.sqrt(max(0.0, squares) / (len(moved) - 1))


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Spread:
    """Candidate minus baseline over the seeds that both have: of one seed the batches are the same,
    and so is the initialisation where both heads have the same layers."""
    return spread({seed: values[seed] - baseline[seed] for seed in values if seed in baseline})
