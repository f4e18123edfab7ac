"""The table of a comparison: each loss against the baseline, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from search_server.comparison import Comparison
from search_server.comparison_run import Results
from search_server.paired_statistics import Paired, holm, paired
from search_server.seed_statistics import Spread, spread
from search_server.shrinkage import shrunken
from workers.result import LOST


@dataclass(frozen=True)
class Row:
    """One loss in the table.

    Attributes:
        spread: of the AP over the seeds that count; a diverged training counts as AP 0.
        difference: to the baseline; None for the baseline itself and without a common seed.
        p: of the difference, two-sided, corrected by Holm for the number of losses beside the
            baseline; None without an interval.
        shrunken: empirical-Bayes estimate of the difference (see `shrinkage.shrunken`); None for
            the baseline and where it cannot be told.
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
    p: float | None = None
    shrunken: float | None = None


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
                failed=tuple(s for s, r in ended.items() if r.status in LOST),
                missing=tuple(s for s in comparison.seeds if s not in ended),
            )
        )
    return _judged(rows, values[comparison.baseline])


def _judged(rows: list[Row], baseline: Mapping[int, float]) -> list[Row]:
    """The rows with what depends on how many they are."""
    others = [index for index, row in enumerate(rows) if row.difference is not None]
    differences = [
        {seed: ap - baseline[seed] for seed, ap in rows[i].by_seed.items() if seed in baseline}
        for i in others
    ]
    for index, estimate in zip(others, shrunken(differences), strict=True):
        rows[index] = replace(rows[index], shrunken=estimate)
    # one without a p value, for want of seeds, is counted all the same
    lacking = 0
    tested: list[tuple[int, float]] = []
    for index, row in enumerate(rows):
        if row.is_baseline:
            continue
        if row.difference is None or row.difference.p is None:
            lacking += 1
        else:
            tested.append((index, row.difference.p))
    corrected = holm([p for _, p in tested] + [1.0] * lacking)
    for (index, _), p in zip(tested, corrected, strict=False):
        rows[index] = replace(rows[index], p=p)
    return rows


def _values(comparison: Comparison, results: Results, contender: int) -> dict[int, float]:
    found = {}
    for seed in comparison.seeds:
        result = results.get((contender, seed))
        if result is None or result.status not in ("done", "diverged"):
            continue
        found[seed] = result.fitness if result.fitness is not None else 0.0
    return found
