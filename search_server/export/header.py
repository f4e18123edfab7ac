"""The comment at the top of an export: what it is, how good it was, and how to train it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from losses import LossDefinition, RankingBranch
from search_server.formulas import branch_texts
from search_server.seed_statistics import Spread, by_seed, paired_difference, spread

if TYPE_CHECKING:
    from search_server.store import CandidateRecord, JobRecord, TrialRecord
    from workers import TrialSpec


@dataclass(frozen=True)
class Evidence:
    """What a job knows about an exported definition.

    Attributes:
        candidate: None for a definition that the job has not trained.
        fitness: AP by seed of its proxy trials that ended.
        baseline: AP by seed of the baseline's.
        versions: of the packages it was trained with.
        same_key: whether the trial is, key by key, one that was recorded.
        precision: of the layers in that trial; the exported config may have another.
        processes: that trained it together; the exported config is for one.
    """

    job: JobRecord
    candidate: CandidateRecord | None
    fitness: Mapping[int, float]
    baseline: Mapping[int, float]
    versions: Mapping[str, str]
    same_key: bool
    precision: str = "float32"
    processes: int = 1


def evidence(
    job: JobRecord,
    candidate: CandidateRecord | None,
    trials: list[TrialRecord],
    spec: TrialSpec,
) -> Evidence:
    """Gathers it from the job's rows; ``spec`` is the trial as the job has it."""
    own = [t for t in trials if candidate is not None and t.candidate == candidate.index]
    done = [t for t in own if t.stage == "proxy" and t.state == "done"]
    return Evidence(
        job=job,
        candidate=candidate,
        fitness=by_seed(own, candidate.index) if candidate is not None else {},
        baseline=by_seed(trials, 0),
        versions=done[0].versions if done else {},
        same_key=any(t.spec_key == spec.key for t in done),
        precision=spec.precision,
        processes=spec.processes,
    )


def header(facts: Evidence, spec: TrialSpec, path: Path, module: str | None) -> list[str]:
    """The lines of the comment, not yet escaped.

    Args:
        path: where the config will lie.
        module: name of the loss module beside it, for a standalone export.
    """
    return [
        "An object detector with a searched loss, exported by Lossforge.",
        "",
        *_result(facts),
        *_setting(facts, spec),
        "",
        _what_is_searched(LossDefinition.from_json(spec.definition)),
        "",
        *_usage(spec, path, module),
        "",
    ]


def _result(facts: Evidence) -> list[str]:
    candidate = facts.candidate
    if candidate is None:
        return [_line("candidate", "none: a named loss that this job has not trained")]
    lines = [
        _line("candidate", f"{facts.job.id}:{candidate.index} ({candidate.origin})"),
        _line("job", json.dumps(facts.job.name)),
        _line("fitness", f"AP {_points(spread(facts.fitness))} on the validation split"),
        _line("by seed", ", ".join(f"{s}: {v!r}" for s, v in sorted(facts.fitness.items()))),
    ]
    if not facts.baseline:
        return [*lines, _line("baseline", "not trained")]
    difference = paired_difference(facts.fitness, facts.baseline)
    lines.append(_line("baseline", f"AP {_points(spread(facts.baseline))}"))
    if candidate.index != 0 and difference.seeds:
        lines.append(_line("difference", f"AP {_points(difference, signed=True)}, paired by seed"))
    return lines


def _setting(facts: Evidence, spec: TrialSpec) -> list[str]:
    definition = LossDefinition.from_json(spec.definition)
    texts = branch_texts(definition)
    versions = ", ".join(f"{name} {value}" for name, value in sorted(facts.versions.items()))
    lines = [
        _line("loss name", json.dumps(definition.name)),
        *(_line(f"{branch} loss", json.dumps(text)) for branch, text in texts.items()),
        _line("iou center", "yes" if definition.iou_centerness else "no"),
        *_learning_rate(definition),
        _line("data", json.dumps([spec.train.annotations, spec.train.images])),
        _line("validation", json.dumps([spec.evaluate.annotations, spec.evaluate.images])),
        _line("detector", json.dumps(_detector_name(facts.job.spec))),
        _line("training", f"{spec.steps} steps of batch {spec.batch_size}, seed {spec.seed}"),
        _line("versions", json.dumps(versions) if versions else "not recorded"),
    ]
    if facts.precision != spec.precision:
        searched, here = facts.precision, spec.precision
        lines.append(_line("precision", f"the search trained in {searched}, this trains in {here}"))
    if facts.processes > 1:
        count = facts.processes
        text = f"the search trained in {count}, each with its part of a batch; this is for one"
        lines.append(_line("processes", text))
    if facts.candidate is not None and not facts.same_key:
        lines.append(_line("note", "this version would train it differently than it was recorded"))
    return lines


def _learning_rate(definition: LossDefinition) -> list[str]:
    factor = definition.learning_rate_scale
    return [] if factor == 1.0 else [_line("lr scale", f"{factor:g}: the lr below has it")]


def _what_is_searched(definition: LossDefinition) -> str:
    if definition.rpn is not None or isinstance(definition.cls, RankingBranch):
        return "The loss ranks the scores of a whole batch; nothing is sampled before it."
    return "Searched is the loss of one sample; mmdet samples, weights, reduces and scales as ever."


def _usage(spec: TrialSpec, path: Path, module: str | None) -> list[str]:
    """The lines that tell how to train it, and what to change for something else."""
    file = shlex.quote(path.name)
    first = f"export OMP_NUM_THREADS={spec.threads}"
    if spec.device == "cpu":
        first += " CUDA_VISIBLE_DEVICES="  # as its trial had it: no GPU to be seen
    code = (
        "import sys; from mmengine.config import Config; from mmengine.runner import Runner; "
        "Runner.from_cfg(Config.fromfile(sys.argv[1])).train()"
    )
    if module is None:
        intro = "Train it with plain mmengine where Lossforge is installed, in the file's folder:"
        command = f'python -P -c "{code}" {file}'
    else:
        intro = f"Train it with plain mmengine, beside {module}.py, in the folder of both:"
        command = f'PYTHONPATH="$PWD" python -P -c "{code}" {file}'
    return [
        intro,
        f"  {first}",
        f"  {command}",
        "Names that mmengine does not know (train_pipeline, data_root, ...) are left from your own",
        "config and steer nothing here: what counts is what stands in the parts that it does know.",
        "Other data: change ann_file, data_prefix and metainfo of the data sets, ann_file of the",
        "evaluators, and num_classes of the heads. Longer: train_cfg.max_iters, val_interval and",
        "param_scheduler. Nothing is saved or drawn: default_hooks.checkpoint and visualizer.",
    ]


def _detector_name(spec: Mapping[str, Any]) -> str:
    return str(spec.get("detector", "not recorded"))


def _line(name: str, text: str) -> str:
    return f"{name + ':':<12}{text}"


def _points(value: Spread, *, signed: bool = False) -> str:
    """Points of AP in ASCII, with the seeds: ``47.1 +- 0.8 over 3 seeds (1, 2, 3)``."""
    text = value.text(signed=signed).replace("±", "+-")
    seeds = ", ".join(map(str, value.seeds))
    return f"{text} over {value.count} seed{'' if value.count == 1 else 's'} ({seeds})"
