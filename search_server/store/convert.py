"""Between rows and records; what goes into a row is made finite and storable here."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from search_server.store import models
from search_server.store.records import (
    METRICS,
    PHASES,
    CandidateRecord,
    CandidateState,
    DrawRecord,
    JobRecord,
    JobState,
    NoiseFloor,
    Origin,
    Stage,
    SubmissionRecord,
    TrialRecord,
    TrialState,
)

if TYPE_CHECKING:
    from workers import TrialResult


def finite(value: float | None) -> float | None:
    """The number, or None for one that is not finite: SQL knows no NaN."""
    return float(value) if value is not None and math.isfinite(value) else None


def plain(text: str) -> str:
    """Text without what PostgreSQL cannot hold: NUL characters and lone surrogates."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


def storable(value: Any) -> Any:
    """JSON data with every number finite (else None) and every text storable, tuples as lists."""
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, Mapping):
        return {plain(str(key)): storable(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [storable(item) for item in value]
    return value


def slug_of(name: str) -> str:
    """Lower-case letters, digits and dashes, 1 to 40 characters: safe in paths, URLs and shells."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")
    return slug or "job"


def key_hash(key: str) -> str:
    """SHA-256 of a candidate's key, hex."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def job_record(row: models.Job) -> JobRecord:
    """A row of `jobs`."""
    return JobRecord(
        id=row.id,
        name=row.name,
        state=cast(JobState, row.state),
        reason=row.reason,
        spec=row.spec,
        detector=row.detector,
        classes=tuple(row.classes),
        trial_group=row.trial_group,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        owner=row.owner,
    )


def submission_record(row: models.Submission) -> SubmissionRecord:
    """A row of `submissions`."""
    return SubmissionRecord(row.job_id, row.attempt, row.submission_id, row.address, row.created_at)


def candidate_row(job_id: str, record: CandidateRecord) -> dict[str, Any]:
    """A record as the columns of `candidates`, without `created_at`."""
    return {
        "job_id": job_id,
        "index": record.index,
        "origin": record.origin,
        "parents": list(record.parents),
        "definition": storable(record.definition),
        "key": plain(record.key),
        "key_hash": key_hash(record.key),
        "name": None if record.name is None else plain(record.name),
        "cls_text": None if record.cls_text is None else plain(record.cls_text),
        "bbox_text": None if record.bbox_text is None else plain(record.bbox_text),
        "size": record.size,
        "stage": record.stage,
        "state": record.state,
        "simulate_score": finite(record.simulate_score),
        "fitness": finite(record.fitness),
        "reason": plain(record.reason),
        "calibration": None if record.calibration is None else dict(record.calibration),
        "loss_id": record.loss_id,
    }


def candidate_record(row: models.Candidate) -> CandidateRecord:
    """A row of `candidates`."""
    return CandidateRecord(
        index=row.index,
        origin=cast(Origin, row.origin),
        parents=tuple(row.parents),
        definition=row.definition,
        key=row.key,
        name=row.name,
        cls_text=row.cls_text,
        bbox_text=row.bbox_text,
        size=row.size,
        stage=cast(Stage, row.stage),
        state=cast(CandidateState, row.state),
        simulate_score=row.simulate_score,
        fitness=row.fitness,
        reason=row.reason,
        calibration=row.calibration,
        loss_id=row.loss_id,
    )


def result_columns(result: TrialResult) -> dict[str, Any]:
    """A trial's result as columns of `trials`, without state and times of day."""
    columns: dict[str, Any] = {
        "reason": plain(result.reason),
        "fitness": finite(result.fitness),
        "steps": result.steps,
        "batch_size": result.batch_size,
        "curves": storable(result.curves),
        "rungs": rung_columns(result.rungs),
        "versions": storable(result.versions),
        "log": plain(result.log) or None,
    }
    columns |= {name: finite(result.metrics.get(name)) for name in METRICS}
    columns |= {f"seconds_{phase}": finite(result.seconds.get(phase)) for phase in PHASES}
    return columns


def rung_columns(rungs: Mapping[int, float]) -> dict[str, float] | None:
    """AP by steps as JSON, whose names are texts; None for none."""
    return {str(step): float(value) for step, value in sorted(rungs.items())} or None


def rungs_of(row: models.Trial) -> dict[int, float]:
    """AP by steps of a row."""
    return {int(step): value for step, value in (row.rungs or {}).items()}


def trial_record(row: models.Trial, curves: bool) -> TrialRecord:
    """A row of `trials`; without its curves where they were not loaded."""
    metrics = {name: getattr(row, name) for name in METRICS}
    seconds = {phase: getattr(row, f"seconds_{phase}") for phase in PHASES}
    return TrialRecord(
        candidate=row.candidate,
        stage=cast(Stage, row.stage),
        seed=row.seed,
        state=cast(TrialState, row.state),
        spec_key=row.spec_key,
        fitness=row.fitness,
        metrics={name: value for name, value in metrics.items() if value is not None},
        curves=(row.curves or {}) if curves else {},
        seconds={phase: value for phase, value in seconds.items() if value is not None},
        reason=row.reason,
        steps=row.steps,
        versions=row.versions or {},
        log=row.log or "",
        started_at=row.started_at,
        finished_at=row.finished_at,
        rungs=rungs_of(row),
        reused_from=row.reused_from,
        batch_size=row.batch_size,
    )


def noise_floor_record(row: models.NoiseFloor) -> NoiseFloor:
    """A row of `noise_floors`."""
    return NoiseFloor(
        trial_group=row.trial_group,
        seeds=row.seeds,
        mean=row.mean,
        sd_single=row.sd_single,
        sd_paired=row.sd_paired,
        freedom=row.freedom,
        losses=row.losses,
        created_at=row.created_at,
    )


def draw_record(row: models.Draw) -> DrawRecord:
    """A row of `draws`."""
    return DrawRecord(row.candidate, row.origin, row.text, row.outcome)
