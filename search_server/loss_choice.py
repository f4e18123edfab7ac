"""What a person typed after `--loss`, `--loss-cls` and so on, as a loss definition."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from losses import (
    BRANCHES,
    CATALOG,
    Branch,
    DefinitionError,
    ExpressionBranch,
    LossDefinition,
    configs_dir,
    detector_family,
    load_definition,
)
from losses.paths import detector_names
from primitives import parse
from search_server.errors import JobError
from workers import load_detector
from workers.detector import parse_detector


def detector_path(given: str) -> Path:
    """The file of a detector's config, by path or by the name of a packaged one.

    Raises:
        JobError: there is none.
    """
    packaged = configs_dir() / "detectors"
    for path in (Path(given), packaged / f"{given}.py"):
        if path.is_file():
            return path
    names = ", ".join(detector_names())
    raise JobError(f"{given!r} is no file; give an mmdet config, or one of {names}")


def choose_loss(
    detector: str,
    loss: str | None,
    cls: str | None,
    bbox: str | None,
    iou_centerness: bool | None = None,
) -> LossDefinition:
    """A loss definition from what a person typed.

    Args:
        detector: decides the search space of an expression.
        loss: a name of the catalogue, or a JSON file, for both branches; None for the detector's
            own losses.
        cls, bbox: a name of the catalogue, whose branch is taken, or an expression; None leaves
            the branch as `loss` says. A branch alone says nothing about `iou_centerness`.
        iou_centerness: whether the centerness target of FCOS and ATSS is the IoU; None leaves it
            as `loss` says, off without one.

    Raises:
        DefinitionError: no such name or file.
        PrimitivesError: an expression that is none.
    """
    definition = LossDefinition("default") if loss is None else load_definition(loss)
    names = [] if loss is None else [definition.name]
    for branch, text in zip(BRANCHES, (cls, bbox), strict=True):
        if text is not None:
            definition = definition.with_branch(branch, _branch(detector, branch, text))
            names.append(f"{branch}-{text if text in CATALOG else 'expression'}")
    if iou_centerness is not None and iou_centerness != definition.iou_centerness:
        definition = replace(definition, iou_centerness=iou_centerness)
        names.append("iou-centerness" if iou_centerness else "own-centerness")
    return replace(definition, name="-".join(names) or "default")


def _branch(detector: str, branch: str, text: str) -> Branch | None:
    if text in CATALOG:
        return CATALOG[text].branch(branch)
    if text.isidentifier() or ("(" not in text and "-" in text):
        raise DefinitionError(
            f"no loss is named {text!r}, and an expression has operators; named losses: "
            f"{', '.join(CATALOG)}"
        )
    family = detector_family(parse_detector(load_detector(detector_path(detector))))
    space = "box" if branch == "bbox" else family.cls_space
    alpha = 0.25 if space == "binary_cls" else None
    return ExpressionBranch(parse(text, space), alpha=alpha)
