"""Tuning of hand-made losses: the losses themselves, the choices, the sampler behind our ask."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_search as fake
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS

from losses import CATALOG, LossDefinition, apply_loss, configs_dir, detector_family
from losses.expression_losses import (
    BoxExpressionLoss,
    SigmoidExpressionLoss,
    SoftmaxExpressionLoss,
)
from primitives import SPACES
from search_server.errors import SpecError
from search_server.funnel.verification import verify
from search_server.handmade_losses import (
    HANDMADE_LOSSES,
    as_expressions,
    expression_branch,
    focal_text,
    quality_focal_text,
    smoothed_text,
    softmax_focal_text,
    usual_losses,
    varifocal_text,
)
from search_server.problem import problem_of
from search_server.searchers import (
    Handmade,
    HandmadeBranch,
    Observation,
    Problem,
    TuningSearcher,
    generator,
    make_searcher,
)
from search_server.spec import JobSpec, parse_spec
from search_server.spec import TuningSearcher as Settings
from workers import load_detector
from workers.detector import parse_detector

LOGITS = torch.tensor([[-90.0, -30.0, -3.0, -0.2], [0.0, 0.7, 4.0, 90.0], [1.0, -1.0, 30.0, 2.0]])
LABELS = torch.tensor([0, 4, 2])  # 4 is no class


def value_and_gradient(loss: Any, labels: torch.Tensor, **more: Any) -> tuple[Any, Any]:
    logits = LOGITS.clone().requires_grad_()
    value = loss(logits, labels, avg_factor=1.0, **more)
    value.backward()
    return value.detach(), logits.grad


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.7])
def test_the_expression_of_a_focal_loss_is_the_focal_loss(gamma: float) -> None:
    stock = MODELS.build({"type": "FocalLoss", "use_sigmoid": True, "gamma": gamma, "alpha": 0.3})
    ours = SigmoidExpressionLoss(focal_text(gamma), alpha=0.3)
    expected = value_and_gradient(stock, LABELS)
    found = value_and_gradient(ours, LABELS)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-6)


def test_below_gamma_1_a_saturated_logit_does_no_harm() -> None:
    made = HANDMADE_LOSSES["focal"].make({"gamma": 0.5, "alpha": 0.3})
    ours = SigmoidExpressionLoss(made.expression, alpha=made.alpha)  # type: ignore[union-attr]
    stock = MODELS.build({"type": "FocalLoss", "use_sigmoid": True, "gamma": 0.5, "alpha": 0.3})
    found, expected = (value_and_gradient(loss, LABELS)[1] for loss in (ours, stock))
    assert torch.isfinite(found).all()
    sound = torch.isfinite(expected)
    assert not sound.all()  # if mmdet's were sound too, it could be used there
    torch.testing.assert_close(found[sound], expected[sound], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "published", "branch"),
    [(quality_focal_text(2.0), "qfl-giou", "cls"), (varifocal_text(0.75, 2.0), "vfl-giou", "cls")],
)
def test_at_published_numbers_it_is_the_loss_of_the_catalogue(
    text: str, published: str, branch: str
) -> None:
    ious = torch.tensor([0.4, 0.9])
    found, expected = (
        value_and_gradient(SigmoidExpressionLoss(each, alpha=None), LABELS, pos_ious=ious)
        for each in (text, CATALOG[published].expressions[branch])
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_softmax_losses_reduce_to_the_cross_entropy() -> None:
    labels = torch.tensor([0, 3, 2])
    expected = value_and_gradient(
        SoftmaxExpressionLoss(CATALOG["ce-expression"].expressions["cls"]), labels
    )
    for text in (softmax_focal_text(0.0), smoothed_text(0.0)):
        found = value_and_gradient(SoftmaxExpressionLoss(text), labels)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def numbers_at(name: str, share: float) -> dict[str, float]:
    return {n.name: n.low + share * (n.high - n.low) for n in HANDMADE_LOSSES[name].numbers}


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", ["qfl", "vfl", "ce", "softmax_focal"])
def test_gradients_are_finite_and_verified_over_the_ranges(name: str, share: float) -> None:
    expression = HANDMADE_LOSSES[name].make(numbers_at(name, share)).expression  # type: ignore[union-attr]
    if HANDMADE_LOSSES[name].role == "binary_cls":
        made = SigmoidExpressionLoss(expression, alpha=None)
        _, gradient = value_and_gradient(made, LABELS, pos_ious=torch.tensor([0.4, 0.9]))
    else:
        _, gradient = value_and_gradient(SoftmaxExpressionLoss(expression), torch.tensor([0, 3, 2]))
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0
    if (name, share) not in (("ce", 0.3), ("ce", 1.0)):  # smoothed labels stop short of the target
        verdict = verify(expression)
        assert verdict.accepted, verdict


@pytest.mark.parametrize("detector", ["atss", "retinanet", "fcos", "faster_rcnn", "cascade_rcnn"])
def test_the_usual_losses_fit_the_detector_and_the_first_are_its_own(detector: str) -> None:
    config = parse_detector(
        load_detector(configs_dir() / "detectors" / "digits" / f"{detector}.py")
    )
    family = detector_family(config)
    branches = {b: HandmadeBranch(usual_losses(family, b)) for b in ("cls", "bbox")}
    space = Handmade(
        branches, LossDefinition("template"), (False, True)[: 1 + family.has_centerness]
    )
    published = space.published()
    for choices in published:
        apply_loss(config, space.definition(choices, "x"))
    keys = [space.definition(choices, "x").key for choices in published]
    assert len(set(keys)) == len(keys)
    head = config["model"].get("bbox_head") or config["model"]["roi_head"]["bbox_head"]
    head = head[0] if isinstance(head, list) else head
    own = {head["loss_cls"]["type"], head["loss_bbox"]["type"]}
    first = space.definition(published[0], "x")
    made = {branch.type for branch in (first.cls, first.bbox)}  # type: ignore[union-attr]
    assert made == own or detector in ("fcos", "cascade_rcnn")


def test_stock_losses_become_the_expressions_that_they_are() -> None:
    given = LossDefinition.from_json(
        {
            "name": "tuned",
            "cls": {
                "type": "stock",
                "loss": {"type": "FocalLoss", "gamma": 1.3, "alpha": 0.4},
                "loss_weight": 0.7,
            },
            "bbox": {"type": "stock", "loss": {"type": "GIoULoss"}, "loss_weight": 3.0},
            "learning_rate_scale": 1.5,
        }
    )
    spaces = {"cls": SPACES["binary_cls"], "bbox": SPACES["box"]}
    found = as_expressions(given, spaces)
    assert str(found.expressions["cls"]) == str(
        expression_branch(focal_text(1.3), "binary_cls").expression
    )
    assert (found.cls.alpha, found.cls.loss_weight) == (0.4, 0.7)  # type: ignore[union-attr]
    assert found.bbox.loss_weight == 3.0  # type: ignore[union-attr]
    assert found.learning_rate_scale == 1.5
    assert as_expressions(given, {"bbox": SPACES["box"]}).cls == given.cls

    corners = torch.tensor([[0.0, 0.0, 9.0, 8.0], [2.0, 1.0, 7.0, 9.0]]).repeat(2, 1)
    targets = torch.tensor([[1.0, 2.0, 8.0, 9.0], [20.0, 21.0, 27.0, 29.0]]).repeat(2, 1)
    gradients = []
    for loss in (
        MODELS.build({"type": "GIoULoss"}),
        BoxExpressionLoss(str(found.expressions["bbox"])),
    ):
        boxes = corners.clone().requires_grad_()
        loss(boxes, targets).backward()
        gradients.append(boxes.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        {"type": "DIoULoss"},
        {"type": "IoULoss", "linear": True},
        {"type": "SmoothL1Loss", "beta": 0.5},
    ],
)
def test_what_has_no_expression_stays(loss: dict[str, Any]) -> None:
    given = LossDefinition.from_json({"name": "x", "bbox": {"type": "stock", "loss": loss}})
    assert as_expressions(given, {"bbox": SPACES["box"]}) == given


SPACE = Handmade(
    {
        "cls": HandmadeBranch(("focal", "qfl", "rank_sort")),
        "bbox": HandmadeBranch(("giou", "iou"), weight=2.0),
    },
    LossDefinition("template"),
    (False, True),
)


def test_there_are_at_least_five_numbers_and_all_of_them_reach_the_definition() -> None:
    rng = np.random.default_rng(0)
    names: set[str] = set()
    for _ in range(40):
        choices = SPACE.draw(rng)
        names |= {name for name, value in choices.items() if isinstance(value, float)}
        definition = SPACE.definition(choices, "x")
        assert LossDefinition.from_json(definition.to_json()) == definition
        for name, value in choices.items():
            if isinstance(value, float):
                other = {**choices, name: value * 1.5}
                assert SPACE.definition(other, "x").key != definition.key, name
    assert {"focal.gamma", "focal.alpha", "cls.weight", "bbox.weight", "learning_rate"} <= names


def problem(window: int = 3, seed: int = 0, space: Handmade = SPACE) -> Problem:
    return Problem({}, LossDefinition("template"), {}, window=window, seed=seed, handmade=space)


def settings(**changes: Any) -> Settings:
    return Settings(**{"type": "tuning", "startup": 8, "centerness": (False, True), **changes})


def search(
    searcher: TuningSearcher, trials: int, result: Callable[[LossDefinition], dict[str, Any]]
) -> list[Observation]:
    """What a job would do, one candidate after the other."""
    seen = [Observation(0, LossDefinition("default"), {}, 0.3, None)]
    told = 0
    for index in range(1, trials + 1):
        while told <= searcher.sees(index):
            searcher.tell(seen[told])
            told += 1
        proposal = next(searcher.ask(index, generator(searcher.problem.seed, index)))
        assert (proposal.origin, proposal.parents, dict(proposal.draws)) == ("tuned", (), {})
        given = {"fitness": None, "score": None, **result(proposal.start)}
        seen.append(Observation(index, proposal.start, {}, **given))
    return seen


def quality(definition: LossDefinition) -> float:
    """A made-up AP, best for a focal loss of gamma 2 and alpha 0.5 at twice the learning rate."""
    cls, rate = definition.cls, math.log2(definition.learning_rate_scale)
    config = getattr(cls, "config", {})
    if config.get("type") != "FocalLoss":  # also one of gamma below 1
        return 0.2
    off = (config["gamma"] - 2) ** 2 + 4 * (config["alpha"] - 0.5) ** 2 + (rate - 1) ** 2
    weights = sum(math.log(b.loss_weight / w) ** 2 for b, w in ((cls, 1.0), (definition.bbox, 2.0)))  # type: ignore[union-attr]
    return max(0.0, 0.5 - 0.05 * off - 0.02 * weights)


def test_the_published_losses_come_first() -> None:
    made = search(TuningSearcher(settings(), problem()), 5, lambda d: {"fitness": 0.1})
    first = made[1].definition
    assert first.cls.config == {"type": "FocalLoss", "gamma": 2.0, "alpha": 0.25}  # type: ignore[union-attr]
    assert [d.definition.bbox.type for d in made[1:3]] == ["GIoULoss", "IoULoss"]  # type: ignore[union-attr]
    assert made[3].definition.expressions["cls"] == CATALOG["qfl-giou"].expressions["cls"]
    assert made[4].definition.cls.loss == "rank_sort"  # type: ignore[union-attr]
    assert made[5].definition.iou_centerness
    assert {d.definition.learning_rate_scale for d in made[1:6]} == {1.0}


def test_the_sampler_finds_better_numbers_than_random_at_equal_trials() -> None:
    best = {}
    for sampler in ("tpe", "random"):
        tops = []
        for seed in range(3):
            searcher = TuningSearcher(settings(sampler=sampler), problem(seed=seed))
            made = search(searcher, 60, lambda d: {"fitness": quality(d)})
            tops.append(max(each.fitness for each in made[1:]))  # type: ignore[type-var]
        best[sampler] = sum(tops) / len(tops)  # type: ignore[arg-type]
    assert best["tpe"] > best["random"] + 0.01
    assert best["tpe"] > 0.47


def outcome(definition: LossDefinition) -> dict[str, Any]:
    """All fates of a candidate, by its numbers."""
    value, fate = quality(definition), int(definition.learning_rate_scale * 1e4) % 5
    if fate == 0:
        return {"rungs": {10: value / 3}}
    if fate == 1:
        return {"score": value}
    return {"fitness": value} if fate > 2 else {}


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "random"])
def test_a_resumed_tuning_goes_on_as_if_nothing_had_happened(sampler: str) -> None:
    whole = search(TuningSearcher(settings(sampler=sampler), problem()), 30, outcome)
    again = search(TuningSearcher(settings(sampler=sampler), problem()), 30, outcome)
    assert whole == again
    resumed = TuningSearcher(settings(sampler=sampler), problem())
    for seen in whole[: 27 - 3 + 1]:
        resumed.tell(seen)
    assert next(resumed.ask(27, generator(0, 27))).start == whole[27].definition
    other = search(TuningSearcher(settings(sampler=sampler), problem(seed=1)), 30, outcome)
    assert [each.definition for each in other] != [each.definition for each in whole]


def test_results_matter() -> None:
    def opposite(definition: LossDefinition) -> dict[str, Any]:
        return {"fitness": 1 - quality(definition)}

    one = search(TuningSearcher(settings(), problem()), 30, lambda d: {"fitness": quality(d)})
    other = search(TuningSearcher(settings(), problem()), 30, opposite)
    keys = [[each.definition.key for each in made] for made in (one, other)]
    assert keys[0][:13] == keys[1][:13]
    assert keys[0][20:] != keys[1][20:]


def test_a_resort_is_another_loss_and_does_not_confuse_the_sampler() -> None:
    searcher = TuningSearcher(settings(), problem())
    first, *resorts = searcher.ask(1, generator(0, 1))
    assert len({each.start.key for each in (first, *resorts)}) == len(resorts) + 1 > 10
    searcher.tell(Observation(0, LossDefinition("default"), {}, 0.4, None))
    searcher.tell(Observation(1, resorts[0].start, {}, 0.9, None))
    assert searcher._study.best_value == 0.4  # the published loss was the baseline
    searcher.tell(Observation(2, next(searcher.ask(2, generator(0, 2))).start, {}, 0.5, None))
    for index in range(3, 12):
        searcher.tell(Observation(index, resorts[1].start, {}, 0.95, None))
    assert searcher._study.best_value == 0.5


JOB: dict[str, Any] = {
    "branches": {"cls": {"space": "handmade"}, "bbox": {"space": "handmade"}},
    "searcher": {"type": "tuning", "startup": 2, "population": 4},
    "funnel": {
        "simulate": {"steps": 3, "keep": 3},
        "proxy": {"steps": 50, "seeds": [0], "rungs": [10, 20], "hopeless": 0.3},
    },
    "candidates": 12,
}


def test_a_job_with_simulation_and_rungs_goes_to_its_end(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/tuning.db"
    assert fake.run(url, fake.new_job(url, **JOB), 3) == "done"
    rows = fake.rows(url)["candidates"]
    assert [row["origin"] for row in rows] == ["baseline", *["tuned"] * 12]
    assert {row["state"] for row in rows} >= {"done", "dropped"}
    assert rows[1]["cls_text"] != rows[2]["cls_text"]  # the first published one is the baseline
    assert rows[2]["cls_text"] == "1 × FocalLoss(alpha=0.25, gamma=2.0)"
    assert rows[2]["bbox_text"] == "2 × IoULoss"


TUNING = """
name: t
detector: digits/{detector}
branches: {{cls: {{space: handmade}}, bbox: {{space: handmade}}}}
searcher: {{type: tuning}}
funnel: {{simulate: null}}
"""


def tuning(detector: str = "atss", **changes: str) -> JobSpec:
    text = TUNING.format(detector=detector)
    for old, new in changes.items():
        text = text.replace({"cls": "cls: {space: handmade}"}.get(old, old), new)
    return parse_spec(text)


def test_a_spec_is_spelt_out_from_the_detector() -> None:
    spec = tuning()
    assert spec.branches.cls.losses[0] == "focal"  # type: ignore[union-attr, index]
    assert spec.branches.bbox.loss_weight == 2.0  # type: ignore[union-attr]
    assert spec.searcher.centerness == (False, True)  # type: ignore[union-attr]
    assert (spec.candidates, spec.window, spec.searched, spec.calibrate) == (64, 4, {}, False)
    assert JobSpec.from_json(spec.to_json()) == spec
    faster = tuning("faster_rcnn")
    assert faster.branches.cls.losses[0] == "ce"  # type: ignore[union-attr, index]
    assert faster.branches.bbox.losses[0] == "l1"  # type: ignore[union-attr, index]
    assert faster.branches.bbox.loss_weight == 10.0  # type: ignore[union-attr]
    assert faster.searcher.centerness == (False,)  # type: ignore[union-attr]
    assert isinstance(make_searcher(spec.searcher, problem_of(spec)), TuningSearcher)


@pytest.mark.parametrize(
    ("old", "new", "field", "allowed"),
    [
        (
            "cls: {space: handmade}",
            "cls: {space: handmade, losses: [ce]}",
            "branches.cls.losses",
            "one of focal, qfl",
        ),
        (
            "cls: {space: handmade}",
            "cls: {space: handmade, losses: [focl]}",
            "branches.cls.losses",
            "is none of",
        ),
        ("cls: {space: handmade}", "cls: {space: binary_cls}", "branches.cls.space", "handmade"),
        (
            "cls: {space: handmade}",
            "cls: {space: handmade, factor: [3, 2]}",
            "branches.cls",
            "must not be above",
        ),
        ("type: tuning", "type: evolution", "branches.cls.space", "searcher.type"),
        ("type: tuning", "type: tuning, sampler: best", "searcher.sampler", "tpe"),
        ("simulate: null", "simulate: null, verify: {max_draws: 3}", "funnel.verify", "left out"),
        ("name: t", "name: t\ncalibrate: true", "calibrate", "false"),
        ("name: t", "name: t\nmode: alternate", "mode", "joint"),
    ],
)
def test_a_spec_that_does_not_fit_is_refused(old: str, new: str, field: str, allowed: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(TUNING.format(detector="atss").replace(old, new))
    assert caught.value.field == field
    assert allowed in caught.value.allowed
