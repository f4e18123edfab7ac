"""The ranking losses pair by pair, in float64: loops over positives, no prefix sums, no sorting.

What the fast versions are compared with. Gradients are written out where they are not derivatives.
"""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor


def step_or_ramp(difference: Tensor, delta: float) -> Tensor:
    """How far a logit that is higher by the difference counts as ranked before."""
    if delta == 0.0:
        return (difference >= 0.0).double()
    return (difference / (2.0 * delta) + 0.5).clamp(0.0, 1.0)


def ap(logits: Tensor, targets: Tensor, delta: float) -> tuple[Tensor, Tensor]:
    """Loss and gradient."""
    logits = logits.double()
    gradient = torch.zeros_like(logits)
    positives = (targets == 1).nonzero().flatten().tolist()
    negatives = targets == 0
    highest = torch.zeros((), dtype=torch.float64)
    errors = []
    for i in sorted(positives, key=lambda i: float(logits[i])):
        others = step_or_ramp(logits[positives] - logits[i], delta)
        others[positives.index(i)] = 0.0
        wrong = step_or_ramp(logits[negatives] - logits[i], delta)
        rank = 1.0 + others.sum() + wrong.sum()
        precision = (1.0 + others.sum()) / rank
        factor = 1.0
        if highest <= precision:
            highest = precision
        else:
            factor = float((1.0 - highest) / (1.0 - precision))
        gradient[negatives] += factor * wrong / rank
        gradient[i] -= 1.0 - highest
        errors.append(1.0 - highest)
    return torch.stack(errors).mean(), gradient / len(positives)


def alrp(
    logits: Tensor, targets: Tensor, box_losses: Tensor, delta: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, gradient and rank of each positive."""
    logits, box_losses = logits.double(), box_losses.double()
    gradient = torch.zeros_like(logits)
    positives = (targets == 1).nonzero().flatten().tolist()
    negatives = targets == 0
    errors, ranks = [], []
    for place, i in enumerate(positives):
        others = step_or_ramp(logits[positives] - logits[i], delta)
        others[place] = 0.0
        wrong = step_or_ramp(logits[negatives] - logits[i], delta)
        rank = 1.0 + others.sum() + wrong.sum()
        if wrong.sum() > eps:
            error = ((others * box_losses).sum() + wrong.sum()) / rank
            gradient[i] -= error
            gradient[negatives] += wrong / wrong.sum() * error
        errors.append(wrong.sum() / rank)
        ranks.append(rank)
    return torch.stack(errors).mean(), gradient / len(positives), torch.stack(ranks)


def rank_sort(
    logits: Tensor, targets: Tensor, delta: float, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ranking error, sorting error, and the gradient of each."""
    logits, targets = logits.double(), targets.double()
    to_ranking, to_sorting = torch.zeros_like(logits), torch.zeros_like(logits)
    positives = (targets > 0).nonzero().flatten()
    negatives = targets == 0
    ious = targets[positives]
    ranking_errors, sorting_errors = [], []
    for i in positives.tolist():
        others = step_or_ramp(logits[positives] - logits[i], delta)
        wrong = step_or_ramp(logits[negatives] - logits[i], delta)
        ranking_error = wrong.sum() / (others.sum() + wrong.sum())
        no_lower = others * (ious >= targets[i])
        lower = others * (ious < targets[i])
        current = (others * (1.0 - ious)).sum() / others.sum()
        sorting_error = current - (no_lower * (1.0 - ious)).sum() / no_lower.sum()
        if wrong.sum() > eps:
            to_ranking[i] -= ranking_error
            to_ranking[negatives] += wrong / wrong.sum() * ranking_error
        if lower.sum() > eps:
            to_sorting[i] -= sorting_error
            to_sorting[positives] += lower / lower.sum() * sorting_error
        ranking_errors.append(ranking_error)
        sorting_errors.append(sorting_error)
    count = len(positives)
    return (
        torch.stack(ranking_errors).mean(),
        torch.stack(sorting_errors).mean(),
        to_ranking / count,
        to_sorting / count,
    )


def through_points(x: Tensor, row: Tensor) -> Tensor:
    """The released interpolation: by comparing every x with every control point.

    Inside [0, 1] its derivative is the slope to the left of x (at 0: of the first segment).
    """
    xs, ys = row[0::2], row[1::2]
    inside = x.detach().clamp(0.0, 1.0)
    index = (inside[..., None] > xs).sum(-1) + (xs == 0.0).sum() * (inside == 0.0) - 1
    return ys[index] + (ys[index + 1] - ys[index]) / (xs[index + 1] - xs[index]) * (x - xs[index])


def of_difference(difference: Tensor, row: Tensor) -> Tensor:
    """A function of ``clamp(d / 2 + 1/2, 0, 1)``, with no derivative for d beyond -1 and 1."""
    reached = (difference >= -1.0) & (difference <= 1.0)
    x = difference / 2.0 + 0.5
    return through_points(torch.where(reached, x, x.detach().clamp(0.0, 1.0)), row)


def pap(
    logits: Tensor, ious: Tensor, targets: Tensor, rows: Tensor, num_topk: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and gradients with respect to logits and IoUs, by autograd over all pairs."""
    s = logits.double().detach().requires_grad_()
    u = ious.double().detach().requires_grad_()
    rows = rows.double()
    positives = (targets == 1).nonzero().flatten().tolist()
    ranked = (targets != -1).nonzero().flatten().tolist()
    ranked = sorted(ranked, key=lambda j: (-float(logits[j]), j))[:num_topk]
    total = torch.zeros((), dtype=torch.float64)
    for i in positives:
        difference = s[ranked] - s[i]
        if len(rows) == 5:
            below = of_difference(difference.detach(), rows[4]).sum()
        else:
            below = (difference.detach().sign() / 2.0 + 0.5).sum()
        above = (
            of_difference(difference, rows[0]) * (1.0 - through_points(u[ranked], rows[1]))
        ).sum()
        above = through_points(u[i], rows[2]) * above
        share = above / below if float(below) or float(above.detach()) else 0.0
        total = total + 1.0 - through_points(u[i], rows[3]) + share
    loss = total / (len(positives) + 1e-8)
    loss.backward()
    assert s.grad is not None
    assert u.grad is not None
    return loss.detach(), s.grad, u.grad


class Case(NamedTuple):
    """A random problem; `kind` says what is special about it."""

    kind: str
    logits: Tensor
    targets: Tensor
    ious: Tensor
    delta: float
    rows: Tensor
    num_topk: int


KINDS = ("plain", "ties", "saturated", "close", "top", "all_positive", "one_positive", "edges")


def random_case(seed: int) -> Case:
    """One problem; kinds, sizes, delta and control points change with the seed."""
    kind = KINDS[seed % len(KINDS)]
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    size = int(torch.randint(3, 120, (), generator=generator))
    count = (
        1
        if kind == "one_positive"
        else int(torch.randint(1, 1 + size // 2, (), generator=generator))
    )
    logits = torch.randn(size, generator=generator, dtype=torch.float64)
    logits = logits * {"saturated": 6.0, "close": 0.1}.get(kind, 1.0) - 2.0
    targets = torch.where(uniform(size) < 0.1, -1, 0)
    targets[torch.randperm(size, generator=generator)[:count]] = 1
    if kind == "all_positive":
        targets[:] = 1
    ious = uniform(size)
    if kind in ("ties", "edges", "top"):
        # eighths: differences meet -1, 0, 1 and the deltas exactly
        logits, ious = (logits * 8.0).round() / 8.0, (ious * 4.0).round() / 4.0
    ious = torch.where(targets == 1, ious, 0.0)
    delta = (1.0, 0.5, 0.25, 0.37, 0.0)[seed // len(KINDS) % 5]
    num_topk = int(torch.randint(1, size, (), generator=generator)) if kind == "top" else 100_000
    return Case(kind, logits, targets, ious, delta, _random_rows(kind, generator), num_topk)


def _random_rows(kind: str, generator: torch.Generator) -> Tensor:
    points = int(torch.randint(1, 7, (), generator=generator))
    rows = []
    for _ in range(int(torch.randint(4, 6, (), generator=generator))):
        shares = torch.rand(2 * points, generator=generator, dtype=torch.float64)
        if kind == "edges":
            # eighths with several points at one x, at 0 and 1 too
            values = (shares * 8.0).round().reshape(points, 2).sort(dim=0).values / 8.0
            row = [0.0, 0.0, *values.flatten().tolist(), 1.0, 1.0]
        else:
            xs = itertools.accumulate(shares[0::2].tolist(), lambda p, t: p + t * (1.0 - p))
            ys = itertools.accumulate(shares[1::2].tolist(), lambda p, t: p + t * (1.0 - p))
            row = [0.0, 0.0, *itertools.chain(*zip(xs, ys, strict=True)), 1.0, 1.0]
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)
