"""From a spec to what is searched: template, named losses and baseline as loss definitions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from losses import CATALOG, LossDefinition
from search_server.handmade_losses import as_expressions
from search_server.searchers import Handmade, HandmadeBranch, PapSpace, Parameters, Problem
from search_server.spec import ClsSpec, JobSpec, NamedPair, TuningSearcher
from search_server.spec import Searcher as TreeSettings


def problem_of(spec: JobSpec) -> Problem:
    """What is searched."""
    fixed = {str(branch): given for branch, given in spec.fixed.items()}
    template = LossDefinition.from_json(
        {"name": "template", "iou_centerness": spec.iou_centerness, **fixed}
    )
    cls, searcher = spec.searched.get("cls"), spec.searcher
    spaces = {branch: given.search_space for branch, given in spec.searched.items()}
    return Problem(
        spaces=spaces,
        template=template,
        weights={branch: given.loss_weight for branch, given in spec.searched.items()},
        alpha=cls.alpha if isinstance(cls, ClsSpec) else None,
        named=tuple(_named(spec, given, template) for given in spec.searcher.named),
        alternate=spec.mode == "alternate",
        window=spec.window,
        seed=spec.seed,
        parameters=_parameters(spec),
        handmade=_handmade(spec, template),
        inherit=isinstance(searcher, TreeSettings) and (searcher.inherit or searcher.refine > 0),
        total=spec.candidates,
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


def _handmade(spec: JobSpec, template: LossDefinition) -> Handmade | None:
    """The hand-made losses to choose from; None where they are not tuned."""
    searcher = spec.searcher
    if not isinstance(searcher, TuningSearcher):
        return None
    branches = {
        branch: HandmadeBranch(given.losses or (), given.loss_weight or 1.0, given.factor)
        for branch, given in spec.handmade.items()
    }
    return Handmade(branches, template, searcher.centerness or (False,), searcher.learning_rate)


def _named(
    spec: JobSpec, given: str | NamedPair | dict[str, Any], template: LossDefinition
) -> LossDefinition:
    """A named loss in the job: its searched branches, with the spec's weight where it has none.

    Of a definition that was written out, the learning rate counts too, and what mmdet's losses are
    as expressions.
    """
    found, name = template, str(given)
    if isinstance(given, dict):
        spaces = {branch: each.search_space for branch, each in spec.searched.items()}
        whole = as_expressions(LossDefinition.from_json(given), spaces)
        name = whole.name
        found = replace(found, learning_rate_scale=whole.learning_rate_scale)
    for branch in spec.searched:
        if isinstance(given, dict):
            value = whole.branch(branch)
        else:
            source = given if isinstance(given, str) else getattr(given, branch)
            value = None if source is None else CATALOG[source].branch(branch)
        if value is not None and value.loss_weight is None:
            value = replace(value, loss_weight=spec.searched[branch].loss_weight)
        found = found.with_branch(branch, value)
    return replace(found, name=name)
