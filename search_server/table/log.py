"""The trials of a table as they end: one JSON line each, in a file that outlives every process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from search_server.appended_file import AppendedFile
from search_server.errors import JobError
from workers import TrialResult

LOG_FILE = "trials.jsonl"
_START = '{"loss": "'  # of every line


class TableKey(NamedTuple):
    """Which trial of a table."""

    loss: str
    stage: str
    seed: int


@dataclass(frozen=True)
class TableTrial:
    """How one trial of the table ended.

    Attributes:
        loss: id in the plan.
        stage: simulate or proxy.
        status: done, diverged, timeout or failed.
        ap: final AP in [0, 1]; None unless done.
        rungs: AP by step, of every rung passed.
        last_step: steps taken, to a tenth of the curve's length where it diverged.
        seconds: of training; and of the whole trial.
        weights: first digits of the SHA-256 of the weights that it started from; empty: none.
    """

    loss: str
    stage: str
    seed: int
    status: str
    reason: str
    ap: float | None
    rungs: Mapping[int, float] = field(hash=False)
    metrics: Mapping[str, float] = field(hash=False)
    last_step: int
    seconds: Mapping[str, float] = field(hash=False)
    versions: Mapping[str, str] = field(hash=False)
    weights: str = ""

    @property
    def key(self) -> TableKey:
        """Which trial this is."""
        return TableKey(self.loss, self.stage, self.seed)

    @property
    def counts(self) -> bool:
        """Whether it says something about the loss: one that diverged does, a lost one does not."""
        return self.status in ("done", "diverged")

    @classmethod
    def of(cls, key: TableKey, result: TrialResult, weights: str) -> TableTrial:
        """What the table keeps of a result; curves are left out but for how far they came."""
        steps = result.curves.get("step") or [0.0]
        return cls(
            loss=key.loss,
            stage=key.stage,
            seed=key.seed,
            status=result.status,
            reason=result.reason,
            ap=result.fitness,
            rungs={int(step): value for step, value in result.rungs.items()},
            metrics={name: round(value, 6) for name, value in result.metrics.items()},
            last_step=result.steps if result.status == "done" else int(steps[-1]),
            seconds={name: round(value, 3) for name, value in result.seconds.items()},
            versions=result.versions,
            weights=weights,
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TableTrial:
        """The trial of a line."""
        rungs = {int(step): float(value) for step, value in data["rungs"].items()}
        return cls(**{**data, "rungs": rungs})


class TableLog(AppendedFile):
    """Ended trials by key; one process at a time writes it.

    A line is written in one go and reaches the disk before `add` returns. A last line that was torn
    by a kill is dropped when the file is opened again.

    Raises:
        JobError: another process writes it, or it holds something else.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "another process")
        try:
            self._trials, whole = _parsed(path.read_bytes(), path)
            if whole < path.stat().st_size:
                self.cut(whole)
        except BaseException:
            self.close()
            raise

    @property
    def trials(self) -> Mapping[TableKey, list[TableTrial]]:
        """Every attempt of each trial, the latest last."""
        return self._trials

    def add(self, trial: TableTrial) -> None:
        """Writes down how a trial ended."""
        self.append((json.dumps(asdict(trial), allow_nan=False) + "\n").encode())
        self._trials.setdefault(trial.key, []).append(trial)


def read_log(path: Path) -> dict[TableKey, list[TableTrial]]:
    """The trials in a file that may be written meanwhile.

    Raises:
        JobError: it holds something else.
        OSError: it cannot be read.
    """
    return _parsed(path.read_bytes(), path)[0]


def _parsed(content: bytes, path: Path) -> tuple[dict[TableKey, list[TableTrial]], int]:
    """The trials, and how many bytes their lines take: what follows is a torn line."""
    body, newline, _ = content.rpartition(b"\n")
    found: dict[TableKey, list[TableTrial]] = {}
    for number, line in enumerate(body.split(b"\n") if newline else [], 1):
        try:
            trial = TableTrial.from_json(json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise JobError(f"{path}: line {number} is no trial of a table") from None
        found.setdefault(trial.key, []).append(trial)
    torn = content[len(body) + len(newline) :]
    start = _START.encode()
    if torn and not (torn.startswith(start) or start.startswith(torn)):
        raise JobError(f"{path} is no file of a table's trials")
    return found, len(content) - len(torn)
