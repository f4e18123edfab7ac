"""Losses of a head that rank all scores of a batch at once: their base, AP and PAP.

Each takes a `RankedBatch` and gives mmdet's loss dictionary; `losses.ranking` has the functions.
"""

from collections.abc import Mapping
from typing import Any

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from losses.processes import gradient_times, process_count, rows_of_all_processes
from losses.ranked_batch import BOX_OVERLAPS, RankedBatch, box_overlaps
from losses.ranking.ap import ap_loss
from losses.ranking.functions import PapFunctions
from losses.ranking.pap import pap_loss


class RankingLoss(nn.Module):
    """Base of the losses; also says to mmdet's box heads that there is no background column.

    Attributes:
        ranks_boxes: it is the loss of the boxes too; else the head's own box loss is beside it.
    """

    ranks_boxes = True
    custom_cls_channels = True
    custom_activation = True
    custom_accuracy = True

    def __init__(self, loss_weight: float = 1.0, use_sigmoid: bool = True) -> None:
        """
        Args:
            loss_weight: factor on the loss.
            use_sigmoid: True; dense heads read it from the configuration to have C channels.

        Raises:
            ValueError: ``use_sigmoid`` is False.
        """
        super().__init__()
        if not use_sigmoid:
            raise ValueError(f"{type(self).__name__} needs use_sigmoid=True")
        self.use_sigmoid = use_sigmoid
        self.loss_weight = loss_weight

    def forward(self, batch: RankedBatch) -> dict[str, Tensor]:
        """Losses by their key in the log; values without ``loss`` in the key are only logged."""
        raise NotImplementedError

    def get_cls_channels(self, num_classes: int) -> int:
        """Outputs of a box head for ``num_classes`` classes."""
        return num_classes

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """(N, C + 1) scores in [0, 1] from (N, C) logits; mmdet's NMS drops the last column."""
        scores = cls_score.sigmoid()
        return torch.cat([scores, scores.new_zeros(len(scores), 1)], dim=1)

    def get_accuracy(self, cls_score: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Percentage of the positives whose own class has the highest score; 0 without any."""
        positive = (labels >= 0) & (labels < cls_score.size(1))
        right = (cls_score.argmax(dim=1) == labels) & positive if cls_score.numel() else positive
        return {"acc": 100.0 * right.sum() / positive.sum().clamp(min=1)}


@MODELS.register_module()
class APRankingLoss(RankingLoss):
    """AP loss on the scores (Chen et al., 2019), interpolated, as in the aLRP release."""

    ranks_boxes = False

    def __init__(self, delta: float = 1.0, **settings: Any) -> None:
        """
        Args:
            delta: half the width of the smoothed step, in logits; above 0.
            settings: of `RankingLoss`.
        """
        super().__init__(**settings)
        self.delta = delta

    def forward(self, batch: RankedBatch) -> dict[str, Tensor]:
        """``loss_cls``: 1 less the interpolated average precision."""
        loss = ap_loss(batch.logits, batch.targets, delta=self.delta) + batch.zero
        return {"loss_cls": self.loss_weight * loss}


@MODELS.register_module()
class PAPRankingLoss(RankingLoss):
    """Parameterized AP Loss on scores and boxes (arXiv 2112.05138)."""

    def __init__(
        self,
        functions: Mapping[str, Any],
        overlap: str = "giou",
        num_topk: int = 100_000,
        box_gradient_scale: float = 1.0,
        all_processes: bool = False,
        **settings: Any,
    ) -> None:
        """
        Args:
            functions: control points of the five functions, as of `PapFunctions.to_json`.
            overlap: how good a box is, of `box_overlaps`: giou, iou or l1.
            num_topk: how many of the highest scores are ranked; a positive below them stays in the
                mean over the positives, but counts before no other.
            box_gradient_scale: factor on the gradient of the boxes; that of the scores has none.
            all_processes: rank the scores of all processes together. The gradient, averaged over
                the processes, is that of the whole batch; else it is the mean of theirs.
            settings: of `RankingLoss`.

        Raises:
            DefinitionError: a control point is out of its range.
            ValueError: there is no such ``overlap``.
        """
        super().__init__(**settings)
        if overlap not in BOX_OVERLAPS:
            raise ValueError(f"overlap must be {' or '.join(BOX_OVERLAPS)}, got {overlap!r}")
        self.control_points = PapFunctions.from_json(functions).rows()
        self.overlap = overlap
        self.num_topk = num_topk
        self.box_gradient_scale = box_gradient_scale
        self.all_processes = all_processes

    def forward(self, batch: RankedBatch) -> dict[str, Tensor]:
        """``loss_pap``: one loss of scores and boxes, 0 or more; above 1 where H1 is below H2."""
        boxes = gradient_times(batch.boxes, self.box_gradient_scale)
        ious = batch.at_places(box_overlaps(boxes, batch.goals, self.overlap))
        logits, targets = batch.logits, batch.targets
        if self.all_processes and process_count() > 1:
            columns = self._ranked_rows(torch.stack([logits, ious, targets], dim=1))
            # the mean over the processes has to be the sum of what each gives its own rows
            columns = gradient_times(rows_of_all_processes(columns), float(process_count()))
            logits, ious, targets = columns.unbind(dim=1)
        loss = pap_loss(logits, ious, targets, self.control_points, num_topk=self.num_topk)
        return {"loss_pap": self.loss_weight * (loss + batch.zero)}

    def _ranked_rows(self, columns: Tensor) -> Tensor:
        """The rows that can be among the ranked ones of all processes, in their order."""
        logits, _, targets = columns.detach().unbind(dim=1)
        kept = targets != -1
        if int(kept.sum()) > self.num_topk:
            lowest = logits.masked_fill(~kept, -torch.inf)
            # stable, since equal scores are taken by their position
            first = lowest.argsort(descending=True, stable=True)[: self.num_topk]
            kept = targets == 1
            kept[first] = True
        return columns[kept]
