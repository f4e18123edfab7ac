"""Trials as a job spec has them, for commands that train without a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from losses import LossDefinition
from search_server.funnel.stages import TrialKey
from search_server.jobs import Job, prepare_job
from search_server.joined_splits import split_named
from search_server.spec import JobSpec
from workers import TrialSpec

SEEDS = 8
#: Above the seeds that `confirm` and `publish` take, so that what is measured here is fresh.
FIRST_SEED = 3000


@dataclass(frozen=True)
class SpecTrials:
    """What commands that train by a spec have to know of it.

    Attributes:
        template: a trial of the stage `confirm`, with no loss and seed 0.
        split: the name of what it is evaluated on.
        baseline: the spec's baseline.
        seeds, top: of `confirm`; where the spec has none, 8 and 1.
    """

    job: Job
    template: TrialSpec
    split: str
    baseline: LossDefinition
    seeds: int
    top: int


def spec_trials(
    spec: JobSpec,
    source: object = "spec",
    *,
    split: str | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    options: Sequence[str] = (),
    average: float | None = None,
) -> SpecTrials:
    """The trials that confirm a spec's candidates, or like these.

    Args:
        source: name of the spec's file, for errors.
        split: what to evaluate on, several joined with ``+``; None: `confirm`, or `search_val`
            where the data have no such.
        steps, batch_size: None: those of the spec.
        options: `key=value` changes of the detector's config, as `train --cfg-options` takes them.
        average: evaluate a running mean of the weights, in which the newest have this weight, by
            mmengine's `EMAHook`; None: the last weights.

    Raises:
        SpecError: see `create_job`.
        JobError: no such split, or an option that the config does not have.
    """
    job = prepare_job(spec, source)
    name = split or ("confirm" if "confirm" in job.splits else "search_val")
    evaluate = split_named(job.splits, name)
    stage = "confirm" if "confirm" in job.splits else "proxy"
    trial = job.trial(TrialKey(0, stage, 0), {})  # type: ignore[arg-type]
    changes = {"steps": steps, "batch_size": batch_size}
    template = replace(
        trial,
        definition={},
        seed=0,
        rungs=(),
        evaluate=evaluate,
        detector=_changed(job.detector, options, average),
        **{field: value for field, value in changes.items() if value is not None},  # type: ignore[arg-type]
    )
    confirm = spec.funnel.confirm
    return SpecTrials(
        job=job,
        template=template,
        split=name,
        baseline=job.baseline,
        seeds=SEEDS if confirm is None else confirm.seeds,
        top=1 if confirm is None else confirm.top,
    )


def _changed(detector: str, options: Sequence[str], average: float | None) -> str:
    """The detector's text with values of its config changed, and its weights averaged."""
    if not options and average is None:
        return detector
    from search_server.config_options import change_config
    from workers.config_text import config_text
    from workers.detector import parse_detector

    config = parse_detector(detector)
    change_config(config, options)
    if average is not None:
        hook = {"type": "EMAHook", "momentum": average, "priority": "ABOVE_NORMAL"}
        config.custom_hooks = [*(config.get("custom_hooks") or []), hook]
    return config_text(config.to_dict())
