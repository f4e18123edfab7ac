"""How well each stage of the funnel ranks the losses that reach it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from search_server.rank_correlation import Correlation, spearman
from search_server.table.contents import Table, TableLoss
from search_server.table.replay_policies import elsewhere

_RESAMPLES = 500
FEWEST = 8  # losses, for a correlation that says anything
CONTENDER = 0.8  # share of the baseline's AP from which on a loss is one

Reading = Callable[[TableLoss, int], float | None]


@dataclass(frozen=True)
class RankRow:
    """How one reading ranks losses.

    Attributes:
        reading: `simulate`, `rung 40`, ..., `final`.
        cost: steps of it, weighted by their batches, as a share of a whole trial.
        every: over all losses that verification accepts.
        contenders: over those of them that reach `CONTENDER` of the baseline's AP: the ones that a
            search has to tell apart at its end.
    """

    reading: str
    cost: float
    every: Correlation | None
    contenders: Correlation | None


def replay_ranking(table: Table, group: str) -> list[RankRow]:
    """Spearman's correlation of every reading with the final AP of *other* seeds.

    So noise that a reading shares with the final AP of its own seed does not count. The simulation
    has a seed too; as long as few losses have another one, it is compared with that.
    Correlations are means over the seeds, intervals come from drawing losses with replacement.
    """
    spec = table.spec
    sound = [loss for loss in table.trained(group) if not loss.rejected]
    own = table.baseline(group).mean()
    near = [loss for loss in sound if own and (loss.mean() or 0.0) >= CONTENDER * own]
    small = spec["simulate"]
    cost = small["steps"] * small["batch_size"] / (spec["steps"] * spec["batch_size"])
    rows = [
        RankRow(
            "simulate",
            cost,
            _of_score(sound, small["seed"]),
            _of_score(near, small["seed"]),
        )
    ]
    for rung in table.rungs:
        read = _rung(rung)
        rows.append(RankRow(f"rung {rung}", rung / table.steps, _of(read, sound), _of(read, near)))
    rows.append(RankRow("final", 1.0, _of(_final, sound), _of(_final, near)))
    return rows


def _rung(step: int) -> Reading:
    return lambda loss, seed: loss.readings[seed].rungs[step] if seed in loss.readings else None


def _final(loss: TableLoss, seed: int) -> float | None:
    return loss.readings[seed].ap if seed in loss.readings else None


def _of_score(losses: Sequence[TableLoss], own: int) -> Correlation | None:
    """The simulation, whose seed is `own`, against the mean of the other seeds."""
    scored = [loss for loss in losses if loss.score is not None]
    able = [loss for loss in scored if set(loss.readings) - {own}]
    chosen = able if 2 * len(able) > len(scored) else scored
    pairs = [(loss.score, elsewhere(loss, own)) for loss in chosen]
    return _correlated([np.array(pairs, float).reshape(-1, 2)])


def _of(read: Reading, losses: Sequence[TableLoss]) -> Correlation | None:
    """Seed by seed against the mean of the others."""
    able = [loss for loss in losses if len(loss.readings) > 1]
    seeds = sorted({seed for loss in able for seed in loss.readings})
    able = [loss for loss in able if len(loss.readings) == len(seeds)]
    tables = []
    for seed in seeds:
        rows = [
            (
                read(loss, seed),
                np.mean([each.ap for other, each in loss.readings.items() if other != seed]),
            )
            for loss in able
        ]
        tables.append(np.array(rows, float).reshape(-1, 2))
    return _correlated(tables)


def _correlated(tables: Sequence[np.ndarray]) -> Correlation | None:
    """Mean of the correlations of tables `(N, 2)` whose rows are the same losses."""
    values = [spearman(table[:, 0], table[:, 1]) for table in tables]  # type: ignore[arg-type]
    found = [value for value in values if value is not None]
    if not found or len(found) < len(values) or len(tables[0]) < FEWEST:
        return None
    rng = np.random.default_rng(0)
    count = len(tables[0])
    drawn = np.empty(_RESAMPLES)
    for turn in range(_RESAMPLES):
        pick = rng.integers(count, size=count)
        drawn[turn] = np.mean([spearman(table[pick, 0], table[pick, 1]) or 0.0 for table in tables])
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Correlation(float(np.mean(found)), float(low), float(high), count)
