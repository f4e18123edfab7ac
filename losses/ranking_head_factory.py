"""Builds the form of mmdet's heads whose loss is a ranking over the whole batch."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from mmdet.registry import MODELS
from torch import nn

from losses.errors import DefinitionError, UnsupportedHeadError
from losses.head_factory import class_with_seam
from losses.ranking_box_losses import ALRPRankingLoss, RankSortRankingLoss
from losses.ranking_heads import (
    AnchorHeadRanking,
    ATSSHeadRanking,
    BoxHeadRanking,
    RankingFeed,
    RPNHeadRanking,
)
from losses.ranking_losses import APRankingLoss, PAPRankingLoss, RankingLoss

# mmdet's seams, nearest base class first
_RANKING_SEAMS: tuple[tuple[str, type[RankingFeed]], ...] = (
    ("BBoxHead", BoxHeadRanking),
    ("ATSSHead", ATSSHeadRanking),
    ("RPNHead", RPNHeadRanking),
    ("RetinaHead", AnchorHeadRanking),
    ("RetinaSepBNHead", AnchorHeadRanking),
)

RANKING_LOSS_MODULES: tuple[type[RankingLoss], ...] = (
    APRankingLoss,
    ALRPRankingLoss,
    PAPRankingLoss,
    RankSortRankingLoss,
)


@cache
def ranking_class(head: type) -> type:
    """The class of heads that are ``head`` and whose loss is a ranking.

    Raises:
        UnsupportedHeadError: ``head`` derives from none of mmdet's heads that have a seam here.
    """
    return class_with_seam(head, _RANKING_SEAMS, "Ranking")


@MODELS.register_module(name="RankingHead")
def build_ranking_head(
    head: str | type, loss_ranking: Mapping[str, Any], **settings: Any
) -> nn.Module:
    """A detection head whose loss ranks all scores of a batch.

    In a config: ``dict(type='RankingHead', head='RetinaHead', loss_ranking=dict(type=...), ...)``
    with the head's own settings. ``loss_ranking`` takes the place of ``loss_cls``; ``loss_bbox``
    is used beside AP loss only, the other ranking losses are losses of the boxes too.

    Args:
        head: registered name of the stock head.
        loss_ranking: config of a `RankingLoss`.
        settings: the arguments of the stock head.

    Raises:
        UnsupportedHeadError: the head is unknown or has no seam.
        DefinitionError: ``loss_ranking`` is none of the ranking losses.
    """
    stock = head if isinstance(head, type) else MODELS.get(head)
    if stock is None:
        raise UnsupportedHeadError(
            str(head), [seam for seam, _ in _RANKING_SEAMS], "not registered"
        )
    names = [module.__name__ for module in RANKING_LOSS_MODULES]
    kind = loss_ranking.get("type")
    if kind not in (*RANKING_LOSS_MODULES, *names):
        raise DefinitionError(
            f"must be one of {', '.join(names)}, got {kind!r}", "loss_ranking.type"
        )
    # dense heads take their number of channels from use_sigmoid, before they build the loss
    settings["loss_cls"] = {**loss_ranking, "use_sigmoid": True}
    return ranking_class(stock)(**settings)
