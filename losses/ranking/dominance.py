"""Sums of a relation over the positives whose overlap is lower than the query's, by levels.

"Lower overlap" and "higher logit" are two orders at once, which one sort cannot serve. With the
positives in rising overlap, those below a query are a prefix of them, and a prefix is one block
of size ``2^l`` for every bit l of its length. So for each of the ``log2 P`` levels the blocks of
that size are sorted by logit, and what is a sum over spans in one sorted list for the other losses
is here the same in each level. O(P log^2 P) time, O(P log P) memory, no loop over positives.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from losses.ranking.pieces import Relation
from losses.ranking.sums import (
    Spans,
    span_sums,
    spans_between,
    threshold_positions,
    transposed_sums,
)


@dataclass(frozen=True)
class _Level:
    """Blocks of one size: the positives in the order of block and logit, and the queries' spans."""

    members: Tensor
    spans: Spans


class LowerOverlaps:
    """For every positive i, sums over the positives k with ``overlaps_k < overlaps_i``."""

    def __init__(self, logits: Tensor, overlaps: Tensor, relation: Relation) -> None:
        """
        Args:
            logits: (P,) float64, P at least 1.
            overlaps: (P,).
            relation: h of the difference of two logits.
        """
        count = len(logits)
        own, by_logit = logits.sort(stable=True)
        place = torch.empty_like(by_logit)
        place[by_logit] = torch.arange(count, device=logits.device)
        positions = threshold_positions(own, logits, relation)
        rising, by_overlap = overlaps.sort(stable=True)
        lower = torch.searchsorted(rising, overlaps.contiguous(), right=False)
        # a logit's place in its own order keeps ties apart, and fits into one key with the block
        width = count + 1
        index = torch.arange(count, device=logits.device)
        self._scores = logits - logits.median()
        self._levels = []
        for level in range(count.bit_length()):
            keys, sorting = ((index >> level) * width + place[by_overlap]).sort()
            block = lower >> (level + 1) << 1
            begin = block << level
            inner = torch.searchsorted(keys, block * width + positions)
            # the queries without this bit have an empty span
            used = (lower >> level & 1).bool()
            ends = torch.cat([begin[None], inner, (begin + (1 << level))[None]])
            spans = spans_between(torch.where(used, ends, 0), relation, logits)
            self._levels.append(_Level(by_overlap[sorting], spans))

    def sums(self, weights: Tensor) -> Tensor:
        """(P,) sums of ``weights_k h(s_k - s_i)`` over the k with lower overlap than i."""
        total = torch.zeros_like(self._scores)
        for level in self._levels:
            own = self._scores[level.members]
            total += span_sums(level.spans, weights[level.members], own, self._scores)
        return total

    def transposed(self, values: Tensor) -> Tensor:
        """(P,) sums of ``values_i h(s_k - s_i)`` over the i with higher overlap than k."""
        total = torch.zeros_like(self._scores)
        for level in self._levels:
            own = self._scores[level.members]
            total[level.members] += transposed_sums(level.spans, values, own, self._scores)
        return total
