"""Where each positive stands in the ranking: what AP, aLRP and RankSort loss have in common."""

import torch
from torch import Tensor

from losses.ranking.inputs import unless_finite, where_true
from losses.ranking.pieces import Relation
from losses.ranking.sums import find_spans, span_sums, transposed_sums


class Ranking:
    """For every positive, sums of "ranked before" over positives and negatives, and their adjoint.

    Attributes:
        positives: (P,) int64 positions of the positives among the logits.
        queries: (P,) float64 logits of the positives in their own order, less a common shift.
        order: (P,) int64 positions of the positives from the lowest logit to the highest, ties by
            index.
        itself: the relation of a logit to itself.
        before: (P,) float64 sum of the relations of the negatives to each positive.
        taint: () float64, 0, or NaN when what takes part is not finite.
    """

    def __init__(
        self,
        logits: Tensor,
        targets: Tensor,
        positives: Tensor,
        relation: Relation,
        *finite: Tensor,
    ) -> None:
        """
        Args:
            logits: (N,) floating point.
            targets: (N,), 0 for negatives.
            positives: (P,) int64 positions of the positives, at least one.
            relation: h of the difference of two logits, rising from 0 to 1 around 0.
            finite: more tensors that taint the result when a value is not finite.
        """
        self._logits, self.positives = logits, positives
        chosen = logits[positives].double()
        negatives = where_true(targets == 0)
        others = logits[negatives].double()
        self.taint = unless_finite(chosen, others, *finite)
        # negatives below the reach of every positive are before none of them
        near = where_true(others >= chosen.min() + relation.thresholds[0])
        scores, rising = others[near].sort()
        self._negatives = negatives[near[rising]]
        own, self.order = chosen.sort(stable=True)
        # nothing but differences matters, and prefix sums of small numbers keep more digits
        centre = chosen.median()
        self.queries = chosen - centre
        self._scores, self._own = scores - centre, own - centre
        self._spans = find_spans(scores, chosen, relation)
        self._own_spans = find_spans(own, chosen, relation)
        self.itself = relation.intercepts[1]
        ones = torch.ones_like(scores)
        self.before = span_sums(self._spans, ones, self._scores, self.queries).clamp(min=0.0)

    def among(self, weights: Tensor | None = None) -> Tensor:
        """(P,) sums over positives k, itself included, of ``weights_k h(s_k - s_i)``.

        Args:
            weights: (P,) float64 in the order of the positives; default ones.
        """
        ordered = torch.ones_like(self._own) if weights is None else weights[self.order]
        return span_sums(self._own_spans, ordered, self._own, self.queries)

    def gradient(self, own: Tensor, share: Tensor) -> Tensor:
        """(N,) gradient with respect to the logits, in their dtype, divided by P.

        Args:
            own: (P,) float64, of the positives.
            share: (P,) float64; a negative j gets ``sum_i share_i h(s_j - s_i)``.
        """
        count = len(self.positives)
        total = torch.zeros(len(self._logits), dtype=torch.float64, device=own.device)
        passed = transposed_sums(self._spans, share, self._scores, self.queries)
        total[self._negatives] = passed / count
        total[self.positives] = own / count
        return (total + self.taint).to(self._logits.dtype)
