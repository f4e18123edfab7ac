"""The published form of a table: compressed CSV files that any program reads, and a data card."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from search_server.errors import JobError
from search_server.table.contents import Table, table_of
from search_server.table.log import TableKey, TableTrial
from search_server.table.plan import DrawCount, PlannedLoss, TablePlan

LOSSES, TRIALS, DRAWS, ABOUT = "losses.csv.gz", "trials.csv.gz", "draws.csv.gz", "table.json"
FORMAT = 1


def write_table(
    folder: Path, plan: TablePlan, trials: Mapping[TableKey, Sequence[TableTrial]]
) -> Table:
    """Writes a table's files into a folder; the same contents give the same bytes.

    Of a trial that was tried twice both attempts are written.
    """
    table = table_of(plan, trials)
    folder.mkdir(parents=True, exist_ok=True)
    places = {loss.id: place for place, loss in enumerate(plan.losses)}
    every = [trial for attempts in trials.values() for trial in attempts if trial.loss in places]
    every.sort(key=lambda trial: (places[trial.loss], trial.stage, trial.seed))
    versions = sorted({json.dumps(dict(trial.versions), sort_keys=True) for trial in every})
    about = {
        "format": FORMAT,
        "seed": plan.seed,
        "spec": plan.spec,
        "pools": plan.pools,
        "baselines": plan.baselines,
        "versions": [json.loads(text) for text in versions],
    }
    (folder / ABOUT).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")
    _write(folder / LOSSES, (_loss_row(loss, table) for loss in plan.losses))
    rungs = tuple(plan.spec["rungs"])
    _write(folder / TRIALS, (_trial_row(trial, rungs, versions) for trial in every))
    _write(folder / DRAWS, (row for counts in plan.draws for row in _draw_rows(counts)))
    return table


def read_table(folder: Path) -> Table:
    """The table that `write_table` wrote.

    Raises:
        JobError: a file is missing, or is not what it should be.
    """
    try:
        about = json.loads((folder / ABOUT).read_text())
        if about["format"] != FORMAT:
            raise JobError(f"{folder}: format {about['format']!r}; this version reads {FORMAT}")
        versions = about["versions"]
        losses = tuple(_loss(row) for row in _read(folder / LOSSES))
        found: dict[TableKey, list[TableTrial]] = {}
        for row in _read(folder / TRIALS):
            trial = _trial(row, about["spec"]["rungs"], versions)
            found.setdefault(trial.key, []).append(trial)
        pools = {
            group: {branch: tuple(texts) for branch, texts in pool.items()}
            for group, pool in about["pools"].items()
        }
        draws = tuple(_counts(_read(folder / DRAWS)))
        plan = TablePlan(about["spec"], about["seed"], losses, draws, pools, about["baselines"])
        return table_of(plan, found)
    except (OSError, ValueError, KeyError, TypeError, EOFError, IndexError, zlib.error) as error:
        raise JobError(f"{folder} holds no table: {type(error).__name__}: {error}") from error


def _loss_row(loss: PlannedLoss, table: Table) -> dict[str, Any]:
    made = table._by_id[loss.id]
    return {
        "id": loss.id,
        "group": loss.group,
        "kind": loss.kind,
        "way": loss.way,
        "name": loss.name,
        "cls": made.cls,
        "bbox": made.bbox,
        "size": made.size,
        "accepted": _text(loss.accepted),
        "condition": loss.condition or "",
        "branch": loss.branch or "",
        "subspace_cls": "" if loss.pair is None else loss.pair[0],
        "subspace_bbox": "" if loss.pair is None else loss.pair[1],
        "simulate_ap": "" if made.score is None else repr(made.score),
        "mean_ap": "" if (mean := made.mean()) is None else repr(mean),
        "seeds": len(made.readings),
        "definition": json.dumps(loss.definition, sort_keys=True, separators=(",", ":")),
    }


def _loss(row: Mapping[str, str]) -> PlannedLoss:
    pair = None
    if row["subspace_cls"]:
        pair = (int(row["subspace_cls"]), int(row["subspace_bbox"]))
    return PlannedLoss(
        id=row["id"],
        group=row["group"],
        kind=row["kind"],
        way=row["way"],
        name=row["name"],
        definition=json.loads(row["definition"]),
        accepted={"yes": True, "no": False, "": None}[row["accepted"]],
        condition=row["condition"] or None,
        branch=row["branch"] or None,
        pair=pair,
    )


def _trial_row(trial: TableTrial, rungs: Sequence[int], versions: Sequence[str]) -> dict[str, Any]:
    return {
        "loss": trial.loss,
        "stage": trial.stage,
        "seed": trial.seed,
        "status": trial.status,
        "ap": "" if trial.ap is None else repr(trial.ap),
        **{f"ap_{rung}": repr(trial.rungs[rung]) if rung in trial.rungs else "" for rung in rungs},
        "last_step": trial.last_step,
        **{name: trial.metrics.get(name, "") for name in _METRICS},
        **{f"seconds_{name}": trial.seconds.get(name, "") for name in _SECONDS},
        "weights": trial.weights,
        "versions": versions.index(json.dumps(dict(trial.versions), sort_keys=True)),
        # a lost trial's reason is about the machine that lost it, with its paths
        "reason": trial.reason if trial.counts else "",
    }


_METRICS = ("ap50", "ap75", "ap_s", "ap_m", "ap_l")
_SECONDS = ("setup", "train", "evaluate", "start", "total")


def _trial(
    row: Mapping[str, str], rungs: Sequence[int], versions: Sequence[Mapping[str, str]]
) -> TableTrial:
    return TableTrial(
        loss=row["loss"],
        stage=row["stage"],
        seed=int(row["seed"]),
        status=row["status"],
        reason=row["reason"],
        ap=float(row["ap"]) if row["ap"] else None,
        rungs={rung: float(row[f"ap_{rung}"]) for rung in rungs if row[f"ap_{rung}"]},
        metrics={name: float(row[name]) for name in _METRICS if row[name]},
        last_step=int(row["last_step"]),
        seconds={n: float(row[f"seconds_{n}"]) for n in _SECONDS if row[f"seconds_{n}"]},
        versions=versions[int(row["versions"])],
        weights=row["weights"],
    )


def _draw_rows(counts: DrawCount) -> Iterator[dict[str, Any]]:
    """One row for each outcome of drawing in one way."""
    start = {"group": counts.group, "branch": counts.branch, "way": counts.way}
    yield {**start, "outcome": "accepted", "draws": counts.accepted}
    for condition, number in sorted(counts.conditions.items()):
        yield {**start, "outcome": condition, "draws": number}


def _counts(rows: Iterable[Mapping[str, str]]) -> Iterator[DrawCount]:
    found: dict[tuple[str, str, str], dict[str, int]] = {}
    for row in rows:
        place = (row["group"], row["branch"], row["way"])
        found.setdefault(place, {})[row["outcome"]] = int(row["draws"])
    for place, outcomes in found.items():
        total, accepted = sum(outcomes.values()), outcomes.pop("accepted")
        yield DrawCount(*place, total, accepted, outcomes)


def _text(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    writer = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(text, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)
    path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


def _read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(gzip.decompress(path.read_bytes()).decode())))
