"""Which losses the table holds: made once from the spec and a seed, then frozen in a file."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from search_server.errors import JobError

FORMAT = 1
PLAN_FILE = "plan.json.gz"


@dataclass(frozen=True)
class PlannedLoss:
    """One loss of the table.

    Attributes:
        id: ten hex digits of its group and definition.
        group: name of the group in the spec, that is, which detector.
        kind: subspace, pair, random, evolved, rejected, named or tuned.
        way: how its expressions were made: `hand-made`, `random`, `mutation`, `crossover`, two of
            them joined by ` + ` for cls and bbox; `catalogue` and `grid` for the last two kinds.
        name: of the hand-made parts, or the expressions; for people.
        definition: the loss as JSON, calibrated where the spec says so.
        accepted: whether verification accepts every expression; None where there is none.
        condition: by which a rejected one fails, and `branch`, the branch in which.
        pair: places of its expressions in the sub-space; None outside.
    """

    id: str
    group: str
    kind: str
    way: str
    name: str
    definition: Mapping[str, Any] = field(hash=False)
    accepted: bool | None = None
    condition: str | None = None
    branch: str | None = None
    pair: tuple[int, int] | None = None


@dataclass(frozen=True)
class DrawCount:
    """How often verification accepted and rejected what was drawn for the table.

    Attributes:
        conditions: draws rejected, by condition.
    """

    group: str
    branch: str
    way: str
    draws: int
    accepted: int
    conditions: Mapping[str, int] = field(hash=False)


@dataclass(frozen=True)
class TablePlan:
    """The losses of a table, and how they came about.

    Attributes:
        spec: the spec as plain data.
        losses: every loss once, in the order of the spec's groups and of their making.
        draws: see `DrawCount`.
        pools: group -> branch -> expressions of the closed sub-space, in the order of `pair`.
        baselines: group -> id of the loss that stands for the detector's own.
    """

    spec: Mapping[str, Any] = field(hash=False)
    seed: int
    losses: tuple[PlannedLoss, ...]
    draws: tuple[DrawCount, ...]
    pools: Mapping[str, Mapping[str, tuple[str, ...]]] = field(hash=False)
    baselines: Mapping[str, str] = field(hash=False)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; `from_json` gives an equal plan back."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TablePlan:
        """The plan that `to_json` wrote.

        Raises:
            JobError: it is of another format.
        """
        if data.get("format") != FORMAT:
            raise JobError(f"a plan of format {data.get('format')!r}; this version reads {FORMAT}")
        losses = tuple(
            PlannedLoss(**{**each, "pair": None if each["pair"] is None else tuple(each["pair"])})
            for each in data["losses"]
        )
        pools = {
            group: {branch: tuple(texts) for branch, texts in pool.items()}
            for group, pool in data["pools"].items()
        }
        draws = tuple(DrawCount(**each) for each in data["draws"])
        return cls(data["spec"], data["seed"], losses, draws, pools, data["baselines"])


def write_plan(plan: TablePlan, path: Path) -> None:
    """Writes a plan, compressed; the same plan gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plan.to_json(), sort_keys=True, separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def read_plan(path: Path) -> TablePlan:
    """The plan in a file.

    Raises:
        JobError: it cannot be read, or is no plan.
    """
    try:
        return TablePlan.from_json(json.loads(gzip.decompress(path.read_bytes())))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zlib.error) as error:
        raise JobError(f"{path} is no plan of a table: {error}") from error


def ordered(plan: TablePlan, seeds: Sequence[int]) -> list[tuple[int, str, int | None]]:
    """All trials as (place of the loss, stage, seed), in the order in which they are trained.

    Any beginning of the order is a fair sample: the losses of every group and kind are spread
    evenly, the baselines come first, the sub-space is done by two thirds of the first pass. The
    simulation and the first seed of a loss go together; one loss in six gets its other seeds at
    once, for an early measure of the noise, the rest get them in later passes. The seed of a
    simulation is the spec's, given as None.
    """
    places: dict[tuple[str, str], list[int]] = {}
    for place, loss in enumerate(plan.losses):
        places.setdefault((loss.group, loss.kind), []).append(place)
    at: dict[int, float] = {}
    for (group, kind), members in places.items():
        rng = np.random.default_rng([plan.seed, zlib.crc32(f"{group} {kind} order".encode())])
        share = 2 / 3 if kind == "subspace" else 1.0
        for rank, index in enumerate(rng.permutation(len(members))):
            at[members[index]] = (rank + 0.5) / len(members) * share
    first = {plan.baselines[group] for group in plan.baselines}
    for place, loss in enumerate(plan.losses):
        if loss.id in first:
            at[place] = -1.0
    order = sorted(at, key=lambda place: (at[place], place))
    trials: list[tuple[float, int, int, str, int | None]] = []
    for rank, place in enumerate(order):
        trials.append((float(rank), 0, place, "simulate", None))
        for turn, seed in enumerate(seeds):
            later = 0 if rank % 6 == 0 else turn * len(order)
            trials.append((float(rank + later), 1 + turn, place, "proxy", seed))
    return [(place, stage, seed) for _, _, place, stage, seed in sorted(trials, key=_turn)]


def _turn(trial: tuple[float, int, int, str, int | None]) -> tuple[float, int]:
    return trial[:2]
