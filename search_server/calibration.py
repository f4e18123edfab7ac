"""Takes the scale out of losses: a searched branch gets the gradient norm of the baseline's.

A loss's magnitude acts as a learning rate and as a weight against the losses beside it, so that of
two losses of one shape the one of the fitting size wins. Here every candidate's branch gets a
factor, `ExpressionBranch.scale`, with which its gradient by the head's outputs is as large as that
of the baseline, at the baseline's initial weights, over the same batches. docs/calibration.md has
the definition and the figures.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from losses import (  # isort: skip  - before anything of mmdet
    ExpressionBranch,
    Family,
    LossDefinition,
    detector_family,
)

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from losses.apply import expression_loss_config
from search_server.calibration_files import capture_file, read_capture, write_capture
from search_server.errors import CalibrationError
from workers import TrialSpec
from workers.detector import one_line, parse_detector

BOUNDS = (0.1, 10.0)
MOST_BATCHES = 4
MOST_IMAGES = 32  # a detector of photographs computes seconds for each, on a CPU
_TURN = threading.Lock()  # a capture changes the process's global state while it runs


@dataclass(frozen=True)
class Captured:
    """What the losses of a detector receive on the calibration batches.

    Attributes:
        family: of the detector.
        norms: by searched branch, ``cls`` or ``bbox``: the gradient norm of the baseline's loss.
        calls: by searched branch, what each call of its loss was given, see
            `workers.calibration.BranchCalls`; float64.
    """

    family: Family
    norms: Mapping[str, float]
    calls: Mapping[str, tuple[Mapping[str, Tensor], ...]]
    _known: dict[tuple[str, ExpressionBranch], float] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Factor:
    """The calibration of one branch.

    Attributes:
        value: what the loss is multiplied by.
        ratio: the baseline's gradient norm over the loss's own, before the bounds; NaN where one
            of them is 0 or not finite, and the factor 1.
    """

    value: float
    ratio: float


def captured(trial: TrialSpec, roles: Mapping[str, str]) -> Captured:
    """Runs a baseline once on its calibration batches; what was captured before is read again.

    The batches are the first of the trial's own sampler, at most `MOST_BATCHES` and, but for a
    single larger one, `MOST_IMAGES` images. They are kept as a file under the home folder, a cache:
    captured again where it is missing, to the same numbers.

    It runs in this process, on the trial's device where this machine has it, else on the CPU.

    Args:
        trial: a trial of the baseline; its budget and its evaluation do not count.
        roles: by searched branch, ``cls`` or ``bbox``, the role of its space: ``multi_cls``,
            ``binary_cls`` or ``box``.

    Raises:
        CalibrationError: the detector cannot be run, or the file cannot be written.
    """
    if trial.device == "cuda" and not torch.cuda.is_available():
        trial = replace(trial, device="cpu")  # a controller need not be where the trials are
    batches = max(1, min(MOST_BATCHES, MOST_IMAGES // trial.batch_size))
    try:
        family = detector_family(parse_detector(trial.detector))
        path = capture_file(trial, roles, batches)
        found = read_capture(path, roles)
        if found is None:
            from workers.calibration import capture  # seconds, for mmdet's parts

            with _TURN:
                found = capture(trial, roles, batches)
            write_capture(path, found)
    except Exception as error:  # whatever a user's own detector raises in its first batches
        raise CalibrationError(f"the losses cannot be calibrated: {one_line(error)}") from error
    calls = {
        name: tuple({key: _tensor(value) for key, value in call.items()} for call in each.calls)
        for name, each in found.items()
    }
    return Captured(family, {name: each.norm for name, each in found.items()}, calls)


def branch_norm(given: Captured, name: str, branch: ExpressionBranch) -> float:
    """The norm of a loss's gradient by the head's outputs, over the calibration batches.

    Args:
        name: ``cls`` or ``bbox``.
        branch: the loss, with its weight, alpha and scale.

    Returns:
        At least 0; NaN or infinite where the gradient is. As `BranchCalls.norm`, in float64.

    Raises:
        LossesError: the loss does not fit the detector's heads.
    """
    known = given._known.get((name, branch))
    if known is None:
        module = MODELS.build(expression_loss_config(branch, name, given.family))
        of_call = _box_square if name == "bbox" else _cls_square
        square = sum(of_call(module, call) for call in given.calls[name])
        known = given._known[name, branch] = math.sqrt(square) if square >= 0 else math.nan
    return known


def factors(
    definition: LossDefinition,
    given: Captured,
    weights: Mapping[str, float | None] | None = None,
    bounds: tuple[float, float] = BOUNDS,
) -> dict[str, Factor]:
    """The factors of a definition's captured branches that are expressions.

    Args:
        weights: by branch, the weight with which the norm is measured instead of the loss's own;
            so a branch whose weight is another one keeps the ratio of the two.
        bounds: smallest and largest factor.
    """
    found = {}
    for name in given.norms:
        branch = definition.branch(name)
        if isinstance(branch, ExpressionBranch):
            weight = (weights or {}).get(name, branch.loss_weight)
            found[name] = _factor(given, name, replace(branch, loss_weight=weight), bounds)
    return found


def calibrated(
    definition: LossDefinition,
    given: Captured,
    weights: Mapping[str, float | None] | None = None,
    bounds: tuple[float, float] = BOUNDS,
) -> LossDefinition:
    """A definition whose branches have the `factors` as scales, in the place of former ones."""
    for name, factor in factors(definition, given, weights, bounds).items():
        branch = definition.branch(name)
        assert isinstance(branch, ExpressionBranch)
        definition = definition.with_branch(name, replace(branch, scale=factor.value))
    return definition


@dataclass(frozen=True)
class Calibration:
    """The calibration of a job's candidates.

    Attributes:
        given: of the job's baseline.
        weights: by searched branch, the spec's weight; see `factors`.
    """

    given: Captured
    weights: Mapping[str, float | None]

    def applied(self, definition: LossDefinition) -> LossDefinition:
        """A candidate's definition with its factors."""
        return calibrated(definition, self.given, self.weights)

    def values(self, definition: LossDefinition) -> dict[str, float]:
        """The factors by branch, as a candidate's row keeps them."""
        found = factors(definition, self.given, self.weights)
        return {name: factor.value for name, factor in found.items()}

    def reason(self, definition: LossDefinition) -> str:
        """Why a branch keeps the size that it has, for people; empty where none does."""
        found = factors(definition, self.given, self.weights)
        branches = [name for name, factor in found.items() if math.isnan(factor.ratio)]
        if not branches:
            return ""
        return f"{' and '.join(branches)} not calibrated: no gradient to measure at the start"


def _factor(
    given: Captured, name: str, branch: ExpressionBranch, bounds: tuple[float, float]
) -> Factor:
    own = branch_norm(given, name, replace(branch, scale=1.0))
    wanted = given.norms[name]
    if not (0 < own < math.inf and 0 < wanted < math.inf):
        return Factor(1.0, math.nan)
    ratio = wanted / own
    # rounded, so that the identity of a loss does not depend on the last bits of a machine
    return Factor(float(f"{min(max(ratio, bounds[0]), bounds[1]):.6g}"), ratio)


def _cls_square(module: nn.Module, call: Mapping[str, Tensor]) -> float:
    scores = call["scores"].clone().requires_grad_()
    value = module(
        scores,
        call["labels"],
        call.get("weights"),
        avg_factor=float(call["divisor"]),
        pos_ious=call.get("ious"),
    )
    (gradient,) = torch.autograd.grad(value * call["factor"], scores)
    return float((gradient.square().sum(dim=1) * call["counts"]).sum())


def _box_square(module: nn.Module, call: Mapping[str, Tensor]) -> float:
    pred = call["pred"].clone().requires_grad_()
    value = module(pred, call["target"], call.get("weights"), avg_factor=float(call["divisor"]))
    (gradient,) = torch.autograd.grad(value * call["factor"], pred)
    return float(torch.einsum("ni,nij,nj->", gradient, call["metric"], gradient))


def _tensor(array: Any) -> Tensor:
    found = torch.as_tensor(array)
    return found.double() if found.is_floating_point() else found
