"""What the store hands out: frozen records of jobs, candidates and trials, and their states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

JobState = Literal["created", "running", "cancelling", "interrupted", "done", "failed", "cancelled"]
CandidateState = Literal["open", "dropped", "done", "failed"]
TrialState = Literal[
    "running", "paused", "done", "diverged", "timeout", "out_of_memory", "failed", "cancelled"
]
Origin = Literal[
    "baseline",
    "named",
    "random",
    "mutation",
    "crossover",
    "policy",
    "mean",
    "rival",
    "refined",
    "tuned",
]
Stage = Literal["simulate", "proxy", "confirm", "test"]  # in their order: later ones cost more

Role = Literal["read", "submit", "admin"]  # each may do what those before it may

JOB_STATES: tuple[str, ...] = get_args(JobState)
CANDIDATE_STATES: tuple[str, ...] = get_args(CandidateState)
TRIAL_STATES: tuple[str, ...] = get_args(TrialState)
ORIGINS: tuple[str, ...] = get_args(Origin)
STAGES: tuple[str, ...] = get_args(Stage)
NOTHING_YET: tuple[TrialState, ...] = ("running", "cancelled")  # it came to nothing, or has not
ROLES: tuple[str, ...] = get_args(Role)

LAST_INDEX = 2**31 - 1  # of a candidate: its column holds no larger number

SAME = "same loss"  # outcome of a draw that is a loss that the job has, written otherwise

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
        owner: the process that runs it; see `owner.mark`.
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
    owner: str | None = None


@dataclass(frozen=True)
class SubmissionRecord:
    """One attempt to run a job on a Ray cluster.

    Attributes:
        attempt: from 1.
        submission_id: Ray's name of it, `JOB-a<attempt>`.
        address: of the cluster's Jobs API, `http://head:8265`.
    """

    job_id: str
    attempt: int
    submission_id: str
    address: str
    created_at: datetime


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
        calibration: branch -> factor that its loss was multiplied by, to have the baseline's
            gradient norm; None: the job does not calibrate, or nothing of it was to be.
        loss_id: row of the table `losses`: equal for candidates of any jobs that are the same loss
            with the same scales; None: not known, as for candidates of earlier versions.
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
    calibration: Mapping[str, float] | None = None
    loss_id: int | None = None


@dataclass(frozen=True)
class TrialRecord:
    """One training run: a candidate, a stage, a seed.

    Attributes:
        spec_key: `TrialSpec.key`, the identity of all that steered the result.
        fitness: COCO box AP in [0, 1].
        rungs: steps -> AP in [0, 1] that it had then.
        batch_size: images a step where memory did not suffice for the spec's; None: the spec's.
        reused_from: `JOB:candidate:stage:seed` of the trial whose result this is; None: it was
            trained itself. Its seconds are unknown then, for none were spent.
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
    rungs: Mapping[int, float] = field(default_factory=dict)
    reused_from: str | None = None
    batch_size: int | None = None


@dataclass(frozen=True)
class Due:
    """A trial that is to start, or to go on.

    Attributes:
        spec_key: `TrialSpec.key`.
        trained_key: what would be trained, hex; None: whether it was before is not asked.
        pause_after: the rung in steps at which this run of the trial is to be paused.
    """

    candidate: int
    stage: Stage
    seed: int
    spec_key: str
    trained_key: str | None = None
    pause_after: int | None = None

    @property
    def place(self) -> tuple[int, Stage, int]:
        """Candidate, stage and seed."""
        return self.candidate, self.stage, self.seed


@dataclass(frozen=True)
class Start:
    """What is to be done with a trial that is due; see `Store.start_trials`.

    Attributes:
        verdict: `train` it; `wait`, for the same trial runs in this store at this moment; or it is
            `reused`: its row has a result already.
        trial: the row with that result; None unless reused.
    """

    verdict: Literal["train", "wait", "reused"]
    trial: TrialRecord | None = None


@dataclass(frozen=True)
class NoiseFloor:
    """How much trials of a trial group vary between seeds.

    Attributes:
        trial_group: see `leaderboard.trial_group`.
        seeds: how many each loss was trained with.
        mean: AP in [0, 1] of the baseline, over its seeds.
        sd_single: standard deviation of single trials of one loss.
        sd_paired: of differences of two losses with equal seeds; None: one loss was trained.
        freedom: degrees of freedom of `sd_paired`, or of `sd_single` where that is all.
        losses: what was trained and measured, plain JSON.
    """

    trial_group: str
    seeds: int
    mean: float
    sd_single: float
    sd_paired: float | None
    freedom: int
    losses: list[dict[str, Any]]
    created_at: datetime | None = None


@dataclass(frozen=True)
class TokenRecord:
    """A key to the service, without its secret."""

    id: int
    name: str
    role: Role
    created_at: datetime
    revoked_at: datetime | None = None


@dataclass(frozen=True)
class RequestRecord:
    """A job that was submitted through the service.

    Attributes:
        key: drawn by who submitted it; None: the job can be asked for by its id alone.
        by: name of the token that it was submitted with; empty without tokens.
        settled: the service has nothing more to do for it.
        tries: controllers that were started so far.
        note: why it does not run, for people; empty if nothing is wrong.
        held_by, held_until: the service that sees to it at the moment, and until when by the
            store's clock it alone may.
    """

    job_id: str
    by: str
    settled: bool
    tries: int
    note: str
    created_at: datetime
    key: str | None = None
    held_by: str | None = None
    held_until: datetime | None = None


@dataclass(frozen=True)
class DrawRecord:
    """One draw of a searcher that was kept: what was proposed and what became of it."""

    candidate: int
    origin: str
    text: str
    outcome: str
