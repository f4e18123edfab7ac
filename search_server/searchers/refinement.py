"""Local search on the numbers of a loss: constants, alpha, loss weights and the learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from numpy.random import Generator
from scipy.special import expit, logit

from losses import ExpressionBranch, LossDefinition, StockBranch
from primitives import Expression, mutate_constants
from search_server.searchers.base import Draw, Parent, Problem, Proposal, indices
from search_server.searchers.structure import landed

DIGITS = 4  # significant ones of a number that was moved: people are to read it
WEIGHTS = (0.01, 100.0)  # range of a loss weight
RATES = (0.1, 10.0)  # range of the factor on the learning rate
ALPHAS = (0.01, 0.99)
DRAWS = 200  # of constants, until they are verified
REACH = 64  # places of a ranking that `near` can reach: its numbers have 53 bits


def near(parents: Sequence[Parent], rng: Generator) -> Parent:
    """One of the best parents: the second half as often as the best, and so on."""
    place = min(int(rng.geometric(0.5)), len(parents)) - 1
    return parents[place]


def refined(
    parent: Parent, branches: Sequence[str], sigma: float, problem: Problem, rng: Generator
) -> Proposal:
    """All numbers of a parent, moved a little: a step of an evolution strategy.

    In a pool there are no numbers; there it is a step to a neighbour of the parent.

    Args:
        branches: those whose numbers move.
        sigma: spread of a step in the logarithm, or in the logit of alpha.
    """
    draws: dict[str, Draw] = {}
    start = parent.definition
    if problem.pool is None:
        start = _numbers_moved(start, branches, sigma, rng)
    for branch in branches:
        expression = parent.expressions.get(branch)
        if expression is None:
            continue
        if problem.pool is not None:
            draws[branch] = _neighbour(expression, problem.pool[branch])
        elif any(step.node.value is not None for step in expression.program):
            draws[branch] = _moved_constants(expression, sigma)
    return Proposal("refined", indices(parent), start, draws, limit=DRAWS)


def _numbers_moved(
    definition: LossDefinition, branches: Sequence[str], sigma: float, rng: Generator
) -> LossDefinition:
    """Weights, alpha and learning rate of a definition, each moved by its own normal number."""
    for branch in branches:
        found = definition.branch(branch)
        if not isinstance(found, ExpressionBranch | StockBranch):
            continue
        weight = found.loss_weight
        if weight is None and branch == "cls":
            weight = 1.0  # what a head's default is for every classification loss
        if weight is not None:
            found = replace(found, loss_weight=_scaled(weight, sigma, WEIGHTS, rng))
        if isinstance(found, ExpressionBranch) and found.alpha is not None:
            low, high = ALPHAS
            moved = expit(logit(min(high, max(low, found.alpha))) + sigma * rng.standard_normal())
            found = replace(found, alpha=_rounded(float(moved), ALPHAS))
        definition = definition.with_branch(branch, found)
    rate = _scaled(definition.learning_rate_scale, sigma, RATES, rng)
    return replace(definition, learning_rate_scale=rate)


def _scaled(value: float, sigma: float, bounds: tuple[float, float], rng: Generator) -> float:
    return _rounded(value * math.exp(sigma * rng.standard_normal()), bounds)


def _rounded(value: float, bounds: tuple[float, float]) -> float:
    return float(f"{min(bounds[1], max(bounds[0], value)):.{DIGITS}g}")


def _moved_constants(expression: Expression, sigma: float) -> Draw:
    return lambda rng: mutate_constants(expression, rng, sigma=sigma)


def _neighbour(expression: Expression, pool: Sequence[Expression]) -> Draw:
    return lambda rng: landed(expression, pool, [expression], rng)
