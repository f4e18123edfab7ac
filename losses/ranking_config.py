"""A ranking loss in a detector's config: put on a head, taken off it, and the sampler it needs."""

from collections.abc import Mapping
from typing import Any

from losses.definition import LossDefinition
from losses.errors import DefinitionError
from losses.families import (
    FAMILIES,
    RANKING_HEAD,
    Family,
    box_heads,
    model_part,
    rpn_head,
    type_name,
)
from losses.ranking_branch import RankingBranch

# of a `train_cfg`: the sampler that a ranking loss has taken the place of; mmdet does not read it
REPLACED_SAMPLER = "replaced_sampler"


def check_ranking(definition: LossDefinition, family: Family) -> None:
    """Whether the ranking losses of a definition fit a detector.

    Raises:
        DefinitionError: one does not.
    """
    fitting = ", ".join(each.name for each in FAMILIES.values() if each.ranks)
    for place, branch in (("cls", definition.cls), ("rpn", definition.rpn)):
        if isinstance(branch, RankingBranch) and not family.ranks:
            raise DefinitionError(
                f"ranking losses do not fit {family.name}; they fit {fitting}", f"{place}.type"
            )
    if definition.rpn is not None and not family.two_stage:
        raise DefinitionError(f"must be null: {family.name} has no region proposal network", "rpn")


def ranks(config: Mapping[str, Any]) -> bool:
    """Whether a detector's config, or its ``model`` part, has a head with a ranking loss."""
    model = model_part(config)
    heads = [*box_heads(model), model.get("rpn_head")]
    return any(isinstance(h, Mapping) and type_name(h.get("type")) == RANKING_HEAD for h in heads)


def unwrap_ranking(head: dict[str, Any]) -> dict[str, Any] | None:
    """Makes a head's config the stock one again.

    Returns:
        Config of the ranking loss that it had; None if it had none.
    """
    if type_name(head["type"]) != RANKING_HEAD:
        return None
    head["type"] = head.pop("head")
    return head.pop("loss_ranking")


def wrap_ranking(head: dict[str, Any], loss: Mapping[str, Any]) -> None:
    """Makes a stock head's config one of a head with a ranking loss; its own settings stay."""
    head["head"] = head["type"]
    head["type"] = RANKING_HEAD
    head["loss_ranking"] = dict(loss)


def set_sampler(train_cfg: Any, ranking: bool) -> None:
    """Lets a head see every anchor or proposal when its loss ranks, else what it saw before.

    Args:
        train_cfg: of the head; anything but a dict is left alone.
        ranking: whether its loss is a ranking.
    """
    if not isinstance(train_cfg, dict):
        return
    if not ranking:
        if REPLACED_SAMPLER in train_cfg:
            before = train_cfg.pop(REPLACED_SAMPLER)
            train_cfg.pop("sampler", None)
            if before is not None:
                train_cfg["sampler"] = before
        return
    sampler = train_cfg.get("sampler")
    if sampler is None or type_name(sampler.get("type")) != "PseudoSampler":
        train_cfg[REPLACED_SAMPLER] = sampler
        train_cfg["sampler"] = {"type": "PseudoSampler"}


def put_rpn_ranking(model: Mapping[str, Any], definition: LossDefinition) -> None:
    """Puts a definition's ranking loss into the region proposal network, or takes one off.

    One that is there stays when the definition names neither it nor a classification loss.

    Raises:
        UnsupportedHeadError: the definition has such a loss, and the network is not mmdet's own.
    """
    head = rpn_head(model) if definition.rpn is not None else model.get("rpn_head")
    if not isinstance(head, dict):
        return
    loss = unwrap_ranking(head)
    if definition.rpn is not None:
        loss = definition.rpn.config
    elif definition.cls is not None:
        loss = None
    if loss is not None:
        wrap_ranking(head, loss)
    train_cfg = model.get("train_cfg")
    if isinstance(train_cfg, dict):
        set_sampler(train_cfg.get("rpn"), loss is not None)
