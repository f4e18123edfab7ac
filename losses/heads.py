"""Heads that give the IoUs of their positives to the losses: one mixin per seam of mmdet.

A stock head calls ``loss_cls(scores, labels, ...)`` and never says how good the boxes are. Each
mixin decodes the positive predictions first, lends their IoUs to the classification loss, and
then lets the stock head compute its losses. The same IoUs replace the centerness target of FCOS
and ATSS when ``iou_centerness`` is set, as in CSE-AutoLoss.
"""

from typing import Any

import torch
from torch import Tensor, nn

from losses.boxes import paired_ious


class IoUFeed:
    """Base of the mixins.

    Attributes:
        iou_centerness: the centerness target is the IoU of the decoded prediction.
    """

    iou_centerness = False
    loss_cls: nn.Module
    bbox_coder: Any
    num_classes: int
    _ious: Tensor | None = None

    @property
    def wants_ious(self) -> bool:
        """Whether anything reads the IoUs."""
        return self.iou_centerness or getattr(self.loss_cls, "wants_ious", False)

    def lend(self, ious: Tensor) -> None:
        """Hold the IoUs, (P,) in row order, until `take_back`, and show them to ``loss_cls``."""
        self._ious = ious
        if getattr(self.loss_cls, "wants_ious", False):
            self.loss_cls.lent_ious = ious

    def take_back(self) -> None:
        """Forget the IoUs: those of another batch or level must never be used.

        No trace is left on the head, which is then as it was built: a trial is paused only where
        nothing but its tensors has changed.
        """
        self.__dict__.pop("_ious", None)
        if getattr(self.loss_cls, "wants_ious", False):
            self.loss_cls.lent_ious = None  # type: ignore[assignment]


class RoIHeadIoUFeed(IoUFeed):
    """For box heads of Faster, Cascade and Mask R-CNN (`BBoxHead.loss`)."""

    reg_class_agnostic: bool
    reg_decoded_bbox: bool

    def loss(
        self,
        cls_score: Tensor,
        bbox_pred: Tensor,
        rois: Tensor,
        labels: Tensor,
        label_weights: Tensor,
        bbox_targets: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> dict:
        """As `BBoxHead.loss`."""
        try:
            if self.wants_ious:
                self.lend(self._positive_ious(bbox_pred, rois, labels, bbox_targets))
            return super().loss(  # type: ignore[misc]
                cls_score, bbox_pred, rois, labels, label_weights, bbox_targets, *args, **kwargs
            )
        finally:
            self.take_back()

    @torch.no_grad()
    def _positive_ious(
        self, bbox_pred: Tensor, rois: Tensor, labels: Tensor, targets: Tensor
    ) -> Tensor:
        positive = (labels >= 0) & (labels < self.num_classes)
        if not bool(positive.any()):
            return rois.new_zeros(0)
        priors, target = rois[positive, 1:], targets[positive]
        codes = bbox_pred.view(bbox_pred.size(0), -1, target.size(-1))
        column = torch.zeros_like(labels) if self.reg_class_agnostic else labels
        decoded = decoded_boxes(self.bbox_coder, priors, codes[positive, column[positive]])
        if not self.reg_decoded_bbox:
            target = decoded_boxes(self.bbox_coder, priors, target)
        return paired_ious(decoded, target)


class AnchorHeadIoUFeed(IoUFeed):
    """For RetinaNet's head (`AnchorHead.loss_by_feat_single`, one pyramid level at a time)."""

    reg_decoded_bbox: bool

    def loss_by_feat_single(
        self,
        cls_score: Tensor,
        bbox_pred: Tensor,
        anchors: Tensor,
        labels: Tensor,
        label_weights: Tensor,
        bbox_targets: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> tuple:
        """As `AnchorHead.loss_by_feat_single`."""
        try:
            if self.wants_ious:
                self.lend(level_ious(self, bbox_pred, anchors, labels, bbox_targets))
            return super().loss_by_feat_single(  # type: ignore[misc]
                cls_score, bbox_pred, anchors, labels, label_weights, bbox_targets, *args, **kwargs
            )
        finally:
            self.take_back()


class ATSSHeadIoUFeed(IoUFeed):
    """For ATSS's head (`ATSSHead.loss_by_feat_single`, one pyramid level at a time)."""

    reg_decoded_bbox: bool

    def loss_by_feat_single(
        self,
        anchors: Tensor,
        cls_score: Tensor,
        bbox_pred: Tensor,
        centerness: Tensor,
        labels: Tensor,
        label_weights: Tensor,
        bbox_targets: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> tuple:
        """As `ATSSHead.loss_by_feat_single`."""
        try:
            if self.wants_ious:
                self.lend(level_ious(self, bbox_pred, anchors, labels, bbox_targets))
            return super().loss_by_feat_single(  # type: ignore[misc]
                anchors,
                cls_score,
                bbox_pred,
                centerness,
                labels,
                label_weights,
                bbox_targets,
                *args,
                **kwargs,
            )
        finally:
            self.take_back()

    def centerness_target(self, anchors: Tensor, gts: Tensor) -> Tensor:
        """(P,) in [0, 1]: mmdet's centerness, or the IoU with ``iou_centerness``."""
        if self.iou_centerness and self._ious is not None:
            return self._ious
        return super().centerness_target(anchors, gts)  # type: ignore[misc]


class FCOSHeadIoUFeed(IoUFeed):
    """For FCOS's head (`FCOSHead.loss_by_feat`, all pyramid levels at once).

    The IoUs are taken where the stock head asks for its targets, once and before its losses, so
    nothing is computed twice.
    """

    _bbox_preds: list[Tensor] | None = None

    def loss_by_feat(
        self, cls_scores: list[Tensor], bbox_preds: list[Tensor], *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """As `FCOSHead.loss_by_feat`."""
        self._bbox_preds = bbox_preds
        try:
            return super().loss_by_feat(cls_scores, bbox_preds, *args, **kwargs)  # type: ignore[misc]
        finally:
            self.__dict__.pop("_bbox_preds", None)
            self.take_back()

    def get_targets(
        self, points: list[Tensor], *args: Any, **kwargs: Any
    ) -> tuple[list[Tensor], list[Tensor]]:
        """As `FCOSHead.get_targets`."""
        labels, targets = super().get_targets(points, *args, **kwargs)  # type: ignore[misc]
        if self._bbox_preds is not None and self.wants_ious:
            self.lend(self._positive_ious(self._bbox_preds, points, labels, targets))
        return labels, targets

    @torch.no_grad()
    def _positive_ious(
        self,
        bbox_preds: list[Tensor],
        points: list[Tensor],
        labels: list[Tensor],
        targets: list[Tensor],
    ) -> Tensor:
        images = bbox_preds[0].size(0)
        label = torch.cat(labels)
        positive = (label >= 0) & (label < self.num_classes)
        pred = torch.cat([level.permute(0, 2, 3, 1).reshape(-1, 4) for level in bbox_preds])
        centers = torch.cat([level.repeat(images, 1) for level in points])[positive]
        decoded = decoded_boxes(self.bbox_coder, centers, pred[positive])
        return paired_ious(
            decoded, decoded_boxes(self.bbox_coder, centers, torch.cat(targets)[positive])
        )

    def centerness_target(self, pos_bbox_targets: Tensor) -> Tensor:
        """(P,) in [0, 1]: mmdet's centerness, or the IoU with ``iou_centerness``."""
        if self.iou_centerness and self._ious is not None:
            return self._ious
        return super().centerness_target(pos_bbox_targets)  # type: ignore[misc]


def decoded_boxes(coder: Any, priors: Tensor, codes: Tensor) -> Tensor:
    """(P, 4) xyxy from (P, 4) priors (or (P, 2) points) and (P, 4) codes; P may be 0."""
    from mmdet.structures.bbox import get_box_tensor

    return get_box_tensor(coder.decode(priors, codes)) if len(codes) else codes.reshape(-1, 4)


@torch.no_grad()
def level_ious(
    head: Any, bbox_pred: Tensor, anchors: Tensor, labels: Tensor, targets: Tensor
) -> Tensor:
    """IoUs of the positives of one pyramid level of an anchor head.

    Args:
        head: its ``bbox_coder``, ``num_classes`` and ``reg_decoded_bbox`` are used.
        bbox_pred: (B, A * 4, H, W) codes.
        anchors: (B, H * W * A, 4) xyxy.
        labels: (B, H * W * A), background is ``num_classes``.
        targets: (B, H * W * A, 4), boxes when ``reg_decoded_bbox``, else codes.

    Returns:
        (P,) in row order.
    """
    label = labels.reshape(-1)
    positive = (label >= 0) & (label < head.num_classes)
    codes = bbox_pred.permute(0, 2, 3, 1).reshape(-1, targets.size(-1))[positive]
    priors = anchors.reshape(-1, anchors.size(-1))[positive]
    target = targets.reshape(-1, targets.size(-1))[positive]
    if not head.reg_decoded_bbox:
        target = decoded_boxes(head.bbox_coder, priors, target)
    return paired_ious(decoded_boxes(head.bbox_coder, priors, codes), target)
