"""Jobs as the API answers with them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from pydantic import Field

from search_server.overview import JobSummary
from search_server.service.job_view import JobView
from search_server.service.models.base import AP, Answer, Shown
from search_server.store.records import JobState, Stage


class JobItem(Answer):
    """One job in a list."""

    id: str = Field(examples=["digits-atss-1"])
    name: str = Field(examples=["digits-atss"])
    state: JobState
    reason: Shown = Field(description="why it is in its state, for people; often empty")
    detector: str = Field(examples=["digits/atss"])
    candidates: int = Field(ge=0, description="made so far, the baseline not counted")
    trained: int = Field(ge=0, description="candidates with a fitness")
    confirmed_trials: int = Field(ge=0, description="trials of the stage confirm that have ended")
    published_trials: int = Field(ge=0, description="trials on the split test that have ended")
    best: AP | None
    baseline: AP | None
    round: int | None = Field(description="of a policy search, the newest; null elsewhere")
    rounds: int | None = Field(description="of a policy search, how many there will be")
    mean: AP | None = Field(description="AP of a policy search's final mean")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class JobList(Answer):
    """A page of jobs."""

    jobs: list[JobItem]
    next: str | None = Field(description="cursor of the next page; null on the last")


class RunningTrial(Answer):
    """A trial that is under way."""

    candidate: int = Field(ge=0)
    stage: Stage
    seed: int = Field(ge=0)
    started_at: datetime


class Progress(Answer):
    """Where a job stands; the data of the event `progress`."""

    job: str = Field(examples=["digits-atss-1"])
    state: JobState
    reason: Shown
    note: Shown = Field(description="why it does not run, where the service knows; often empty")
    best: AP | None
    baseline: AP | None
    funnel: dict[str, int] = Field(
        description="how far how many came, in this order",
        examples=[{"drawn": 5200, "verified": 32, "trained": 30, "confirm trials": 0}],
    )
    trials: dict[str, dict[str, int]] = Field(
        description="stage -> state -> how many", examples=[{"proxy": {"done": 30, "running": 2}}]
    )
    running: list[RunningTrial]
    seconds_left: float | None = Field(description="estimate; null where there is none")


class JobDetail(JobItem):
    """One job."""

    progress: Progress
    classes: list[str]
    spec: dict[str, Any] = Field(description="the job spec; where its data lies is left out")


def job_item(told: JobSummary) -> JobItem:
    """An item of a list from a summary."""
    return JobItem(**_item(told))


def progress_of(view: JobView) -> Progress:
    """The progress of a job."""
    told = view.summary
    return Progress(
        job=told.id,
        state=cast(JobState, told.state),
        reason=told.reason,
        note=view.note,
        best=told.best,
        baseline=told.baseline,
        funnel=dict(view.funnel),
        trials={stage: dict(states) for stage, states in view.trials.items()},
        running=[
            RunningTrial(
                candidate=each.candidate,
                stage=cast(Stage, each.stage),
                seed=each.seed,
                started_at=each.started_at,
            )
            for each in view.running
        ],
        seconds_left=view.seconds_left,
    )


def job_detail(view: JobView, spec: dict[str, Any]) -> JobDetail:
    """A job in full; `spec` is what may be shown of its spec."""
    return JobDetail(
        **_item(view.summary),
        progress=progress_of(view),
        classes=list(view.classes),
        spec=spec,
    )


def _item(told: JobSummary) -> dict[str, Any]:
    return {
        **{name: getattr(told, name) for name in JobItem.model_fields if hasattr(told, name)},
        "confirmed_trials": told.confirmed,
        "published_trials": told.published,
    }
