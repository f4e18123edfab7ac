"""apply_loss with ranking losses: heads and samplers, taken off again, kept, refused, trained."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from losses import (
    CATALOG,
    DefinitionError,
    LossDefinition,
    RankingBranch,
    UnsupportedHeadError,
    apply_loss,
    detector_family,
)
from losses.ranking_config import ranks

FITTING = ("retinanet", "atss", "faster", "mask")
TWO_STAGE = ("faster", "mask")
HEADS = {
    "retinanet": "RetinaHead",
    "atss": "ATSSHead",
    "faster": "Shared2FCBBoxHead",
    "mask": "Shared2FCBBoxHead",
}
STOCK = {
    "retinanet": ("focal-l1", "focal-giou", "qfl-giou"),
    "atss": ("focal-giou", "cse-autoloss-b", "qfl-giou"),
    "faster": ("ce-l1", "ce-giou", "cse-autoloss-a"),
    "mask": ("ce-l1", "ce-giou", "cse-autoloss-a"),
}


def ranking_names(family):
    names = ["pap-retinanet", "alrp", "rank-sort"]
    if family != "atss":
        names.append("ap-l1")  # ATSS has no loss on deltas
    if family in TWO_STAGE:
        names += ["pap-faster-rcnn", "alrp-faster-rcnn", "rank-sort-faster-rcnn"]
    return names


PAIRS = [(family, name) for family in FITTING for name in ranking_names(family)]


def box_head(config):
    return config.model.get("roi_head", config.model).bbox_head


def samplers(config):
    cfg = config.model.train_cfg
    return {"rpn": cfg.rpn.sampler, "rcnn": cfg.rcnn.sampler} if "rcnn" in cfg else cfg.sampler


@pytest.mark.parametrize("family", FITTING)
def test_head_loss_and_sampler(family, tiny_config):
    config = tiny_config(family)
    before = copy.deepcopy(config.to_dict())
    applied = apply_loss(config, CATALOG["pap-retinanet"])
    assert config.to_dict() == before
    head, stock = box_head(applied), box_head(config)
    assert (head.type, head.head) == ("RankingHead", HEADS[family])
    loss = head.loss_ranking
    assert loss.type == "PAPRankingLoss"
    assert loss.functions.to_dict() == CATALOG["pap-retinanet"].cls.functions.to_json()
    assert (loss.box_gradient_scale, loss.loss_weight, loss.num_topk) == (4.1231, 1.0, 100_000)
    own = {name: value for name, value in head.items() if name not in ("head", "loss_ranking")}
    assert own | {"type": HEADS[family]} == stock.to_dict()
    assert applied.custom_imports.imports == ["losses"]
    assert ranks(applied)
    assert ranks(applied.model)
    assert not ranks(config)
    assert detector_family(applied).name == family
    if family in TWO_STAGE:
        assert samplers(applied)["rcnn"] == {"type": "PseudoSampler"}
        assert samplers(applied)["rpn"].type == "RandomSampler"
        assert applied.model.rpn_head == config.model.rpn_head
    else:
        assert samplers(applied) == {"type": "PseudoSampler"}


def test_each_loss_in_the_config(tiny_config):
    wanted = {
        "ap-l1": {"type": "APRankingLoss", "delta": 1.0, "loss_weight": 1.0},
        "alrp": {
            "type": "ALRPRankingLoss",
            "delta": 1.0,
            "box_loss": "GIoULoss",
            "loss_weight": 1.0,
            "box_weight": 1.0,
            "balance_start": 50.0,
            "balance_every": 3665,
        },
        "rank-sort": {
            "type": "RankSortRankingLoss",
            "delta": 0.5,
            "box_loss": "GIoULoss",
            "loss_weight": 1.0,
            "box_weight": 1.0,
        },
    }
    for name, loss in wanted.items():
        assert box_head(apply_loss(tiny_config("faster"), CATALOG[name])).loss_ranking == loss
    weighed = LossDefinition("w", RankingBranch("alrp", loss_weight=0.0, box_weight=0.25))
    loss = box_head(apply_loss(tiny_config("faster"), weighed)).loss_ranking
    assert (loss.loss_weight, loss.box_weight) == (0.0, 0.25)


@pytest.mark.parametrize("name", ["pap-faster-rcnn", "alrp-faster-rcnn", "rank-sort-faster-rcnn"])
def test_the_rpn(name, tiny_config):
    config = tiny_config("faster")
    applied = apply_loss(config, CATALOG[name])
    head = applied.model.rpn_head
    assert (head.type, head.head) == ("RankingHead", "RPNHead")
    assert head.loss_ranking == CATALOG[name].rpn.config
    assert head.loss_ranking.type == box_head(applied).loss_ranking.type
    assert head.loss_ranking != box_head(applied).loss_ranking
    assert {sampler.type for sampler in samplers(applied).values()} == {"PseudoSampler"}
    alone = apply_loss(config, LossDefinition("rpn only", rpn=CATALOG[name].rpn))
    assert alone.model.rpn_head == head
    assert alone.model.roi_head == config.model.roi_head
    assert samplers(alone)["rcnn"] == samplers(config)["rcnn"]


def test_ap_goes_with_a_box_loss_of_its_own(tiny_config):
    deltas = box_head(apply_loss(tiny_config("retinanet"), CATALOG["ap-l1"]))
    assert (deltas.loss_bbox, deltas.reg_decoded_bbox) == (
        {"type": "L1Loss", "loss_weight": 1},
        False,
    )
    boxes = CATALOG["ap-l1"].with_branch("bbox", CATALOG["ce-giou"].bbox)
    for family, weight in (("retinanet", 1.0), ("faster", 10.0)):
        head = box_head(apply_loss(tiny_config(family), boxes))
        assert head.loss_bbox == {"type": "GIoULoss", "loss_weight": weight}
        assert head.reg_decoded_bbox is True
    with pytest.raises(DefinitionError, match=r"L1Loss.*atss"):
        apply_loss(tiny_config("atss"), CATALOG["ap-l1"])


@pytest.mark.parametrize(("family", "name"), PAIRS)
def test_nothing_of_a_ranking_loss_is_left_under_the_next_loss(family, name, tiny_config):
    config = tiny_config(family)
    ranking = apply_loss(config, CATALOG[name])
    for after in (*STOCK[family], *ranking_names(family)):
        again = apply_loss(ranking, CATALOG[after])
        fresh = apply_loss(config, CATALOG[after])
        if CATALOG[after].bbox is None:
            # a box loss that is named by neither is the detector's own at that time
            for head in (box_head(again), box_head(fresh)):
                head.pop("loss_bbox")
                head.pop("reg_decoded_bbox", None)
        assert again.to_dict() == fresh.to_dict(), after


@pytest.mark.parametrize(("family", "name"), PAIRS)
def test_a_definition_without_branches_keeps_a_ranking_loss(family, name, tiny_config):
    once = apply_loss(tiny_config(family), CATALOG[name])
    assert apply_loss(once, CATALOG["default"]).to_dict() == once.to_dict()
    assert apply_loss(once, CATALOG[name]).to_dict() == once.to_dict()


def test_what_a_kept_ranking_loss_does_not_go_with(tiny_config):
    giou = LossDefinition("giou", bbox=CATALOG["focal-giou"].bbox)
    kept = apply_loss(apply_loss(tiny_config("retinanet"), CATALOG["ap-l1"]), giou)
    assert box_head(kept).loss_ranking.type == "APRankingLoss"
    assert box_head(kept).loss_bbox.type == "GIoULoss"
    pap = apply_loss(tiny_config("retinanet"), CATALOG["pap-retinanet"])
    with pytest.raises(DefinitionError, match=r"bbox: .*PAPRankingLoss"):
        apply_loss(pap, giou)
    atss = apply_loss(tiny_config("atss"), CATALOG["alrp"])
    with pytest.raises(DefinitionError, match=r"iou_centerness: .*ALRPRankingLoss"):
        apply_loss(atss, CATALOG["default-iou-centerness"])


def test_the_rpn_s_own_losses_return_with_another_box_head_loss(tiny_config):
    config = tiny_config("faster")
    both = apply_loss(config, CATALOG["pap-faster-rcnn"])
    stock = apply_loss(both, CATALOG["ce-l1"])
    assert stock.model.rpn_head == config.model.rpn_head
    assert samplers(stock) == samplers(config)
    box_only = apply_loss(both, CATALOG["pap-identity"])
    assert box_only.model.rpn_head == config.model.rpn_head
    assert samplers(box_only)["rpn"] == samplers(config)["rpn"]


def test_a_sampler_that_was_not_there_is_not_there_again(tiny_config):
    config = tiny_config("retinanet")
    assert "sampler" not in config.model.train_cfg
    back = apply_loss(apply_loss(config, CATALOG["alrp"]), CATALOG["focal-l1"])
    assert back.model.train_cfg == config.model.train_cfg
    config.model.train_cfg.sampler = {"type": "mmdet.PseudoSampler"}
    applied = apply_loss(config, CATALOG["alrp"])
    assert applied.model.train_cfg == config.model.train_cfg


@pytest.mark.parametrize("family", ["fcos", "cascade"])
@pytest.mark.parametrize("name", ["ap-l1", "alrp", "pap-identity", "rank-sort"])
def test_families_without_a_ranking_form(family, name, tiny_config):
    with pytest.raises(DefinitionError, match=rf"cls\.type: .*{family}.*faster, mask, atss, ret"):
        apply_loss(tiny_config(family), CATALOG[name])


def test_an_rpn_loss_needs_an_rpn_of_mmdet(tiny_config):
    wanted = LossDefinition("rpn only", rpn=RankingBranch("ap"))
    for family in ("retinanet", "atss"):
        with pytest.raises(DefinitionError, match=rf"rpn: .*{family} has no region proposal"):
            apply_loss(tiny_config(family), wanted)
    with pytest.raises(DefinitionError, match=r"rpn\.type: .*cascade"):
        apply_loss(tiny_config("cascade"), wanted)
    config = tiny_config("faster")
    config.model.rpn_head.type = "GARPNHead"
    with pytest.raises(UnsupportedHeadError, match=r"GARPNHead.*own losses"):
        apply_loss(config, wanted)
    assert apply_loss(config, CATALOG["ap-l1"]).model.rpn_head == config.model.rpn_head
    del config.model.rpn_head
    with pytest.raises(UnsupportedHeadError, match="no region proposal network"):
        apply_loss(config, wanted)


def test_classes_in_a_python_config(tiny_config, build):
    config = tiny_config("faster")
    config.model.rpn_head.type = MODELS.get("RPNHead")
    config.model.roi_head.bbox_head.type = MODELS.get("Shared2FCBBoxHead")
    applied = apply_loss(config, CATALOG["pap-faster-rcnn"])
    assert applied.model.rpn_head.head.endswith(".RPNHead")
    again = Config.fromstring(applied.pretty_text, ".py")
    assert again.to_dict() == applied.to_dict()
    model = build(again)
    assert type(model.rpn_head).__name__ == "RankingRPNHead"
    assert type(model.roi_head.bbox_head).__name__ == "RankingShared2FCBBoxHead"


@pytest.mark.parametrize(
    ("family", "name"),
    [pair for pair in PAIRS if pair[0] != "mask"] + [("mask", "pap-faster-rcnn")],
)
def test_it_trains_and_so_does_what_follows(
    family, name, tiny_config, tiny_batch, build, loss_dict
):
    applied = apply_loss(tiny_config(family), CATALOG[name])
    for config in (applied, apply_loss(applied, CATALOG[STOCK[family][0]])):
        model = build(Config.fromstring(config.pretty_text, ".py"))
        values = {k: v for k, v in loss_dict(model, tiny_batch()).items() if "loss" in k}
        assert all(torch.isfinite(value) for value in values.values())
        sum(values.values()).backward()
        for parameter, value in model.named_parameters():
            if value.grad is not None:
                assert torch.isfinite(value.grad).all(), parameter
        seen = {k for k in values if not k.startswith(("loss_rpn", "rpn_", "loss_mask"))}
        if config is not applied:
            assert {"loss_cls", "loss_bbox"} <= seen
        else:
            assert seen == ({"loss_pap"} if name.startswith("pap") else {"loss_cls", "loss_bbox"})
