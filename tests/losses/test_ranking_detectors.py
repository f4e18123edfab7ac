"""Every detector that can rank, with every ranking loss, put in by `apply_loss`."""

import math

import pytest
import torch

from losses import LossDefinition, apply_loss
from losses.ranking import PapFunctions

FUNCTIONS = PapFunctions.from_theta([0.2, 0.1, 0.3, 0.25, 0.4, 0.35, 0.5, 0.6] * 5).to_json()
BRANCHES = {
    "ap": {"type": "ranking", "loss": "ap"},
    "alrp": {"type": "ranking", "loss": "alrp", "balance_every": 2},
    "pap": {"type": "ranking", "loss": "pap", "functions": FUNCTIONS, "box_gradient_scale": 2.0},
    "rank_sort": {"type": "ranking", "loss": "rank_sort"},
}
HEADS = {
    "retinanet": "RankingRetinaHead",
    "atss": "RankingATSSHead",
    "faster": "RankingShared2FCBBoxHead",
    "mask": "RankingShared2FCBBoxHead",
}
TWO_STAGE = ("faster", "mask")


def ranking_definition(family, kind, rpn=False):
    bbox = {"type": "stock", "loss": {"type": "GIoULoss"}} if kind == "ap" else None
    data = {"name": "test", "cls": BRANCHES[kind], "bbox": bbox}
    return LossDefinition.from_json({**data, "rpn": BRANCHES[kind]} if rpn else data)


def head_of(model):
    return model.roi_head.bbox_head if hasattr(model, "roi_head") else model.bbox_head


def total(values):
    return sum(value for name, value in values.items() if "loss" in name)


CASES = [
    (family, kind, rpn)
    for family in HEADS
    for kind in BRANCHES
    for rpn in ((False, True) if family in TWO_STAGE else (False,))
]


@pytest.mark.parametrize(("family", "kind", "rpn"), CASES)
def test_they_train_two_steps_and_predict(
    family, kind, rpn, tiny_config, tiny_batch, build, loss_dict
):
    config = apply_loss(tiny_config(family), ranking_definition(family, kind, rpn))
    model = build(config)
    assert type(head_of(model)).__name__ == HEADS[family]
    if family in TWO_STAGE:
        assert type(model.rpn_head).__name__ == ("RankingRPNHead" if rpn else "RPNHead")
        assert type(model.roi_head.bbox_sampler).__name__ == "PseudoSampler"
        assert head_of(model).fc_cls.out_features == 3
    batch = tiny_batch(boxes=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005)
    for _ in range(2):
        values = loss_dict(model, batch)
        assert "loss" not in values, "mmdet writes the total under this name"
        wanted = {"loss_pap"} if kind == "pap" else {"loss_cls", "loss_bbox"}
        assert wanted <= set(values)
        if rpn:
            assert {name.replace("loss_", "loss_rpn_") for name in wanted} <= set(values)
        assert all(math.isfinite(value.item()) for value in values.values())
        _, logged = model.parse_losses(values)
        assert set(values) < set(logged)
        optimizer.zero_grad()
        total(values).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, f"{name} would stop distributed training"
            assert torch.isfinite(parameter.grad).all(), name
        assert head_of(model).loss_cls.use_sigmoid
        optimizer.step()
    model.eval()
    with torch.no_grad():
        found = model.predict(batch["inputs"], batch["data_samples"])
    for sample in found:
        assert len(sample.pred_instances)
        assert torch.isfinite(sample.pred_instances.bboxes).all()
        assert ((sample.pred_instances.scores >= 0) & (sample.pred_instances.scores <= 1)).all()
        assert sample.pred_instances.labels.max() < 3


@pytest.mark.parametrize("family", HEADS)
def test_the_overlaps_that_pap_ranks_vary(
    family, tiny_config, tiny_batch, build, loss_dict, monkeypatch
):
    seen = []
    import losses.ranking_losses as module

    original = module.pap_loss
    monkeypatch.setattr(module, "pap_loss", lambda *a, **k: seen.append(a) or original(*a, **k))
    config = apply_loss(tiny_config(family), ranking_definition(family, "pap"))
    if family in TWO_STAGE:  # an untrained network proposes few boxes that fit
        config.model.train_cfg.rcnn.assigner.update(
            pos_iou_thr=0.2, neg_iou_thr=0.2, min_pos_iou=0.2
        )
    loss_dict(build(config), tiny_batch(boxes=4))
    _, ious, targets, _ = seen[0]
    assert not ious[targets != 1].any()
    own = ious[targets == 1].detach()
    assert ((own >= 0) & (own <= 1)).all()
    assert own.max() > 1.05 * own.min()


@pytest.mark.parametrize("kind", BRANCHES)
@pytest.mark.parametrize("family", HEADS)
def test_images_without_objects(family, kind, tiny_config, tiny_batch, build, loss_dict):
    definition = ranking_definition(family, kind, family in TWO_STAGE)
    model = build(apply_loss(tiny_config(family), definition))
    values = loss_dict(model, tiny_batch(boxes=0))
    total(values).backward()
    assert all(math.isfinite(value.item()) for value in values.values())
    for name, parameter in model.named_parameters():
        if "mask_head" not in name:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("kind", BRANCHES)
@pytest.mark.parametrize("family", ["retinanet", "faster"])
def test_mixed_precision_ranks_in_float32(family, kind, tiny_config, tiny_batch, build, loss_dict):
    definition = ranking_definition(family, kind, family in TWO_STAGE)
    model = build(apply_loss(tiny_config(family), definition))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = loss_dict(model, tiny_batch())
    assert all(value.dtype == torch.float32 for name, value in values.items() if "loss" in name)
    total(values).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_alrp_s_balance_is_in_the_checkpoint_of_the_detector(tiny_config, build):
    model = build(apply_loss(tiny_config("faster"), ranking_definition("faster", "alrp", True)))
    for head in ("rpn_head", "roi_head.bbox_head"):
        assert float(model.state_dict()[f"{head}.loss_cls.balance"]) == 50
