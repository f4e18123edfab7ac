"""Heads with a ranking loss, against the pure functions on a batch that is flattened by hand."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData

from losses.errors import DefinitionError, UnsupportedHeadError
from losses.ranking import PapFunctions, alrp_loss, ap_loss, pap_loss, rank_sort_loss
from losses.ranking_head_factory import ranking_class

FUNCTIONS = PapFunctions.from_theta([0.3, 0.15, 0.2, 0.3, 0.4, 0.35, 0.5, 0.55] * 5)
SCALE = 3.7
LOSSES = {
    "ap": {"type": "APRankingLoss", "delta": 0.8},
    "alrp": {"type": "ALRPRankingLoss", "delta": 0.8, "balance_start": 5.0, "box_weight": 0.5},
    "pap": {
        "type": "PAPRankingLoss",
        "functions": FUNCTIONS.to_json(),
        "box_gradient_scale": SCALE,
    },
    "rank_sort": {"type": "RankSortRankingLoss", "delta": 0.4, "box_weight": 0.5},
}
TAU = {"retinanet": 0.5, "atss": 0.5, "rpn": 0.7, "box": 0.5}
DENSE = ("retinanet", "atss", "rpn")


def ranked(head, loss):
    head["head"], head["type"] = head["type"], "RankingHead"
    head["loss_ranking"] = copy.deepcopy(loss)


def dense_model(place, loss, tiny_config, build):
    """A detector with a ranking head, and the head; predictions are spread out."""
    config = tiny_config("faster" if place == "rpn" else place)
    config.model.backbone.norm_cfg = {"type": "BN", "requires_grad": True}
    if place == "rpn":
        ranked(config.model.rpn_head, loss)
        config.model.train_cfg.rpn.sampler = {"type": "PseudoSampler"}
    else:
        ranked(config.model.bbox_head, loss)
    model = build(config)
    return model, model.rpn_head if place == "rpn" else model.bbox_head


def spread(outputs, seed=4):
    """Scores and codes with enough spread that ranks and boxes differ."""
    generator = torch.Generator().manual_seed(seed)
    scores, codes = [], []
    for score, code in zip(*outputs, strict=True):
        scores.append(torch.randn(score.shape, generator=generator).double())
        codes.append(torch.randn(code.shape, generator=generator).double() * 0.3)
    return [t.requires_grad_() for t in scores], [t.requires_grad_() for t in codes]


def objects(batch, one_class):
    found = []
    for sample in batch["data_samples"]:
        gt = copy.deepcopy(sample.gt_instances)
        if one_class:
            gt.labels = torch.zeros_like(gt.labels)
        found.append(InstanceData(bboxes=gt.bboxes, labels=gt.labels))
    return found, [sample.metainfo for sample in batch["data_samples"]]


def by_hand(head, scores, codes, objects_of, metas):
    """Logits, targets and boxes, one image after the other, by mmdet's assigner and coder."""
    sizes = [level.shape[-2:] for level in scores]
    anchors, _ = head.get_anchors(sizes, metas, device="cpu")
    logits, targets, boxes, goals, rows = [], [], [], [], []
    for index, gt in enumerate(objects_of):
        prior = torch.cat(anchors[index])
        score = torch.cat(
            [s[index].permute(1, 2, 0).reshape(-1, head.cls_out_channels) for s in scores]
        )
        code = torch.cat([c[index].permute(1, 2, 0).reshape(-1, 4) for c in codes])
        args = [InstanceData(priors=prior)]
        if type(head.assigner).__name__ == "ATSSAssigner":
            args.append([len(level) for level in anchors[index]])
        assigned = head.assigner.assign(*args, gt).gt_inds
        target = torch.zeros_like(score)
        target[assigned < 0] = -1
        positive = (assigned > 0).nonzero().flatten()
        target[positive, gt.labels[assigned[positive] - 1]] = 1
        logits.append(score.flatten())
        targets.append(target.flatten())
        rows.append(score[positive])
        boxes.append(head.bbox_coder.decode(prior[positive].double(), code[positive]))
        goals.append(gt.bboxes[assigned[positive] - 1].double())
    return tuple(map(torch.cat, (logits, targets, boxes, goals, rows)))


def expected_losses(kind, tau, logits, targets, boxes, goals, rows):
    giou = bbox_overlaps(boxes, goals, mode="giou", is_aligned=True, eps=1e-9)
    # a positive whose box misses its object stays a positive
    iou = bbox_overlaps(boxes, goals, is_aligned=True, eps=1e-9).detach().clamp(min=1e-7)
    positive = targets == 1
    if kind == "ap":
        return {"cls": ap_loss(logits, targets, 0.8)}
    if kind == "pap":
        scaled = (giou + 1) / 2
        scaled = scaled * SCALE - (scaled * (SCALE - 1)).detach()
        ious = torch.zeros_like(logits).masked_scatter(positive, scaled)
        return {"pap": pap_loss(logits, ious, targets, FUNCTIONS.rows())}
    if kind == "alrp":
        errors = (1 - giou) / (2 * (1 - tau))
        cls, rank, _ = alrp_loss(logits, targets, errors.detach(), 0.8)
        own = logits[positive].detach()
        before = (own[None, :] >= own[:, None]).double()  # row i: who is not below i
        return {"cls": cls, "bbox": 5.0 * 0.5 * (before @ errors / rank).mean()}
    targets = targets.masked_scatter(positive, iou)
    ranking, sorting = rank_sort_loss(logits, targets, 0.4)
    weight = rows.detach().sigmoid().max(dim=1).values
    box = (weight * (1 - giou)).sum() / weight.sum()
    balance = ((ranking + sorting) / box).detach()
    return {"cls": ranking + sorting, "bbox": 0.5 * balance * box}


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("place", DENSE)
def test_dense_heads_rank_all_levels_and_images(place, kind, tiny_config, tiny_batch, build):
    model, head = dense_model(place, LOSSES[kind], tiny_config, build)
    batch = tiny_batch(boxes=4)
    with torch.no_grad():
        outputs = head(model.extract_feat(batch["inputs"]))[:2]
    scores, codes = spread(outputs)
    gts, metas = objects(batch, place == "rpn")
    found = head.loss_by_feat(scores, codes, gts, metas)
    infix = "rpn_" if place == "rpn" else ""
    flat = by_hand(head, scores, codes, gts, metas)
    assert len(flat[2]) > 3, "too few positives to tell anything"
    for name, value in expected_losses(kind, TAU[place], *flat).items():
        mine = found[f"loss_{infix}{name}"]
        torch.testing.assert_close(mine, value, rtol=1e-6, atol=1e-9, check_dtype=False)
        leaves = [*scores, *codes]
        ours = torch.autograd.grad(mine, leaves, retain_graph=True)
        theirs = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
        largest = max(float(t.abs().max()) for t in theirs if t is not None)
        assert largest > 0
        for one, other in zip(ours, theirs, strict=True):
            other = torch.zeros_like(one) if other is None else other
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6 * largest)


@pytest.mark.parametrize("place", DENSE)
def test_boxes_in_pixels_or_as_codes_make_no_difference(place, tiny_config, tiny_batch, build):
    """`reg_decoded_bbox` says how targets come; what is ranked is the same."""
    batch = tiny_batch(boxes=4)
    gts, metas = objects(batch, place == "rpn")
    values = []
    for decoded in (False, True):
        model, head = dense_model(place, LOSSES["pap"], tiny_config, build)
        head.reg_decoded_bbox = decoded
        with torch.no_grad():
            outputs = head(model.extract_feat(batch["inputs"]))[:2]
        scores, codes = spread(outputs)
        loss = sum(v for k, v in head.loss_by_feat(scores, codes, gts, metas).items())
        values.append((loss, *torch.autograd.grad(loss, codes)))
    for one, other in zip(*values, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def box_head(loss, agnostic=False, **settings):
    return MODELS.build(
        {
            "type": "RankingHead",
            "head": "Shared2FCBBoxHead",
            "loss_ranking": copy.deepcopy(loss),
            "in_channels": 4,
            "fc_out_channels": 8,
            "roi_feat_size": 2,
            "num_classes": 3,
            "reg_class_agnostic": agnostic,
            "reg_decoded_bbox": True,
            "loss_bbox": {"type": "GIoULoss", "loss_weight": 10.0},
            **settings,
        }
    )


def regions(seed=0, count=60):
    """Scores, regions, labels, weights and targets of a batch of two images."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 40
    sizes = torch.rand(count, 2, generator=generator) * 20 + 8
    boxes = torch.cat([corners, corners + sizes], dim=1)
    image = (torch.arange(count) >= count // 2).float()[:, None]
    labels = torch.randint(0, 8, (count,), generator=generator).clamp(max=3)
    shift = torch.randn(count, 4, generator=generator) * 2
    targets = torch.where((labels < 3)[:, None], boxes + shift, torch.zeros(1))
    weights = (torch.rand(count, generator=generator) > 0.1).float()
    weights[labels < 3] = 1
    return torch.cat([image, boxes], dim=1).double(), labels, weights, targets.double()


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("agnostic", [True, False])
def test_box_heads_rank_all_regions_of_the_batch(kind, agnostic):
    head = box_head(LOSSES[kind], agnostic)
    rois, labels, weights, targets = regions()
    generator = torch.Generator().manual_seed(7)
    scores = torch.randn(60, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    width = 4 if agnostic else 12
    codes = torch.randn(60, width, generator=generator, dtype=torch.float64, requires_grad=True)
    found = head.loss(scores, codes, rois, labels, weights, targets, torch.ones(60, 4))

    positive = (labels < 3).nonzero().flatten()
    one_hot = torch.zeros(60, 3, dtype=torch.float64)
    one_hot[positive, labels[positive]] = 1
    one_hot[weights == 0] = -1
    own = torch.stack(
        [
            codes[i, 0:4] if agnostic else codes[i, 4 * labels[i] : 4 * labels[i] + 4]
            for i in positive
        ]
    )
    boxes = head.bbox_coder.decode(rois[positive, 1:], own)
    flat = (scores.flatten(), one_hot.flatten(), boxes, targets[positive], scores[positive])
    expected = expected_losses(kind, 0.5, *flat)
    if kind == "ap":
        giou = bbox_overlaps(boxes, targets[positive], mode="giou", is_aligned=True, eps=1e-9)
        expected["bbox"] = 10 * (1 - giou).mean()
    for name, value in expected.items():
        mine = found[f"loss_{name}"]
        torch.testing.assert_close(mine, value, rtol=1e-5, atol=1e-7, check_dtype=False)
        ours = torch.autograd.grad(mine, (scores, codes), retain_graph=True)
        theirs = torch.autograd.grad(value, (scores, codes), retain_graph=True, allow_unused=True)
        for one, other in zip(ours, theirs, strict=True):
            other = torch.zeros_like(one) if other is None else other
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    right = (scores[positive].argmax(dim=1) == labels[positive]).double().mean()
    assert float(found["acc"]) == pytest.approx(100 * float(right))


def test_ap_keeps_the_head_s_own_loss_on_deltas(tiny_config, tiny_batch, build):
    """L1 on codes, divided by the number of positives, as RetinaNet's own."""
    batch = tiny_batch(boxes=4)
    gts, metas = objects(batch, False)
    model, head = dense_model("retinanet", LOSSES["ap"], tiny_config, build)
    stock = build(tiny_config("retinanet"))
    with torch.no_grad():
        outputs = head(model.extract_feat(batch["inputs"]))
    scores, codes = spread(outputs)
    scores, codes = [s.float() for s in scores], [c.float() for c in codes]
    ours = head.loss_by_feat(scores, codes, gts, metas)["loss_bbox"]
    theirs = sum(stock.bbox_head.loss_by_feat(scores, codes, gts, metas)["loss_bbox"])
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("place", [*DENSE, "box"])
def test_without_positives_every_output_has_a_gradient_of_zeros(
    place, kind, tiny_config, tiny_batch, build
):
    if place == "box":
        head = box_head(LOSSES[kind])
        rois, _, weights, targets = regions()
        outputs = head(torch.randn(60, 4, 2, 2))
        none = torch.full((60,), 3)
        found = head.loss(*outputs, rois.float(), none, weights, targets.float() * 0, None)
    else:
        model, head = dense_model(place, LOSSES[kind], tiny_config, build)
        batch = tiny_batch(boxes=0)
        gts, metas = objects(batch, False)
        outputs = head(model.extract_feat(batch["inputs"]))[:2]
        found = head.loss_by_feat(*outputs, gts, metas)
    losses = {name: value for name, value in found.items() if "loss" in name}
    assert all(value.item() == 0 for value in losses.values())
    sum(losses.values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


def test_scores_of_a_box_head_have_an_empty_background_column():
    head = box_head(LOSSES["ap"])
    assert head.fc_cls.out_features == 3
    scores = head.loss_cls.get_activation(torch.tensor([[0.0, 2.0, -1.0]]))
    torch.testing.assert_close(scores, torch.tensor([[0.5, 0.880797, 0.268941, 0.0]]))


def test_overlaps_are_given_to_the_positives_own_class_only():
    """Another class of a positive, and an ignored region, get no IoU and no gradient from it."""
    head = box_head(LOSSES["pap"])
    rois, labels, weights, targets = regions()
    codes = torch.randn(60, 12, dtype=torch.float64, requires_grad=True)
    found = head.loss(torch.randn(60, 3).double(), codes, rois, labels, weights, targets, None)
    found["loss_pap"].backward()
    moved = codes.grad.reshape(60, 3, 4).abs().sum(dim=2) > 0
    own = torch.zeros(60, 3, dtype=torch.bool)
    own[labels < 3, labels[labels < 3]] = True
    assert torch.equal(moved, own)


def test_the_box_gradient_scale_leaves_the_value_and_the_score_gradient_alone():
    rois, labels, weights, targets = regions()
    scores = torch.randn(60, 3, dtype=torch.float64, requires_grad=True)
    codes = torch.randn(60, 12, dtype=torch.float64, requires_grad=True)
    found = []
    for scale in (1.0, 4.0):
        head = box_head({**LOSSES["pap"], "box_gradient_scale": scale})
        loss = head.loss(scores, codes, rois, labels, weights, targets, None)["loss_pap"]
        found.append((loss.detach(), *torch.autograd.grad(loss, (scores, codes))))
    (value, score, code), (value4, score4, code4) = found
    assert torch.equal(value, value4)
    assert torch.equal(score, score4)
    torch.testing.assert_close(code4, 4 * code)


def test_rank_and_sort_keeps_positives_that_miss_their_object():
    """Their IoU is 0, which in the release makes negatives of them."""
    head = box_head(LOSSES["rank_sort"])
    rois, labels, weights, targets = regions()
    scores = torch.randn(60, 3, dtype=torch.float64, requires_grad=True)
    targets = torch.where((labels < 3)[:, None], targets + 500, targets)
    found = head.loss(scores, torch.zeros(60, 12).double(), rois, labels, weights, targets, None)
    gradient = torch.autograd.grad(found["loss_cls"], scores)[0]
    positive = labels < 3
    assert (gradient[positive, labels[positive]] < 0).all()
    assert found["ranking_error"] > 0.1


def test_two_heads_keep_their_own_gradient_scale():
    """In the release RetinaNet's is an attribute of a class: a second head would change it."""
    first = box_head({**LOSSES["pap"], "box_gradient_scale": 2.0})
    rois, labels, weights, targets = regions()
    codes = torch.randn(60, 12, dtype=torch.float64, requires_grad=True)
    scores = torch.randn(60, 3).double()
    loss = first.loss(scores, codes, rois, labels, weights, targets, None)["loss_pap"]
    second = box_head({**LOSSES["pap"], "box_gradient_scale": 9.0})
    other = second.loss(scores, codes, rois, labels, weights, targets, None)["loss_pap"]
    first_gradient = torch.autograd.grad(loss, codes)[0]
    second_gradient = torch.autograd.grad(other, codes)[0]
    torch.testing.assert_close(second_gradient, 4.5 * first_gradient)


def test_atss_has_no_centerness_layer(tiny_config, tiny_batch, build):
    model, head = dense_model("atss", LOSSES["rank_sort"], tiny_config, build)
    assert not [name for name, _ in head.named_parameters() if "centerness" in name]
    outputs = head(model.extract_feat(tiny_batch()["inputs"]))
    assert len(outputs) == 2


@pytest.mark.parametrize("overlap", ["giou", "iou", "l1"])
def test_overlap_of_pap(overlap):
    head = box_head({**LOSSES["pap"], "overlap": overlap})
    rois, labels, weights, _ = regions()
    codes = torch.zeros(60, 12, dtype=torch.float64)
    scores = torch.zeros(60, 3, dtype=torch.float64)
    scores[torch.arange(60), labels.clamp(max=2)] = 9.0
    scores[labels == 3] = -9.0
    perfect = torch.where((labels < 3)[:, None], rois[:, 1:], torch.zeros(1).double())
    assert float(head.loss(scores, codes, rois, labels, weights, perfect, None)["loss_pap"]) < 1e-9
    worse = perfect + torch.tensor([4.0, 0, 4, 0])
    assert float(head.loss(scores, codes, rois, labels, weights, worse, None)["loss_pap"]) > 0.01


def test_heads_that_cannot_rank_are_named():
    with pytest.raises(UnsupportedHeadError, match="FCOSHead"):
        ranking_class(MODELS.get("FCOSHead"))
    with pytest.raises(UnsupportedHeadError, match="not registered"):
        MODELS.build({"type": "RankingHead", "head": "NoHead", "loss_ranking": LOSSES["ap"]})
    with pytest.raises(DefinitionError, match="FocalLoss"):
        box_head({"type": "FocalLoss"})


def test_a_region_wise_reduction_is_refused():
    head = box_head(LOSSES["ap"])
    rois, labels, weights, targets = regions()
    with pytest.raises(ValueError, match="reduction_override"):
        head.loss(
            torch.zeros(60, 3), torch.zeros(60, 12), rois, labels, weights, targets, None, "none"
        )
