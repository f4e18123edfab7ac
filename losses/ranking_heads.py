"""Heads whose loss ranks all scores of a batch: one mixin per seam of mmdet.

A stock dense head computes its losses level by level. Each mixin takes the scores, labels and
boxes of all levels and images together, and gives them to its ranking loss.
"""

from typing import Any

import torch
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor, nn

from losses.ranked_batch import RankedBatch
from losses.ranking.inputs import where_true
from losses.ranking_losses import RankingLoss

_SMALLEST_SIDE = 1e-6


class RankingFeed:
    """Base of the mixins.

    Attributes:
        tau: IoU from which an anchor is a positive, as aLRP's localisation error has it.
    """

    tau = 0.5
    loss_cls: RankingLoss
    loss_bbox: nn.Module
    bbox_coder: Any
    num_classes: int
    reg_decoded_bbox: bool

    def ranked_losses(
        self,
        scores: Tensor,
        labels: Tensor,
        label_weights: Tensor,
        codes: Tensor,
        priors: Tensor,
        box_targets: Tensor,
    ) -> dict[str, Tensor]:
        """The losses of all anchors (or regions of interest) of a batch.

        Args:
            scores: (A, C) logits.
            labels: (A,), background is C.
            label_weights: (A,), 0 leaves an anchor out.
            codes: (A, K, 4) predicted codes, K is 1 or C.
            priors: (A, 4) xyxy.
            box_targets: (A, 4), boxes when ``reg_decoded_bbox``, else codes.
        """
        counted = label_weights > 0
        positive = where_true((labels >= 0) & (labels < self.num_classes) & counted)
        column = labels[positive] if codes.size(1) > 1 else torch.zeros_like(positive)
        own, prior, target = codes[positive, column], priors[positive], box_targets[positive]
        wide = torch.promote_types(scores.dtype, torch.float32)
        boxes, goals = self._in_frame_of(prior, own.to(wide), target.to(wide))
        batch = RankedBatch(scores.to(wide), labels, counted, positive, boxes, goals, self.tau)
        losses = self.loss_cls(batch)
        if not self.loss_cls.ranks_boxes:
            losses["loss_bbox"] = self._own_box_loss(prior, own.to(wide), target) + batch.zero
        return losses

    def _in_frame_of(self, priors: Tensor, codes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """(P, 4) predicted and true boxes in the frame of their priors: center 0, sides 1."""
        coder = self.bbox_coder
        # this coder's boxes move and grow with their prior
        follows = type(coder) is DeltaXYWHBBoxCoder and not coder.add_ctr_clamp
        if follows:
            unit = codes.new_tensor([-0.5, -0.5, 0.5, 0.5]).expand(len(codes), 4)
            boxes = _decoded(coder, unit, codes)
        else:
            boxes = boxes_in_frame(_decoded(coder, priors, codes), priors)
        if self.reg_decoded_bbox:
            return boxes, boxes_in_frame(targets, priors)
        if follows:
            return boxes, _decoded(coder, unit, targets)
        return boxes, boxes_in_frame(_decoded(coder, priors, targets), priors)

    def _own_box_loss(self, priors: Tensor, codes: Tensor, targets: Tensor) -> Tensor:
        """The head's own box loss on its positives, divided by their number."""
        if not len(codes):
            return codes.sum()
        boxes = _decoded(self.bbox_coder, priors, codes) if self.reg_decoded_bbox else codes
        weights = torch.ones_like(boxes)
        return self.loss_bbox(boxes, targets, weights, avg_factor=float(len(codes)))


class AnchorHeadRanking(RankingFeed):
    """For RetinaNet's heads (`AnchorHead.loss_by_feat`)."""

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: Any,
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: Any = None,
    ) -> dict[str, Tensor]:
        """As `AnchorHead.loss_by_feat`, but one ranking over all levels and images."""
        sizes = [level.shape[-2:] for level in cls_scores]
        anchors, valid = self.get_anchors(  # type: ignore[attr-defined]
            sizes, batch_img_metas, device=cls_scores[0].device
        )
        targets = self.get_targets(  # type: ignore[attr-defined]
            anchors,
            valid,
            batch_gt_instances,
            batch_img_metas,
            batch_gt_instances_ignore=batch_gt_instances_ignore,
        )
        priors, labels, label_weights, box_targets = self.assigned_levels(anchors, targets)
        return self.ranked_levels(
            cls_scores, bbox_preds, labels, label_weights, priors, box_targets
        )

    def assigned_levels(self, anchors: list[list[Tensor]], targets: tuple) -> tuple:
        """Anchors, labels, label weights and box targets, each a list with a tensor a level.

        Args:
            anchors: by image, then by level.
            targets: what the stock head's ``get_targets`` gave.
        """
        # each level's anchors, image after image, as the targets are
        priors = [
            torch.stack(list(map(get_box_tensor, level))) for level in zip(*anchors, strict=True)
        ]
        return priors, *targets[:3]

    def ranked_levels(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        labels: list[Tensor],
        label_weights: list[Tensor],
        priors: list[Tensor],
        box_targets: list[Tensor],
    ) -> dict[str, Tensor]:
        """The losses of lists with a tensor a level: maps (B, channels, H, W), else (B, A, ...)."""
        return self.ranked_losses(
            _all_rows([level.permute(0, 2, 3, 1) for level in cls_scores], self.num_classes),
            torch.cat([level.reshape(-1) for level in labels]),
            torch.cat([level.reshape(-1) for level in label_weights]),
            _all_rows([level.permute(0, 2, 3, 1) for level in bbox_preds], 4)[:, None],
            _all_rows(priors, 4),
            _all_rows(box_targets, 4),
        )


class RPNHeadRanking(AnchorHeadRanking):
    """For region proposal networks (`RPNHead.loss_by_feat`); one class, object."""

    tau = 0.7

    def loss_by_feat(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """As `RPNHead.loss_by_feat`."""
        losses = super().loss_by_feat(*args, **kwargs)
        return {_rpn_key(name): value for name, value in losses.items()}


class ATSSHeadRanking(AnchorHeadRanking):
    """For ATSS's head (`ATSSHead.loss_by_feat`), without its centerness.

    The ranking says which box is better located, so there is no centerness layer, neither in
    training nor in prediction, as in Rank & Sort.
    """

    def _init_layers(self) -> None:
        super()._init_layers()  # type: ignore[misc]
        self.atss_centerness = NoCenterness()

    def forward(self, x: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor]]:
        """Scores and codes of each level."""
        cls_scores, bbox_preds, *_ = super().forward(x)  # type: ignore[misc]
        return cls_scores, bbox_preds

    def assigned_levels(self, anchors: list[list[Tensor]], targets: tuple) -> tuple:
        """See `AnchorHeadRanking.assigned_levels`; ATSS's own targets begin with the anchors."""
        return targets[:4]


class NoCenterness(nn.Module):
    """Stands where ATSS has its centerness layer: no parameters, no channels."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, 0, H, W)."""
        return features[:, :0]


class BoxHeadRanking(RankingFeed):
    """For box heads of Faster and Mask R-CNN (`BBoxHead.loss`): sigmoid, no background column."""

    def loss(
        self,
        cls_score: Tensor,
        bbox_pred: Tensor,
        rois: Tensor,
        labels: Tensor,
        label_weights: Tensor,
        bbox_targets: Tensor,
        bbox_weights: Tensor,
        reduction_override: str | None = None,
    ) -> dict[str, Tensor]:
        """As `BBoxHead.loss`.

        Raises:
            ValueError: ``reduction_override`` is set: a ranking has one loss, not one a region.
        """
        if reduction_override is not None:
            raise ValueError("a ranking loss has no reduction_override")
        codes = bbox_pred.reshape(len(bbox_pred), bbox_pred.size(1) // 4, 4)
        losses = self.ranked_losses(
            cls_score, labels, label_weights, codes, rois[:, 1:], bbox_targets
        )
        return {**losses, **self.loss_cls.get_accuracy(cls_score.detach(), labels)}


def boxes_in_frame(boxes: Tensor, priors: Tensor) -> Tensor:
    """(P, 4) boxes, moved and scaled as their priors are to get center 0 and sides 1."""
    centers = (priors[:, :2] + priors[:, 2:]) / 2
    sides = (priors[:, 2:] - priors[:, :2]).clamp(min=_SMALLEST_SIDE)
    return (boxes - centers.repeat(1, 2)) / sides.repeat(1, 2)


def _decoded(coder: Any, priors: Tensor, codes: Tensor) -> Tensor:
    return get_box_tensor(coder.decode(priors, codes)) if len(codes) else codes


def _all_rows(levels: list[Tensor], width: int) -> Tensor:
    return torch.cat([level.reshape(-1, width) for level in levels])


def _rpn_key(name: str) -> str:
    """mmdet logs the losses of both stages side by side."""
    return name.replace("loss_", "loss_rpn_") if name.startswith("loss_") else f"rpn_{name}"
