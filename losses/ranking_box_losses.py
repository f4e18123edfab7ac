"""Ranking losses with a classification and a box part of their own: aLRP and Rank & Sort."""

from collections.abc import Mapping
from typing import Any

import torch
from mmdet.registry import MODELS
from torch import Tensor

from losses.boxes import paired_ious
from losses.processes import sum_over_processes
from losses.ranked_batch import RankedBatch
from losses.ranking.alrp import alrp_loss
from losses.ranking.rank_sort import rank_sort_loss
from losses.ranking_losses import RankingLoss

_TINY = 1e-6
# largest value of each box loss on one box
_LARGEST_BOX_LOSS: Mapping[str, float] = {"GIoULoss": 2.0, "IoULoss": 1.0}


class BoxRankingLoss(RankingLoss):
    """Base of the losses that have a classification and a box part of their own."""

    def __init__(
        self, box_loss: str = "GIoULoss", box_weight: float = 1.0, **settings: Any
    ) -> None:
        """
        Args:
            box_loss: GIoULoss (1 - GIoU), or IoULoss, in its linear form (1 - IoU).
            box_weight: factor on the box part.
            settings: of `RankingLoss`.

        Raises:
            ValueError: another box loss.
        """
        super().__init__(**settings)
        if box_loss not in _LARGEST_BOX_LOSS:
            raise ValueError(f"box_loss must be {' or '.join(_LARGEST_BOX_LOSS)}, got {box_loss!r}")
        linear = {"mode": "linear"} if box_loss == "IoULoss" else {}
        self.box_loss = MODELS.build({"type": box_loss, "reduction": "none", **linear})
        self.box_weight = box_weight
        self.largest_box_loss = _LARGEST_BOX_LOSS[box_loss]


@MODELS.register_module()
class ALRPRankingLoss(BoxRankingLoss):
    """aLRP loss on scores and boxes, with self-balancing (Oksuz et al., 2020).

    The weight of the box part and the history that it follows are buffers: a training that is
    resumed goes on with them. All processes share one history, and so one weight. The history has
    both parts with their factors, as released: so after the first balancing the box part is about
    as large as both were together, and a small ``box_weight`` hardly lowers it any more.
    """

    balance: Tensor
    balance_sums: Tensor
    balance_steps: Tensor

    def __init__(
        self,
        delta: float = 1.0,
        balance_start: float = 50.0,
        balance_every: int = 3665,
        **settings: Any,
    ) -> None:
        """
        Args:
            delta: half the width of the smoothed step, in logits; above 0.
            balance_start: weight of the box part before the first balancing.
            balance_every: steps with positives between balancings; 3665 is one epoch of COCO in
                batches of 32.
            settings: of `BoxRankingLoss`.

        Raises:
            ValueError: ``balance_every`` below 1.
        """
        super().__init__(**settings)
        if balance_every < 1:
            raise ValueError(f"balance_every must be at least 1, got {balance_every}")
        self.delta = delta
        self.balance_every = balance_every
        self.register_buffer("balance", torch.tensor(balance_start, dtype=torch.float64))
        self.register_buffer("balance_sums", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("balance_steps", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: RankedBatch) -> dict[str, Tensor]:
        """``loss_cls`` (1 less the precision) and ``loss_bbox``, balanced."""
        errors = self.box_loss(batch.boxes, batch.goals)
        errors = errors / (self.largest_box_loss * (1.0 - batch.tau))
        cls, rank, order = alrp_loss(batch.logits, batch.targets, errors.detach(), delta=self.delta)
        falling = order.flip(0)
        localisation = errors[falling].cumsum(0) / rank[falling].detach()
        cls = self.loss_weight * (cls + batch.zero)
        box = self.box_weight * (localisation.sum() / max(len(errors), 1)).to(cls.dtype)
        if self.training:
            self._follow(box, cls, len(errors) > 0)
        # a copy: the buffer may change before this is backpropagated
        balance = self.balance.to(box.dtype, copy=True)
        # the box part of no positives is not of the graph; the zero is
        return {"loss_cls": cls, "loss_bbox": box * balance + batch.zero}

    @torch.no_grad()
    def _follow(self, box: Tensor, cls: Tensor, seen: bool) -> None:
        """Adds a step to the history, and sets the weight when the history is long enough."""
        own = torch.stack([box.double(), cls.double(), torch.ones_like(cls, dtype=torch.float64)])
        total = sum_over_processes(own * float(seen))
        self.balance_sums += total[:2] / total[2].clamp(min=1.0)
        self.balance_steps += (total[2] > 0).long()
        full = self.balance_steps >= self.balance_every
        weight = self.balance_sums.sum() / self.balance_sums[0].clamp(min=_TINY)
        self.balance.copy_(torch.where(full, weight, self.balance))
        self.balance_sums *= (~full).double()
        self.balance_steps *= (~full).long()


@MODELS.register_module()
class RankSortRankingLoss(BoxRankingLoss):
    """Rank & Sort loss on scores and boxes (Oksuz et al., ICCV 2021)."""

    def __init__(self, delta: float = 0.5, **settings: Any) -> None:
        """
        Args:
            delta: half the width of the smoothed step, in logits; above 0.
            settings: of `BoxRankingLoss`.
        """
        super().__init__(**settings)
        self.delta = delta

    def forward(self, batch: RankedBatch) -> dict[str, Tensor]:
        """``loss_cls`` (both errors), ``loss_bbox`` of the same size, and each error by itself."""
        # not below 1e-7: a positive of IoU 0 stays a positive
        ious = paired_ious(batch.boxes.detach(), batch.goals)
        targets = batch.targets
        targets[batch.places] = ious.to(targets.dtype)
        ranking, sorting = rank_sort_loss(batch.logits, targets, delta=self.delta)
        confidence = batch.scores.detach()[batch.positive].sigmoid().amax(dim=1)
        errors = self.box_loss(batch.boxes, batch.goals)
        box = (confidence * errors).sum() / confidence.sum().clamp(min=_TINY)
        balance = (ranking + sorting).detach() / box.detach().clamp(min=_TINY)
        return {
            "loss_cls": self.loss_weight * (ranking + sorting + batch.zero),
            "loss_bbox": self.box_weight * (balance * box + batch.zero),
            "ranking_error": ranking.detach(),
            "sorting_error": sorting.detach(),
        }
