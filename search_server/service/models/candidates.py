"""One candidate, its trials and its ancestors, as the API answers with them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import Field

from search_server.service.candidate_view import CandidateView, curves_of
from search_server.service.models.base import AP, Answer, Shown
from search_server.service.models.rows import FromRecord, LeaderboardItem, row_fields
from search_server.store import TrialRecord
from search_server.store.records import Origin, Stage, TrialState

MOST_POINTS = 1000


class TrialItem(FromRecord):
    """One training run."""

    stage: Stage
    seed: int
    state: TrialState
    reason: Shown
    fitness: AP | None
    metrics: dict[str, AP] = Field(examples=[{"ap50": 0.71, "ap75": 0.44}])
    rungs: dict[int, AP] = Field(description="steps -> AP that it had then")
    steps: int | None
    batch_size: int | None = Field(
        description="where memory did not suffice for the spec's; else null"
    )
    reused_from: str | None
    seconds: dict[str, float] = Field(examples=[{"train": 14.2, "total": 21.9}])
    started_at: datetime | None
    finished_at: datetime | None


class AncestorItem(FromRecord):
    """A candidate that this one descends from."""

    index: int = Field(ge=0)
    generation: int = Field(ge=1, description="1: a parent")
    origin: Origin
    parents: list[int]
    name: str | None
    fitness: AP | None
    cls: str | None
    bbox: str | None


class CandidateDetail(LeaderboardItem):
    """One candidate in full."""

    definition: dict[str, Any] = Field(description="the loss definition")
    calibration: dict[str, float] | None = Field(
        description="branch -> factor that its loss was multiplied by"
    )
    parents: list[int] = Field(description="indices of the candidates it was made from")
    trials: list[TrialItem]
    ancestors: list[AncestorItem] = Field(description="breadth first")
    ancestors_complete: bool = Field(description="false where there are more than are shown")


class TrialCurves(Answer):
    """The curves of one training run; values at equal positions belong together."""

    stage: Stage
    seed: int
    state: TrialState
    curves: dict[str, list[float | None]] = Field(
        description="name -> values; null: not finite",
        examples=[{"step": [2, 4], "loss": [1.9, 1.7]}],
    )


class CandidateCurves(Answer):
    """The training curves of a candidate."""

    job: str
    index: int
    trials: list[TrialCurves]


def candidate_detail(view: CandidateView) -> CandidateDetail:
    """A candidate in full."""
    record = view.record
    return CandidateDetail(
        **row_fields(view.row),
        definition=record.definition,
        calibration=None if record.calibration is None else dict(record.calibration),
        parents=list(record.parents),
        trials=[TrialItem.model_validate(trial) for trial in view.trials],
        ancestors=[AncestorItem.model_validate(each) for each in view.lineage.ancestors],
        ancestors_complete=view.lineage.whole,
    )


def candidate_curves(job: str, index: int, trials: Sequence[TrialRecord]) -> CandidateCurves:
    """The curves of trials, at most `MOST_POINTS` of each."""
    found = [
        TrialCurves(stage=trial.stage, seed=trial.seed, state=trial.state, curves=dict(curves))
        for trial, curves in curves_of(trials, MOST_POINTS)
    ]
    return CandidateCurves(job=job, index=index, trials=found)
