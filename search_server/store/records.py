"""What the store hands out: frozen records of jobs, candidates and trials, and their states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

JobState = Literal["created", "running", "interrupted", "done", "failed", "cancelled"]
CandidateState = Literal["open", "dropped", "done", "failed"]
TrialState = Literal["running", "done", "diverged", "timeout", "failed"]
Origin = Literal["baseline", "named", "random", "mutation", "crossover", "policy", "mean"]
Stage = Literal["simulate", "proxy"]

JOB_STATES: tuple[str, ...] = get_args(JobState)
CANDIDATE_STATES: tuple[str, ...] = get_args(CandidateState)
TRIAL_STATES: tuple[str, ...] = get_args(TrialState)
ORIGINS: tuple[str, ...] = get_args(Origin)
STAGES: tuple[str, ...] = get_args(Stage)

METRICS = ("ap50", "ap75", "ap_s", "ap_m", "ap_l")
PHASES = ("start", "setup", "train", "evaluate", "total")


@dataclass(frozen=True)
class JobRecord:
    """One search job.

    Attributes:
        id: `<slug>-<n>`, unique in the store.
        spec: the job spec as plain JSON, as it was submitted.
        detector: text of the detector's config, self-contained.
        classes: class names of the data set, in the order of the annotation file.
        trial_group: key of the job's proxy trials without definition and seed; jobs that share it
            are comparable. Empty when not known.
        reason: why the job is in its state, for people.
    """

    id: str
    name: str
    state: JobState
    reason: str
    spec: dict[str, Any]
    detector: str
    classes: tuple[str, ...]
    trial_group: str
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True)
class CandidateRecord:
    """One loss definition inside a job.

    Attributes:
        index: position in the job; 0 is the baseline.
        parents: indices of the candidates it was made from.
        definition: the loss definition, plain JSON.
        key: canonical identity of the definition, unique in the job.
        cls_text, bbox_text: canonical expression, or summary of a stock loss, for people.
        size: nodes of all its expressions.
        stage: the furthest stage it reached.
        simulate_score: AP of the simulation, in [0, 1].
        fitness: mean AP over the proxy seeds, in [0, 1].
    """

    index: int
    origin: Origin
    parents: tuple[int, ...]
    definition: dict[str, Any]
    key: str
    name: str | None = None
    cls_text: str | None = None
    bbox_text: str | None = None
    size: int = 0
    stage: Stage = "simulate"
    state: CandidateState = "open"
    simulate_score: float | None = None
    fitness: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class TrialRecord:
    """One training run: a candidate, a stage, a seed.

    Attributes:
        spec_key: `TrialSpec.key`, the identity of all that steered the result.
        fitness: COCO box AP in [0, 1].
        metrics: those of ap50, ap75, ap_s, ap_m, ap_l that are known, in [0, 1].
        curves: name to values at equal positions; None stands for a value that was not finite.
        seconds: wall clock by phase: start (of a process, where one was), setup, train, evaluate,
            total.
        log: the last lines of a failed trial, empty for others.
    """

    candidate: int
    stage: Stage
    seed: int
    state: TrialState
    spec_key: str
    fitness: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, list[float | None]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    steps: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    log: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True)
class DrawRecord:
    """One draw of a searcher kept by `--trace`: what was proposed and what became of it."""

    candidate: int
    origin: str
    text: str
    outcome: str
