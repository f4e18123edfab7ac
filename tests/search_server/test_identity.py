"""Equal losses have equal fingerprints whatever they look like, and different ones have not."""

import json
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losses import CATALOG, ExpressionBranch, LossDefinition, StockBranch, configs_dir
from losses.expression_losses import SigmoidExpressionLoss
from primitives import SPACES, parse
from primitives.growth import grow
from search_server.fingerprints import AGREES, SCALES_AGREE, Fingerprint, Known
from search_server.identity import directions, fingerprint
from search_server.identity_probes import score_probes
from workers import load_detector

CLS, BOX = "binary_cls", "box"
FOCAL = str(CATALOG["focal-expression"].expressions["cls"])
GIOU = str(CATALOG["giou-expression"].expressions["bbox"])


@cache
def detector(name: str) -> str:
    return load_detector(configs_dir() / "detectors" / "digits" / f"{name}.py")


def whole(cls: str | None = None, bbox: str | None = None, **fields: object) -> LossDefinition:
    """A definition of expressions in prefix form."""
    branches = {}
    if cls is not None:
        space = "multi_cls" if "Softmax" in cls else CLS
        branches["cls"] = ExpressionBranch(parse(cls, SPACES[space]))
    if bbox is not None:
        branches["bbox"] = ExpressionBranch(parse(bbox, SPACES[BOX]))
    return LossDefinition("x", **{**branches, **fields})


def found(*args: object, **fields: object) -> Fingerprint:
    return fingerprint(whole(*args, **fields), detector("atss"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Sub(Softplus(X),X)", "Softplus(Neg(X))"),
        ("Neg(Log(Sig(X)))", "Softplus(Neg(X))"),
        (FOCAL, f"Add(3,{FOCAL})"),
        (FOCAL, f"Sub({FOCAL},Sig(Sin(PY)))"),
        ("Mul(Sig(X),Q)", "Sub(Q,Mul(Q,Sig(Neg(X))))"),
        ("Mul(PY,Sub(1,PY))", "Mul(PY,Sub(1,PY))"),
    ],
)
def test_classification_losses_that_are_one(one: str, other: str) -> None:
    assert found(one).same(found(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Softplus(X)", "Softplus(Neg(X))"),
        (FOCAL, FOCAL.replace("Mul(Sig(X),Sig(X))", "Sig(X)")),
        ("Mul(Q,Sig(X))", "Mul(PY,Sig(X))"),
        ("Softplus(X)", "Add(Softplus(X),Mul(0.001,X))"),
        ("Mul(NY,Softplus(X))", "Mul(NY,Softplus(Mul(1.001,X)))"),
    ],
)
def test_classification_losses_that_are_two(one: str, other: str) -> None:
    assert not found(one).same(found(other), scales=None)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("Neg(Sub(Div(I,U),Add(1,Neg(Div(U,E)))))", True),  # GIoU without its constant
        ("Neg(Div(I,U))", False),
        ("Add(Neg(Div(I,U)),Div(E,U))", False),
        (GIOU.replace("1", "7"), True),
        # one pixel more in the hull: it matters to small boxes alone
        (GIOU.replace("Sub(E,U)", "Sub(Add(E,1),U)"), False),
    ],
)
def test_box_losses(other: str, same: bool) -> None:
    assert found(None, GIOU).same(found(None, other), scales=None) is same


def test_a_loss_and_its_double_point_the_same_way() -> None:
    one, two = found(FOCAL, GIOU), found(f"Mul(2,{FOCAL})", GIOU)
    assert one.same(two, scales=None)
    assert not one.same(two)
    assert two.scales["cls"] == pytest.approx(2 * one.scales["cls"], rel=1e-9)
    assert two.scales["bbox"] == one.scales["bbox"]
    assert not one.same(found(f"Neg({FOCAL})", GIOU), scales=None)


def test_weight_and_calibration_are_scale_and_alpha_is_not() -> None:
    expression = parse(FOCAL, SPACES[CLS])
    plain, heavy, scaled, unlike = (
        fingerprint(LossDefinition("x", ExpressionBranch(expression, **fields)))
        for fields in ({}, {"loss_weight": 3.0}, {"scale": 3.0}, {"alpha": 0.25})
    )
    assert heavy.same(scaled)
    assert heavy.scales["cls"] == pytest.approx(3 * plain.scales["cls"])
    assert not plain.same(unlike, scales=None)
    assert plain.same(heavy, scales=None)


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("atss", "default", "focal-expression"),
        ("retinanet", "default", "focal-l1"),
        ("faster_rcnn", "default", "ce-expression"),
        ("faster_rcnn", "default", "ce-l1"),
        ("faster_rcnn", "ce-giou", "giou-expression"),
    ],
)
def test_names_that_mean_the_same_loss(name: str, one: str, other: str) -> None:
    """A branch that is not given is the detector's own; stock losses go through mmdet's modules."""
    prints = [fingerprint(CATALOG[each], detector(name)) for each in (one, other)]
    assert prints[0].same(prints[1])


def test_a_weight_tells_default_and_named_losses_apart() -> None:
    """GIoU has weight 2 in the config of ATSS and 1 by itself."""
    default, named = (fingerprint(CATALOG[n], detector("atss")) for n in ("default", "focal-giou"))
    assert not default.same(named)
    assert default.same(named, scales=None)
    assert default.scales["bbox"] == pytest.approx(2 * named.scales["bbox"])
    heavy = CATALOG["focal-giou"].with_branch("bbox", StockBranch('{"type": "GIoULoss"}', 2.0))
    assert default.same(fingerprint(heavy, detector("atss")))


@pytest.mark.parametrize("name", ["atss", "faster_rcnn", "retinanet"])
def test_no_other_names_mean_the_same(name: str) -> None:
    """Of what people named; what a detector cannot be given is told apart all the same."""
    named = [each for each in CATALOG if not each.startswith("discovered-")]
    prints = {each: fingerprint(CATALOG[each], detector(name)) for each in named}
    equal = {
        frozenset((one, other))
        for one in prints
        for other in prints
        if one < other and prints[one].same(prints[other])
    }
    classes = {
        "atss": [{"default", "focal-expression"}, {"focal-giou", "giou-expression"}],
        "faster_rcnn": [{"default", "ce-expression", "ce-l1"}, {"ce-giou", "giou-expression"}],
        "retinanet": [
            {"default", "focal-expression", "focal-l1"},
            {"focal-giou", "giou-expression"},
        ],
    }[name]
    # these two fit no head of a two-stage detector; there they are focal loss and L1 as well
    extra = [{"focal-expression", "focal-l1"}] if name == "faster_rcnn" else []
    wanted = {
        frozenset((one, other))
        for group in (*classes, *extra)
        for one in group
        for other in group
        if one < other
    }
    assert equal == wanted


def test_what_is_no_gradient_is_text() -> None:
    plain = found(FOCAL)
    assert not plain.same(found(FOCAL, iou_centerness=True))
    assert not plain.same(found(FOCAL, learning_rate_scale=2.0))
    ranking = CATALOG["rank-sort"]
    assert not fingerprint(ranking).same(fingerprint(CATALOG["alrp"]))
    assert fingerprint(ranking).same(fingerprint(LossDefinition("other name", ranking.cls)))
    assert fingerprint(ranking).scales == {}


@pytest.mark.parametrize(("one", "other"), [("PY", "NY"), ("Sub(X,X)", "Mul(0,X)")])
def test_without_a_gradient_text_decides(one: str, other: str) -> None:
    assert found(one).scales.keys() == found(other).scales.keys() == {"bbox"}
    assert found(one).same(found(one))
    assert not found(one).same(found(other))


def test_alpha_weights_the_loss_where_classes_are_mixed() -> None:
    """Softmax mixes the classes of a row: element weights are no factors of its gradient."""
    probes = score_probes(False)
    text = "Mul(PY,Neg(Log(Softmax(X))))"
    logits = torch.tensor(probes.logits, requires_grad=True)
    module = SigmoidExpressionLoss(text, alpha=0.3)
    loss = module(logits, torch.tensor(probes.labels), reduction_override="none")
    (wanted,) = torch.autograd.grad(loss.sum(), logits)
    branch = ExpressionBranch(parse(text, SPACES[CLS]), alpha=0.3)
    one = fingerprint(LossDefinition("x", branch))
    vector, size = directions(wanted.numpy(), probes.blocks)  # type: ignore[misc]
    assert np.abs(one.vector - vector).max() < 1e-12
    assert one.scales["cls"] == pytest.approx(size)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Tanh(U)", "Sqrt(Tanh(U))"), ("Exp(Neg(U))", "Sin(Exp(Neg(U)))")],
)
def test_losses_that_are_flat_but_at_a_probe_or_two_are_told_apart(one: str, other: str) -> None:
    assert "bbox" not in found(None, one).scales
    assert not found(None, one).same(found(None, other), scales=None)


def test_settings_that_mmdet_refuses_are_text() -> None:
    """Such a loss fails in its training, with mmdet's reason, and not the whole search here."""
    broken = StockBranch('{"type": "FocalLoss", "gamma": "two"}')
    prints = [fingerprint(LossDefinition("x", each), detector("atss")) for each in (broken, None)]
    assert "two" in prints[0].form
    assert not prints[0].same(prints[1])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), space=st.sampled_from(["multi_cls", "binary_cls", "box"]))
def test_rewritten_expressions_are_one(seed: int, space: str) -> None:
    """Random expressions: a constant more, double negation, swapped terms, a factor taken out."""
    rng = np.random.default_rng(seed)
    drawn = grow(SPACES[space], rng, 4)
    text = str(drawn)
    branch = "bbox" if space == "box" else "cls"

    def of(changed: str) -> Fingerprint:
        given = ExpressionBranch(parse(changed, SPACES[space]))
        return fingerprint(LossDefinition("x", **{branch: given}))

    one = of(text)
    if not one.scales:
        return  # without a gradient: text
    for changed in (f"Add({text},1)", f"Neg(Neg({text}))", f"Sub(Mul(3,{text}),Mul({text},2))"):
        assert one.same(of(changed)), changed
    bounded = f"Tanh({text})"
    if of(bounded).scales:
        flipped, written = of(f"Softplus(Neg({bounded}))"), f"Sub(Softplus({bounded}),{bounded})"
        assert flipped.same(of(written))
        assert not flipped.same(of(f"Softplus({bounded})"))
    double = of(f"Add({text},{text})")
    assert one.same(double, scales=None)
    assert not one.same(double)


def test_directions_show_a_small_block_beside_a_large_one() -> None:
    rng = np.random.default_rng(0)
    gradient = np.concatenate([1e4 * rng.normal(size=(6, 2)), rng.normal(size=(6, 2))])
    blocks = (slice(0, 6), slice(6, 12))
    vector, size = directions(gradient, blocks)  # type: ignore[misc]
    assert size == pytest.approx(np.sqrt(np.mean(gradient**2)))
    other = gradient.copy()
    other[6:] *= 1 + 1e-4
    moved, _ = directions(other, blocks)  # type: ignore[misc]
    assert np.abs(moved - vector).max() > 10 * AGREES
    for factor in (1e-9, 1e9, 1e200):
        again, _ = directions(gradient * factor, blocks)  # type: ignore[misc]
        assert np.abs(again - vector).max() < 1e-9
    for nothing in (0.0, np.nan, np.inf):
        assert directions(gradient * nothing, blocks) is None


class Kept:
    """Fingerprints that are fetched by number, and how often they were."""

    def __init__(self) -> None:
        self.prints: dict[int, Fingerprint] = {}
        self.known = Known(self.fetch)
        self.fetched = 0

    def add(self, number: int, fingerprint: Fingerprint) -> None:
        self.prints[number] = fingerprint
        self.known.add(number, fingerprint)

    def fetch(self, number: int) -> Fingerprint:
        self.fetched += 1
        return self.prints[number]


def test_known_finds_the_lowest_number_of_what_is_the_same() -> None:
    kept, rng = Kept(), np.random.default_rng(3)
    known = kept.known
    vectors = rng.normal(size=(40, 60))
    for number, vector in enumerate(vectors):
        kept.add(number, Fingerprint("{}", vector, {"cls": 1.0}))
    kept.add(99, Fingerprint("{}", vectors[7], {"cls": 1.0}))
    for number, vector in enumerate(vectors):
        moved = vector + 0.9 * AGREES * rng.choice((-1.0, 1.0), 60)
        assert known.find(Fingerprint("{}", moved, {"cls": 1.0})) == number
        assert known.find(Fingerprint("{}", moved, {"cls": 1.001})) is None
        assert known.find(Fingerprint(json.dumps({"a": 1}), moved, {"cls": 1.0})) is None
    assert known.find(Fingerprint("{}", vectors[7] + 1e-3, {"cls": 1.0})) is None


def test_known_says_what_a_comparison_with_everyone_says() -> None:
    """Whole clouds of losses that differ about as much as they may, in entries and in scales."""
    rng = np.random.default_rng(5)
    centers = rng.normal(size=(12, 40))

    def drawn() -> Fingerprint:
        vector = centers[rng.integers(12)].copy()
        spread = AGREES * 10.0 ** rng.uniform(-1.5, 1.0)
        places = rng.random(40) < rng.choice((0.05, 1.0))
        vector[places] += spread * rng.uniform(-1.0, 1.0, int(places.sum()))
        scale = 2.0 * (1.0 + SCALES_AGREE * float(rng.choice((0.0, 0.5, 1.01, 1.5, 50.0))))
        form = str(rng.choice(("{}", '{"a":1}')))
        if rng.random() < 0.1:
            return Fingerprint(form, np.zeros(0), {})
        return Fingerprint(form, vector, {"cls": 1.0, "bbox": scale})

    kept, found, missed = Kept(), 0, 0
    for number in range(600):
        asked = drawn()
        same = [other for other, each in kept.prints.items() if each.same(asked)]
        assert kept.known.find(asked) == min(same, default=None), number
        found, missed = found + bool(same), missed + (not same)
        kept.add(number, asked)
    assert found > 100
    assert missed > 100


def test_other_losses_are_told_apart_without_being_fetched() -> None:
    kept, rng = Kept(), np.random.default_rng(9)
    for number in range(3000):
        found = Fingerprint("{}", rng.normal(size=30), {"cls": 1.0})
        assert kept.known.find(found) is None
        kept.add(number, found)
    assert kept.fetched <= 1
