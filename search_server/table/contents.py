"""The table itself, as those who analyse it read it: losses, trials, and how they were drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_server.table.log import TableKey, TableTrial
from search_server.table.plan import DrawCount, PlannedLoss, TablePlan


@dataclass(frozen=True)
class Reading:
    """One trial at the table's budget.

    Attributes:
        ap: final AP in [0, 1]; 0 where the training diverged.
        rungs: AP by step, for every rung; 0 after a divergence.
        share: of the budget's steps that were taken.
        status: done or diverged.
        seconds: of the whole trial.
    """

    ap: float
    rungs: Mapping[int, float] = field(hash=False)
    share: float
    status: str
    seconds: float


@dataclass(frozen=True)
class TableLoss:
    """One loss with its trials.

    Attributes:
        plan: what it is, see `PlannedLoss`.
        cls, bbox: expression or a word for a stock loss; empty: the detector's own.
        size: nodes of its expressions.
        score: AP of its simulation, 0 where it diverged; None: not simulated.
        readings: by seed.
    """

    plan: PlannedLoss
    cls: str
    bbox: str
    size: int
    score: float | None
    readings: Mapping[int, Reading] = field(hash=False)

    @property
    def id(self) -> str:
        """The id in the plan."""
        return self.plan.id

    @property
    def rejected(self) -> bool:
        """Whether verification rejects it."""
        return self.plan.accepted is False

    def mean(self) -> float | None:
        """Mean final AP over its seeds; None without any."""
        values = [reading.ap for reading in self.readings.values()]
        return sum(values) / len(values) if values else None


@dataclass(frozen=True)
class Table:
    """A table of trained losses.

    Attributes:
        spec: the fixed budget and all else of the spec, as plain data; see `TableSpec`.
        losses: all that were planned, trained or not.
        draws: how often verification accepted what was drawn.
        pools: group -> branch -> expressions of the closed sub-space.
        baselines: group -> id of the loss that stands for the detector's own.
    """

    name: str
    spec: Mapping[str, Any] = field(hash=False)
    losses: tuple[TableLoss, ...]
    draws: tuple[DrawCount, ...]
    pools: Mapping[str, Mapping[str, tuple[str, ...]]] = field(hash=False)
    baselines: Mapping[str, str] = field(hash=False)

    @property
    def groups(self) -> tuple[str, ...]:
        """The detectors of the table, by the names of the spec."""
        return tuple(self.spec["groups"])

    @property
    def steps(self) -> int:
        """Training steps of a trial."""
        return int(self.spec["steps"])

    @property
    def rungs(self) -> tuple[int, ...]:
        """Steps after which the AP was measured too."""
        return tuple(self.spec["rungs"])

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the trials."""
        return tuple(self.spec["seeds"])

    def trained(self, group: str, *, seeds: int = 1) -> list[TableLoss]:
        """The losses of a group with at least so many readings, in the order of the plan."""
        return [
            loss for loss in self.losses if loss.plan.group == group and len(loss.readings) >= seeds
        ]

    def baseline(self, group: str) -> TableLoss:
        """The loss that stands for the detector's own."""
        return self._by_id[self.baselines[group]]

    @cached_property
    def _by_id(self) -> dict[str, TableLoss]:
        return {loss.id: loss for loss in self.losses}

    def share_of(self, rung: int | None) -> float:
        """What part of a trial's steps a rung is; None is the end."""
        return 1.0 if rung is None else rung / self.steps

    @cached_property
    def counted(self) -> dict[str, int]:
        """How much of the table there is: losses planned and trained, trials planned and ended."""
        ended = sum(len(loss.readings) + (loss.score is not None) for loss in self.losses)
        return {
            "losses": len(self.losses),
            "trained": sum(bool(loss.readings) for loss in self.losses),
            "trials": len(self.losses) * (1 + len(self.seeds)),
            "ended": ended,
        }

    def noise(self, group: str) -> float | None:
        """Standard deviation of a single AP of a sound loss between seeds, in AP of [0, 1].

        Pooled over the losses that reach half of the baseline's AP; worse ones vary otherwise. None
        where fewer than two losses have two seeds.
        """
        spreads = [
            np.var([reading.ap for reading in loss.readings.values()], ddof=1)
            for loss in self._sound(group)
        ]
        return float(np.sqrt(np.mean(spreads))) if len(spreads) > 1 else None

    def own_noise(self, group: str) -> float | None:
        """The part of the noise that is a loss's own: what is left when the mean effect of a seed,
        which all losses of the seed share, is taken out. A difference of two losses within a seed
        varies by the square root of 2 times it. None where fewer than three losses have all seeds.
        """
        rows = [
            [loss.readings[seed].ap for seed in self.seeds]
            for loss in self._sound(group)
            if len(loss.readings) == len(self.seeds)
        ]
        if len(rows) < 3:
            return None
        values = np.array(rows)
        values = values - values.mean(axis=1, keepdims=True)
        values = values - values.mean(axis=0, keepdims=True)
        freedom = (values.shape[0] - 1) * (values.shape[1] - 1)
        return float(np.sqrt((values**2).sum() / freedom))

    def _sound(self, group: str) -> list[TableLoss]:
        own = self.baseline(group).mean()
        if own is None:
            return []
        return [loss for loss in self.trained(group, seeds=2) if (loss.mean() or 0.0) >= own / 2]


def finals(losses: Sequence[TableLoss]) -> NDArray[np.float64]:
    """Mean final AP of trained losses, `(N,)` in [0, 1]."""
    return np.array([loss.mean() for loss in losses], float)


def table_of(plan: TablePlan, trials: Mapping[TableKey, Sequence[TableTrial]]) -> Table:
    """The table of a plan and the trials that have ended so far."""
    spec = plan.spec
    losses = []
    for loss in plan.losses:
        score = _counted(trials, TableKey(loss.id, "simulate", spec["simulate"]["seed"]))
        found = {seed: _counted(trials, TableKey(loss.id, "proxy", seed)) for seed in spec["seeds"]}
        readings = {
            seed: _reading(trial, spec) for seed, trial in found.items() if trial is not None
        }
        texts, size = _texts(loss.definition)
        losses.append(
            TableLoss(
                loss,
                texts["cls"],
                texts["bbox"],
                size,
                None if score is None else score.ap or 0.0,
                readings,
            )
        )
    return Table(spec["name"], spec, tuple(losses), plan.draws, plan.pools, plan.baselines)


def _counted(trials: Mapping[TableKey, Sequence[TableTrial]], key: TableKey) -> TableTrial | None:
    """The first attempt that says something about the loss."""
    return next((trial for trial in trials.get(key, ()) if trial.counts), None)


def _reading(trial: TableTrial, spec: Mapping[str, Any]) -> Reading:
    rungs = {step: trial.rungs.get(step, 0.0) for step in spec["rungs"]}
    share = min(1.0, trial.last_step / spec["steps"])
    total = trial.seconds.get("total", 0.0) - trial.seconds.get("start", 0.0)
    return Reading(trial.ap or 0.0, rungs, share, trial.status, total)


def _texts(definition: Mapping[str, Any]) -> tuple[dict[str, str], int]:
    """What the branches are, for people, and how many nodes their expressions have."""
    found, size = {}, 0
    for branch in ("cls", "bbox"):
        given = definition.get(branch)
        if given is None:
            found[branch] = ""
        elif given["type"] == "expression":
            found[branch] = given["expression"]
            size += _nodes(given["expression"])
        else:
            inner = given.get("loss", given)
            found[branch] = inner["type"] if isinstance(inner, Mapping) else str(inner)
    return found, size


def _nodes(text: str) -> int:
    """Nodes of an expression in prefix form: every name and number in it is one."""
    return len(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
