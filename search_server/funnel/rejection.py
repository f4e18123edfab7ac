"""Loss rejection as in AutoLoss-Zero: does descending on a loss improve the predictions at all?

No network takes part: the predictions of five fixed samples are moved down the loss, and a real
metric says whether they have become better. See docs/autoloss_zero.md for what is reconstruction.
"""

from __future__ import annotations

import numpy as np

from primitives import Expression, Gradient, to_torch
from search_server.funnel.samples import SAMPLES, Array, Samples, samples_of
from search_server.funnel.verification import Verdict, family_of
from search_server.spec.budgets import Rejection

NOT_IMPROVED = "predictions not improved"
LOOKS = (5, 10, 20, 40)
"""Steps after which a loss is given up that has not improved the metric at all."""
NO_GRADIENT = 1e-6
"""Largest norm of the samples' gradients that counts as none: rounding, not a direction."""
MOMENTUM, SQUARES, FLOOR = 0.9, 0.99, 1e-3
"""Of Adam; a slope well below the floor moves a prediction by less than a full step."""


def reject(expression: Expression, settings: Rejection) -> Verdict:
    """Optimises the predictions of the samples by a loss and says whether that improved them.

    Cheapest first: the inputs that a loss must read, then value and gradient at the start, then
    the metric after a few steps, then after all of them, then float32. Deterministic.

    Raises:
        SpaceError: the expression's space is of no known family.
    """
    family = family_of(expression.space)
    measures = {"size": float(expression.size), "depth": float(expression.depth)}
    for condition, group in family.needed:
        if not group & expression.inputs:
            names = " or ".join(sorted(group))
            return Verdict(False, condition, f"the expression does not use {names}", measures)
    samples = samples_of(family.name)
    with np.errstate(all="ignore"):
        return _optimised(expression, samples, settings, measures)


def gradient_at(descent: Gradient, samples: Samples, predictions: Array) -> Array | None:
    """Gradient of the loss of each prediction, of the predictions' shape.

    None where the gradient, or the loss itself, is not finite.
    """
    inputs, along = samples.inputs(predictions)
    value, slopes = descent(inputs)
    gradient = samples.gradient(slopes, along)
    # a sum is finite only if every part is, or parts overflow together: neither can be trained
    return gradient if np.isfinite(value.sum() + gradient.sum()) else None


def sample_norms(gradient: Array) -> tuple[float, ...]:
    """Euclidean norm of the gradient by the predictions of each sample."""
    norms = np.linalg.norm(gradient.reshape(SAMPLES, -1), axis=1)
    return tuple(float(norm) for norm in norms)


def _optimised(
    expression: Expression, samples: Samples, settings: Rejection, measures: dict[str, float]
) -> Verdict:
    descent = Gradient(expression, samples.moving)
    predictions = samples.start
    first, second = np.zeros_like(predictions), np.zeros_like(predictions)
    before = samples.metric(predictions)
    measures["metric_before"] = before
    for step in range(settings.steps):
        gradient = gradient_at(descent, samples, predictions)
        if gradient is None:
            return _no("non-finite", f"the loss or its gradient, at step {step}", measures)
        if step == 0:
            norms = sample_norms(gradient)
            measures |= {f"gradient_norm_{number}": norm for number, norm in enumerate(norms, 1)}
            if max(norms) <= NO_GRADIENT:
                return _no("no gradient", "the predictions have none at the start", measures)
        first = MOMENTUM * first + (1 - MOMENTUM) * gradient
        second = SQUARES * second + (1 - SQUARES) * gradient * gradient
        scale = np.sqrt(second / (1 - SQUARES ** (step + 1))) + FLOOR
        rate = settings.learning_rate * (1 - step / settings.steps)
        predictions = predictions - rate / (1 - MOMENTUM ** (step + 1)) * first / scale
        if step + 1 in LOOKS and step + 1 < settings.steps:
            early = samples.metric(predictions) - before
            if early <= 0:
                return _no(
                    NOT_IMPROVED,
                    f"after {step + 1} of {settings.steps} steps the metric has changed by "
                    f"{early:+.3g}",
                    measures,
                )
    after = samples.metric(predictions)
    gain = (after - before) / (1 - before)
    measures["metric_after"], measures["gain"] = after, gain
    if not gain >= settings.threshold:
        return _no(
            NOT_IMPROVED,
            f"the metric went from {before:.3g} to {after:.3g}, {gain:.0%} of the way to 1; at "
            f"least {settings.threshold:.0%} is needed",
            measures,
        )
    for where in (samples.start, predictions):
        if not _finite_in_single_precision(expression, samples, where):
            return _no("non-finite", "the loss or its gradient, in float32", measures)
    message = f"optimising the predictions alone raised the metric from {before:.3g} to "
    return Verdict(True, None, f"{message}{after:.3g}", measures)


def _no(condition: str, message: str, measures: dict[str, float]) -> Verdict:
    text = f"not finite: {message}" if condition == "non-finite" else message
    return Verdict(False, condition, text, measures)


def _finite_in_single_precision(expression: Expression, samples: Samples, at: Array) -> bool:
    """As training will compute it; torch is imported only for what passed all else."""
    import torch

    tensors = {
        name: torch.tensor(array, dtype=torch.float32, requires_grad=name in samples.moving)
        for name, array in samples.inputs(at)[0].items()
        if name in expression.inputs
    }
    value = to_torch(expression)(**tensors)
    leaves = [tensor for tensor in tensors.values() if tensor.requires_grad]
    found = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
    return all(bool(torch.isfinite(each).all()) for each in (value, *found) if each is not None)
