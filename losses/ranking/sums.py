"""Sums of a piecewise linear relation between every query and all scores, by prefix sums.

For queries q_i (P of them), scores s_j (N) with weights w_j and a `Relation` h, what ranking losses
need is ``A_i = sum_j w_j h(s_j - q_i)`` and its transpose ``sum_i v_i h(s_j - q_i)``. With the
scores in rising order, the scores that fall into one piece of h are neighbours; so A_i takes a few
differences of prefix sums of w and w * s at positions that a binary search finds, and the
transpose adds at these positions what begins or ends there, and sums up once. That is
O((N + P) log N) time and O(N + P) memory, in float64.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from losses.ranking.pieces import Relation


@dataclass(frozen=True)
class Spans:
    """Which scores fall into which piece of a relation, for every query.

    Attributes:
        ends: (m + 2, P) int64 positions in the rising scores, not falling along the first axis:
            piece k of query i has the scores ``ends[k, i]`` up to, without, ``ends[k + 1, i]``.
        intercepts: (m + 1, 1) float64.
        slopes: (m + 1, 1) float64.
    """

    ends: Tensor
    intercepts: Tensor
    slopes: Tensor


def find_spans(scores: Tensor, queries: Tensor, relation: Relation) -> Spans:
    """Positions of the relation's pieces among the scores.

    Args:
        scores: (N,) float64, rising.
        queries: (P,) float64, any order.
        relation: with m thresholds.
    """
    positions = threshold_positions(scores, queries, relation)
    first = positions.new_zeros(1, len(queries))
    last = positions.new_full((1, len(queries)), len(scores))
    return spans_between(torch.cat([first, positions, last]), relation, queries)


def spans_between(ends: Tensor, relation: Relation, like: Tensor) -> Spans:
    """The spans with these ends; the relation's numbers in the dtype and device of `like`."""
    table = like.new_tensor([relation.intercepts, relation.slopes])
    return Spans(ends, table[0, :, None], table[1, :, None])


def threshold_positions(scores: Tensor, queries: Tensor, relation: Relation) -> Tensor:
    """(m, P) int64: how many of the rising scores are below each threshold of each query.

    Scores at a threshold count as below it, except at the first one.
    """
    steps = queries.new_tensor(relation.thresholds)[:, None] + queries
    below = torch.searchsorted(scores, steps[:1], right=False)
    if len(steps) == 1:
        return below
    return torch.cat([below, torch.searchsorted(scores, steps[1:].contiguous(), right=True)])


def span_sums(spans: Spans, weights: Tensor, scores: Tensor, queries: Tensor) -> Tensor:
    """(P,) sums ``sum_j weights_j h(scores_j - queries_i)``.

    Args:
        spans: of these scores and queries.
        weights: (N,) float64, in the order of the scores.
        scores: (N,) float64, rising.
        queries: (P,) float64.
    """
    mass, moment = _in_spans(spans, weights), _in_spans(spans, weights * scores)
    return ((spans.intercepts - spans.slopes * queries) * mass + spans.slopes * moment).sum(0)


def span_slopes(spans: Spans, weights: Tensor) -> Tensor:
    """(P,) sums ``sum_j weights_j h'(scores_j - queries_i)``."""
    return (spans.slopes * _in_spans(spans, weights)).sum(0)


def transposed_sums(spans: Spans, values: Tensor, scores: Tensor, queries: Tensor) -> Tensor:
    """(N,) sums ``sum_i values_i h(scores_j - queries_i)``, in the order of the scores."""
    constant = (spans.intercepts - spans.slopes * queries) * values
    return _spread(spans, constant, len(scores)) + scores * transposed_slopes(
        spans, values, len(scores)
    )


def transposed_slopes(spans: Spans, values: Tensor, size: int) -> Tensor:
    """(size,) sums ``sum_i values_i h'(scores_j - queries_i)``, in the order of the scores."""
    return _spread(spans, spans.slopes * values, size)


def relation_sums(weights: Tensor, scores: Tensor, queries: Tensor, relation: Relation) -> Tensor:
    """(P,) sums ``sum_j weights_j h(scores_j - queries_i)`` with their true derivatives.

    Differentiable in weights, scores and queries (once); a jump of h has no derivative.

    Args:
        weights: (N,) float64.
        scores: (N,) float64, rising.
        queries: (P,) float64, any order.
        relation: h.
    """
    spans = find_spans(scores.detach(), queries.detach(), relation)
    total: Tensor = _RelationSums.apply(weights, scores, queries, spans)
    return total


class _RelationSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, scores: Tensor, queries: Tensor, spans: Spans) -> Tensor:
        # nothing but differences matters, and prefix sums of small numbers keep more digits
        centre = queries.median()
        ctx.save_for_backward(weights, scores - centre, queries - centre, spans.ends)
        ctx.spans = (spans.intercepts, spans.slopes)
        return span_sums(spans, weights, scores - centre, queries - centre)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weights, scores, queries, ends = ctx.saved_tensors
        spans = Spans(ends, *ctx.spans)
        (upstream,) = grads
        wanted = ctx.needs_input_grad
        to_scores = transposed_slopes(spans, upstream, len(scores)) if any(wanted[:2]) else None
        to_weights = None
        if wanted[0] and to_scores is not None:
            constant = (spans.intercepts - spans.slopes * queries) * upstream
            to_weights = _spread(spans, constant, len(scores)) + scores * to_scores
        if to_scores is not None:
            to_scores = weights * to_scores if wanted[1] else None
        to_queries = -upstream * span_slopes(spans, weights) if wanted[2] else None
        return to_weights, to_scores, to_queries, None


def _in_spans(spans: Spans, values: Tensor) -> Tensor:
    """(m + 1, P) sums of the values in each piece of each query."""
    prefix = torch.nn.functional.pad(values.cumsum(0), (1, 0))
    return prefix[spans.ends].diff(dim=0)


def _spread(spans: Spans, coefficients: Tensor, size: int) -> Tensor:
    """(size,) sums over queries of the coefficient, (m + 1, P), of the piece that has the score."""
    changes = torch.cat([coefficients[:1], coefficients.diff(dim=0), -coefficients[-1:]])
    steps = changes.new_zeros(size + 1)
    steps.index_add_(0, spans.ends.flatten(), changes.flatten())
    return steps[:-1].cumsum(0)
