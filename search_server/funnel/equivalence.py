"""The gradient-equivalence check of AutoLoss-Zero: losses with the same gradients are one loss.

Two losses count as equivalent when the norms of their gradients by the predictions agree, to a few
significant digits, in each of the five fixed samples: `a * b` and `b * a`, a loss and the same loss
plus one. A loss and its double are not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from losses import LossDefinition
from primitives import Expression, Gradient
from search_server.funnel.rejection import gradient_at, sample_norms
from search_server.funnel.samples import samples_of
from search_server.funnel.verification import family_of


def gradient_norms(expression: Expression) -> tuple[float, ...] | None:
    """The Euclidean norm of the gradient by the predictions of each sample, before any step.

    None where a gradient is not finite: nothing can be said then.

    Raises:
        SpaceError: the expression's space is of no known family.
    """
    samples = samples_of(family_of(expression.space).name)
    with np.errstate(all="ignore"):
        gradient = gradient_at(Gradient(expression, samples.moving), samples, samples.start)
    return None if gradient is None else sample_norms(gradient)


def equivalent(key: str, known: Iterable[str], digits: int) -> bool:
    """Whether a loss is equivalent to a known one.

    What decides are the definitions alone, so the answer is the same after an interruption.

    Args:
        key: of a loss definition, see `LossDefinition.key`.
        known: keys of the losses that it is compared with.
        digits: significant digits to which norms agree.
    """
    mine = _signature(key, digits)
    return any(_signature(other, digits) == mine for other in known)


@lru_cache(maxsize=100_000)
def _signature(key: str, digits: int) -> str:
    """A loss definition's key with rounded norms in the place of each expression and its scale."""
    data = json.loads(key)
    definition = LossDefinition.from_json({"name": "known", **data})
    for branch, expression in definition.expressions.items():
        norms = gradient_norms(expression)
        if norms is not None:
            scale = data[branch].pop("scale", 1.0)
            data[branch]["expression"] = [f"{scale * norm:.{digits - 1}e}" for norm in norms]
    return json.dumps(data, sort_keys=True)
