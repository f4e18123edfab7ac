"""From a spec to what is searched: template, named losses and baseline as loss definitions."""

from __future__ import annotations

from dataclasses import replace

from losses import CATALOG, LossDefinition
from search_server.searchers import PapSpace, Parameters, Problem
from search_server.spec import ClsSpec, JobSpec, NamedPair


def problem_of(spec: JobSpec) -> Problem:
    """What is searched."""
    fixed = {str(branch): given for branch, given in spec.fixed.items()}
    template = LossDefinition.from_json(
        {"name": "template", "iou_centerness": spec.iou_centerness, **fixed}
    )
    cls = spec.searched.get("cls")
    return Problem(
        spaces={branch: given.search_space for branch, given in spec.searched.items()},
        template=template,
        weights={branch: given.loss_weight for branch, given in spec.searched.items()},
        alpha=cls.alpha if isinstance(cls, ClsSpec) else None,
        named=tuple(_named(spec, given, template) for given in spec.searcher.named),
        alternate=spec.mode == "alternate",
        window=spec.window,
        seed=spec.seed,
        parameters=_parameters(spec),
    )


def baseline_of(spec: JobSpec) -> LossDefinition:
    """Candidate 0. Whatever it is, it follows the job's `iou_centerness`, as all others do."""
    if spec.baseline == "default":
        found = LossDefinition("default")
    elif isinstance(spec.baseline, str):
        found = CATALOG[spec.baseline]
    else:
        found = LossDefinition.from_json({"name": "baseline", **spec.baseline})
    return replace(found, iou_centerness=spec.iou_centerness)


def _parameters(spec: JobSpec) -> Parameters | None:
    """The parameterized branches; None where expressions are searched."""
    spaces = {
        branch: PapSpace(
            given.functions,
            given.points,
            given.gradient_scale,
            given.overlap,
            given.num_topk,
            given.loss_weight,
        )
        for branch, given in spec.parameterized.items()
    }
    return Parameters(spaces) if spaces else None


def _named(spec: JobSpec, given: str | NamedPair, template: LossDefinition) -> LossDefinition:
    """A named loss in the job: its searched branches, with the spec's weight where it has none."""
    found = template
    for branch in spec.searched:
        name = given if isinstance(given, str) else getattr(given, branch)
        value = None if name is None else CATALOG[name].branch(branch)
        if value is not None and value.loss_weight is None:
            value = replace(value, loss_weight=spec.searched[branch].loss_weight)
        found = found.with_branch(branch, value)
    return replace(found, name=str(given))
