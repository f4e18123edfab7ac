"""Every row of the papers' tables: the packaged COCO detector with its loss trains and predicts.

Width and image size are reduced, and data are a few made-up images in COCO's layout and with its
80 classes; heads, losses, pipelines, samplers and optimisers are the configs' own.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner

from losses import CATALOG, apply_loss, configs_dir
from losses.ranked_batch import box_overlaps
from workers import load_detector
from workers.detector import parse_detector

SIDE = 96  # pixels of the reduced images
WIDTH = 32  # channels of neck and heads; the group norms of FCOS and ATSS have 32 groups
BACKBONE = 8  # channels of the backbone's first stage; COCO's have 64
RPN = ("RPNHead", "CrossEntropyLoss", "L1Loss")


@dataclass(frozen=True)
class Row:
    """A row of a table, and what the detector must be made of.

    Attributes:
        head: class of the box heads, of their classification and of their box loss; a box loss of
            None is not used.
        rpn: the same of the region proposal network.
        box_weight: of the box loss.
        heads: number of box heads, the stages of a cascade.
    """

    detector: str
    loss: str
    head: tuple[str, str, str | None]
    rpn: tuple[str, str, str | None] | None = None
    box_weight: float = 1.0
    heads: int = 1

    @property
    def wants_ious(self) -> bool:
        return self.head[1] in (
            *("SoftmaxExpressionLoss", "SigmoidExpressionLoss"),
            *("ALRPRankingLoss", "PAPRankingLoss", "RankSortRankingLoss"),
        )


def cse_a(detector: str, heads: int = 1, rpn: tuple[str, str, str] = RPN) -> Row:
    head = ("IoUAwareShared2FCBBoxHead", "SoftmaxExpressionLoss", "BoxExpressionLoss")
    return Row(detector, "cse-autoloss-a", head, rpn, 10.0, heads)


def cse_b(detector: str, head: str) -> Row:
    head_and_losses = (f"IoUAware{head}", "SigmoidExpressionLoss", "BoxExpressionLoss")
    return Row(detector, "cse-autoloss-b", head_and_losses)


def stock(detector: str, loss: str, head: tuple[str, str, str], weight: float = 1.0) -> Row:
    return Row(detector, loss, head, RPN if head[0].endswith("BBoxHead") else None, weight)


def ranking(detector: str, loss: str, module: str, head: str, box: str | None = None) -> Row:
    two_stage = head.endswith("BBoxHead")
    rpn = ("RankingRPNHead", module, None) if two_stage else None
    return Row(detector, loss, (f"Ranking{head}", module, box), rpn)


BOX_HEAD = "Shared2FCBBoxHead"
ROWS = (
    # CSE-AutoLoss
    cse_a("faster_rcnn_r50"),
    cse_a("faster_rcnn_r101"),
    cse_a("cascade_rcnn_r50", 3, ("RPNHead", "CrossEntropyLoss", "SmoothL1Loss")),
    cse_a("mask_rcnn_r50"),
    cse_b("fcos_r50", "FCOSHead"),
    cse_b("atss_r50", "ATSSHead"),
    # Parameterized AP Loss, RetinaNet
    stock("retinanet_r50_512", "focal-l1", ("RetinaHead", "FocalLoss", "L1Loss")),
    stock("retinanet_r50_512", "focal-giou", ("RetinaHead", "FocalLoss", "GIoULoss")),
    ranking("retinanet_r50_512_ap", "ap-l1", "APRankingLoss", "RetinaHead", "L1Loss"),
    ranking("retinanet_r50_512_ranking", "alrp", "ALRPRankingLoss", "RetinaHead"),
    ranking("retinanet_r50_512_pap", "pap-retinanet", "PAPRankingLoss", "RetinaHead"),
    ranking("retinanet_r50_512_ranking", "rank-sort", "RankSortRankingLoss", "RetinaHead"),
    # Parameterized AP Loss, Faster R-CNN
    stock("faster_rcnn_r50_512", "ce-l1", (BOX_HEAD, "CrossEntropyLoss", "L1Loss")),
    stock("faster_rcnn_r50_512", "ce-giou", (BOX_HEAD, "CrossEntropyLoss", "GIoULoss"), 10.0),
    cse_a("faster_rcnn_r50_512"),
    ranking("faster_rcnn_r50_512_ranking", "alrp-faster-rcnn", "ALRPRankingLoss", BOX_HEAD),
    ranking("faster_rcnn_r50_512_pap", "pap-faster-rcnn", "PAPRankingLoss", BOX_HEAD),
    ranking(
        "faster_rcnn_r50_512_ranking", "rank-sort-faster-rcnn", "RankSortRankingLoss", BOX_HEAD
    ),
    # what both are to be compared with
    stock("faster_rcnn_r50", "ce-iou", (BOX_HEAD, "CrossEntropyLoss", "IoULoss"), 10.0),
    ranking("faster_rcnn_r50_ranking", "rank-sort-faster-rcnn", "RankSortRankingLoss", BOX_HEAD),
    ranking("atss_r50_ranking", "rank-sort", "RankSortRankingLoss", "ATSSHead"),
)


def packaged(name: str) -> Config:
    return parse_detector(load_detector(configs_dir() / "detectors" / "coco" / f"{name}.py"))


def reduce_width(model: dict[str, Any]) -> None:
    """Fewer channels, everywhere; batch norm learns, since there are no pretrained weights."""
    model["backbone"].update(
        base_channels=BACKBONE, init_cfg=None, frozen_stages=-1, norm_eval=False,
        norm_cfg={"type": "BN", "requires_grad": True},
    )  # fmt: skip
    levels = [4 * BACKBONE * 2**stage for stage in range(4)]
    model["neck"].update(in_channels=levels, out_channels=WIDTH)
    dense = model.get("rpn_head") or model["bbox_head"]
    dense.update(in_channels=WIDTH, feat_channels=WIDTH)
    roi = model.get("roi_head")
    if roi is None:
        model["test_cfg"]["score_thr"] = 0.0
        return
    heads = roi["bbox_head"]
    for head in heads if isinstance(heads, list) else [heads]:
        head.update(in_channels=WIDTH, fc_out_channels=64)
    roi["bbox_roi_extractor"]["out_channels"] = WIDTH
    if "mask_head" in roi:
        roi["mask_roi_extractor"]["out_channels"] = WIDTH
        roi["mask_head"].update(in_channels=WIDTH, conv_out_channels=WIDTH)
    model["train_cfg"]["rpn_proposal"]["max_per_img"] = 100
    model["test_cfg"]["rpn"]["max_per_img"] = 20
    model["test_cfg"]["rcnn"]["score_thr"] = 0.0


def reduced(row: Row) -> Config:
    """The row's config as it is trained, but small."""
    config = packaged(row.detector)
    reduce_width(config.model)
    for name in ("train_dataloader", "val_dataloader"):
        loader = config[name]
        loader.update(num_workers=0, persistent_workers=False, batch_size=2)
        for transform in loader.dataset.pipeline:
            if transform["type"] == "Resize":
                transform["scale"] = (SIDE, SIDE)
    return apply_loss(config, CATALOG[row.loss])


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has `data/coco` as the configs want it: noise with boxes that are brighter."""
    root = tmp_path_factory.mktemp("coco")
    rng = np.random.default_rng(0)
    (root / "data/coco/annotations").mkdir(parents=True)
    categories = [
        {"id": number + 1, "name": name}
        for number, name in enumerate(CocoDataset.METAINFO["classes"])
    ]
    for split in ("train2017", "val2017"):
        (root / "data/coco" / split).mkdir()
        images, annotations = [], []
        for number in range(4):
            picture = rng.integers(0, 120, (SIDE, SIDE, 3), dtype=np.uint8)
            for _ in range(4):
                width, height = rng.integers(16, 48, 2).tolist()
                x, y = (int(rng.integers(0, SIDE - side)) for side in (width, height))
                picture[y : y + height, x : x + width] += 100
                corners = [x, y, x + width, y, x + width, y + height, x, y + height]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": int(rng.integers(1, 81)),
                        "bbox": [x, y, width, height],
                        "area": width * height,
                        "iscrowd": 0,
                        "segmentation": [corners],
                    }
                )
            cv2.imwrite(str(root / "data/coco" / split / f"{number}.png"), picture)
            images.append(
                {"id": number, "file_name": f"{number}.png", "height": SIDE, "width": SIDE}
            )
        content = {"images": images, "annotations": annotations, "categories": categories}
        file = root / "data/coco/annotations" / f"instances_{split}.json"
        file.write_text(json.dumps(content))
    return root


def box_heads(model: Any) -> list[Any]:
    heads = model.roi_head.bbox_head if hasattr(model, "roi_head") else model.bbox_head
    return list(heads) if hasattr(heads, "__len__") else [heads]


def record_ious(head: Any) -> list[torch.Tensor]:
    """What the classification loss is shown of how good the boxes are, call by call."""
    seen: list[torch.Tensor] = []

    def on_call(module: Any, args: tuple[Any, ...]) -> None:
        lent = getattr(module, "lent_ious", None)
        if lent is None and hasattr(args[0], "boxes"):
            lent = box_overlaps(args[0].boxes, args[0].goals, "iou")
        if lent is not None:
            seen.append(lent.detach())

    head.loss_cls.register_forward_pre_hook(on_call)
    return seen


def check_parts(row: Row, model: Any) -> None:
    heads = box_heads(model)
    assert len(heads) == row.heads
    parts = [(head, row.head) for head in heads]
    if row.rpn is not None:
        parts.append((model.rpn_head, row.rpn))
    for head, (kind, cls, bbox) in parts:
        assert (type(head).__name__, type(head.loss_cls).__name__) == (kind, cls)
        if bbox is not None:
            assert type(head.loss_bbox).__name__ == bbox
    if row.head[2] is not None:
        assert {head.loss_bbox.loss_weight for head in heads} == {row.box_weight}
    assert getattr(heads[0], "iou_centerness", False) is (row.loss == "cse-autoloss-b")


def two_steps(config: Config, model: Any) -> None:
    """Trains with the config's loader and optimiser, at the start of its warm-up."""
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    first = config.param_scheduler[0]
    for group in optimizer.param_groups:
        group["lr"] *= first.get("start_factor", first.get("factor"))
    batches = iter(Runner.build_dataloader(config.train_dataloader, seed=0))
    model.train()
    for _ in range(2):
        data = model.data_preprocessor(next(batches), True)
        total, logged = model.parse_losses(model(**data, mode="loss"))
        assert all(torch.isfinite(value).all() for value in logged.values()), logged
        assert total > 0 or "BoxExpressionLoss" in str(config.model)  # CSE-B's is below 0
        total.backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
        for part in ("backbone", "neck", "head"):
            assert any(part in name and bool(g.any()) for name, g in gradients.items()), part
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer.step()
        optimizer.zero_grad()
        assert any(not torch.equal(p, before[name]) for name, p in model.named_parameters())


def check_predictions(config: Config, model: Any) -> None:
    batch = next(iter(Runner.build_dataloader(config.val_dataloader, seed=0)))
    model.eval()
    with torch.no_grad():
        for sample in model.test_step(batch):
            found = sample.pred_instances
            assert len(found) > 0
            assert torch.isfinite(found.bboxes).all()
            assert ((found.scores >= 0) & (found.scores <= 1)).all()
            assert ((found.labels >= 0) & (found.labels < 80)).all()
            if hasattr(model, "with_mask") and model.with_mask:
                assert found.masks.shape == (len(found), SIDE, SIDE)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.detector}-{row.loss}")
def test_the_row_trains_and_predicts(
    row: Row, coco: Path, build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(coco)
    config = reduced(row)
    model = build(config)
    check_parts(row, model)
    seen = [record_ious(head) for head in box_heads(model)]
    two_steps(config, model)
    check_predictions(config, model)
    if row.wants_ious:
        for ious in seen:
            together = torch.cat([each.reshape(-1) for each in ious])
            assert len(together) >= 4
            assert together.max() > 1.2 * together.min()


@pytest.mark.parametrize("file", sorted((configs_dir() / "detectors/coco").glob("[!_]*.py")))
def test_every_packaged_detector_has_a_row(file: Path) -> None:
    assert file.stem in {row.detector for row in ROWS}


@pytest.mark.parametrize(
    ("name", "rate", "images", "epochs", "milestones"),
    [
        ("faster_rcnn_r50", 0.02, 2, 12, [8, 11]),
        ("faster_rcnn_r101", 0.02, 2, 12, [8, 11]),
        ("cascade_rcnn_r50", 0.02, 2, 12, [8, 11]),
        ("mask_rcnn_r50", 0.02, 2, 12, [8, 11]),
        ("fcos_r50", 0.01, 2, 12, [8, 11]),
        ("atss_r50", 0.01, 2, 12, [8, 11]),
        ("retinanet_r50_512", 0.016, 8, 100, [60, 80]),
        ("retinanet_r50_512_pap", 0.016, 8, 100, [60, 80]),
        ("retinanet_r50_512_ranking", 0.008, 8, 100, [60, 80]),
        ("retinanet_r50_512_ap", 0.002, 8, 100, [60, 80]),
        ("faster_rcnn_r50_512", 0.04, 8, 100, [75, 95]),
        ("faster_rcnn_r50_512_pap", 0.024, 8, 100, [75, 95]),
        ("faster_rcnn_r50_512_ranking", 0.012, 8, 100, [75, 95]),
        ("faster_rcnn_r50_ranking", 0.012, 4, 12, [8, 11]),
        ("atss_r50_ranking", 0.008, 4, 12, [8, 11]),
    ],
)
def test_schedules_are_those_of_the_releases(
    name: str, rate: float, images: int, epochs: int, milestones: list[int]
) -> None:
    config = packaged(name)
    assert config.optim_wrapper.optimizer.lr == rate
    assert config.train_dataloader.batch_size == images  # on each of 8 GPUs
    assert config.auto_scale_lr.base_batch_size == 8 * images
    assert config.train_cfg.max_epochs == epochs
    assert config.param_scheduler[-1].milestones == milestones
    assert config.param_scheduler[-1].end == epochs


@pytest.mark.parametrize("name", ["retinanet_r50_512_pap", "faster_rcnn_r50_512_ranking"])
def test_the_512_pixel_recipe(name: str) -> None:
    config = packaged(name)
    trained = [transform["type"] for transform in config.train_dataloader.dataset.pipeline]
    assert trained == [
        "LoadImageFromFile", "LoadAnnotations", "PhotoMetricDistortion", "Expand",
        "MinIoURandomCrop", "Resize", "RandomFlip", "PackDetInputs",
    ]  # fmt: skip
    assert config.train_dataloader.dataset.pipeline[5].scale == (512, 512)
    assert config.train_dataloader.dataset.pipeline[5].keep_ratio is False
    for loader in (config.val_dataloader, config.test_dataloader):
        assert loader.dataset.pipeline[1].scale == (833, 500)
        assert loader.dataset.pipeline[1].keep_ratio is True
    head = config.model.get("rpn_head") or config.model.bbox_head
    assert head.bbox_coder.target_stds == [0.1, 0.1, 0.2, 0.2]


def test_anchors_of_retinanet() -> None:
    """6 anchors a place, and boxes decoded as the release of each loss does it."""
    config = packaged("retinanet_r50_512")
    assert config.model.bbox_head.anchor_generator.scales_per_octave == 2
    assert config.model.bbox_head.bbox_coder.target_stds == [1.0] * 4
    assert packaged("retinanet_r50_512_pap").model.test_cfg.nms.iou_threshold == 0.6
