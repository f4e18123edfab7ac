"""AutoLoss-Zero's two filters: what they let through, what they stop, and what they stand on."""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
import pytest
import torch
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from losses import LossDefinition
from losses.boxes import paired_areas
from primitives import SPACES, Gradient, SearchSpace, grow, parse
from search_server.cli.verify import verify as verify_command
from search_server.funnel.equivalence import equivalent, gradient_norms
from search_server.funnel.filters import Filters
from search_server.funnel.rejection import NOT_IMPROVED, gradient_at, reject
from search_server.funnel.samples import (
    ROWS,
    SAMPLES,
    THRESHOLDS,
    BoxSamples,
    areas_with_slopes,
    average_precision,
    samples_of,
)
from search_server.funnel.verification import Verdict, verify
from search_server.funnel.verification.pairs import make_pairs
from search_server.spec import Verify
from search_server.spec.budgets import Rejection

MULTI, BINARY, BOX = (f"autoloss_zero_{role}" for role in ("multi_cls", "binary_cls", "box"))
IOU = "Mul(I,Inv(U))"
SIGMOID_CE = "Neg(Add(Mul(PY,SLog(Sig(X))),Mul(Add(1,Neg(PY)),SLog(Add(1,Neg(Sig(X)))))))"
LOSSES = {
    (MULTI, "cross-entropy"): "Neg(Dot(Y,SLog(Softmax(X))))",
    (MULTI, "focal"): "Neg(Dot(Mul(Y,Square(Add(1,Neg(Softmax(X))))),SLog(Softmax(X))))",
    (MULTI, "Brier"): "Dot(1,Square(Add(Y,Neg(Softmax(X)))))",
    (MULTI, "mean absolute"): "Dot(1,Abs(Add(Y,Neg(Softmax(X)))))",
    (BINARY, "cross-entropy"): SIGMOID_CE,
    (BINARY, "softplus"): "Add(SLog(Add(1,Exp(X))),Neg(Mul(PY,X)))",
    (BINARY, "focal"): (
        "Neg(Add(Mul(PY,Mul(Square(Add(1,Neg(Sig(X)))),SLog(Sig(X)))),"
        "Mul(Add(1,Neg(PY)),Mul(Square(Sig(X)),SLog(Add(1,Neg(Sig(X))))))))"
    ),
    (BINARY, "Brier"): "Square(Add(PY,Neg(Sig(X))))",
    (BOX, "IoU"): f"Add(1,Neg({IOU}))",
    (BOX, "-log IoU"): f"Neg(SLog({IOU}))",
    (BOX, "GIoU"): f"Add(Add(1,Neg({IOU})),Mul(Add(E,Neg(U)),Inv(E)))",
    ("multi_cls", "CSE-A"): "Neg(Dot(Mul(Y,Add(1,Sin(Z))),Log(Softmax(X))))",
    ("binary_cls", "quality"): "Mul(Mul(Sub(Q,Sig(X)),Sub(Q,Sig(X))),Sub(Softplus(X),Mul(Q,X)))",
    ("box", "CSE-A"): "Add(1,Neg(Add(Div(I,U),Neg(Div(Add(E,Neg(Add(I,2))),E)))))",
}
CASES = [pytest.param(key[0], text, id=" ".join(key)) for key, text in LOSSES.items()]


def judged(text: str, space: str) -> Verdict:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return reject(parse(text, space), Rejection())


@pytest.mark.parametrize(("space", "text"), CASES)
def test_losses_pass_and_their_negatives_and_differences_do_not(space: str, text: str) -> None:
    verdict = judged(text, space)
    assert verdict.accepted, verdict.message
    assert verdict.measures["gain"] > 0.99
    assert verdict.measures["metric_before"] < 0.25
    assert judged(f"Neg({text})", space).condition == NOT_IMPROVED
    assert judged(f"Add({text},Neg({text}))", space).condition == "no gradient"
    assert judged(f"Mul(2,Add(1,{text}))", space).accepted


@pytest.mark.parametrize(
    ("space", "text", "condition"),
    [
        (BOX, "Add(Mul(I,Inv(I)),Mul(U,Inv(U)))", "no gradient"),
        (BOX, "Neg(I)", "ignores the size"),
        (BOX, "U", "ignores the intersection"),
        (BOX, "Add(U,I)", NOT_IMPROVED),  # smaller boxes have smaller areas
        (BOX, f"Square({IOU})", NOT_IMPROVED),
        (BINARY, "Square(X)", "ignores the target"),
        (BINARY, "Abs(PY)", "ignores the prediction"),
        (BINARY, "Mul(PY,X)", NOT_IMPROVED),
        (BINARY, "Neg(Mul(PY,X))", NOT_IMPROVED),  # nothing holds the background down
        (BINARY, "Square(Add(PY,Sig(X)))", NOT_IMPROVED),
        (BINARY, "Mul(PY,Inv(Add(X,Neg(X))))", "no gradient"),
        (BINARY, "Mul(PY,Square(Square(Square(Square(Exp(Exp(X)))))))", "non-finite"),
        (MULTI, "Dot(Y,SLog(Softmax(X)))", NOT_IMPROVED),
        (MULTI, "Dot(1,Square(MeanClasses(Mul(X,Y))))", NOT_IMPROVED),
    ],
)
def test_what_does_not_improve_predictions_is_stopped(
    space: str, text: str, condition: str
) -> None:
    verdict = judged(text, space)
    assert verdict.condition == condition, verdict.message
    assert not verdict.accepted
    assert verdict.message


def test_a_value_that_only_float32_cannot_hold_is_not_finite() -> None:
    # exp(88) squared is finite in float64, and its part in the gradient is not
    text = f"Add({SIGMOID_CE},Mul(Inv(Exp(Exp(Exp(Exp(1))))),Square(Exp(Add(X,Exp(Exp(Exp(1))))))))"
    verdict = judged(text, BINARY)
    assert verdict.condition == "non-finite"
    assert "float32" in verdict.message


def test_threshold_and_steps_are_the_settings_own() -> None:
    one_sided = parse("Neg(Mul(PY,X))", BINARY)
    assert not reject(one_sided, Rejection()).accepted
    assert reject(one_sided, Rejection(threshold=0.6)).accepted
    slow = Rejection(steps=10, learning_rate=0.01)
    assert not reject(parse(SIGMOID_CE, BINARY), slow).accepted


def test_a_verdict_is_the_same_every_time() -> None:
    expression = parse(LOSSES[BOX, "GIoU"], BOX)
    assert reject(expression, Rejection()) == reject(expression, Rejection())
    assert gradient_norms(expression) == gradient_norms(expression)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(SPACES)))
def test_whatever_grows_gets_a_verdict(seed: int, space: str) -> None:
    expression = grow(SPACES[space], np.random.default_rng(seed), 1, 7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verdict = reject(expression, Rejection())
    assert verdict.accepted == (verdict.condition is None)
    assert verdict.message
    assert all(np.isfinite(list(verdict.measures.values())))


@pytest.mark.parametrize("space", [MULTI, BINARY, BOX])
def test_most_random_draws_are_stopped_yet_not_all(space: str) -> None:
    rng = np.random.default_rng(0)
    outcomes = Counter(
        reject(grow(SPACES[space], rng, 2, 5), Rejection()).condition for _ in range(2500)
    )
    assert 1 <= outcomes[None] <= 250, outcomes
    assert outcomes[NOT_IMPROVED] > 100


# --- what the filters stand on: samples, metric, gradients --------------------------------------


def test_average_precision_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    for _ in range(50):
        scores, wanted = rng.normal(size=60), (rng.random(60) < 0.2).astype(float)
        wanted[0] = 1.0
        expected = average_precision_score(wanted, scores)
        assert average_precision(scores, wanted) == pytest.approx(expected, abs=1e-12)
    equal = np.array([1.0, 0.0, 0.0, 0.0])
    assert average_precision(np.zeros(4), equal) == 0.25  # ties do not help
    assert average_precision(np.arange(4.0)[::-1], equal) == 1.0


def test_areas_and_their_slopes_agree_with_torch() -> None:
    pred, target = make_pairs(16.0, 90, np.random.default_rng(2), same_size=False)
    areas, slopes = areas_with_slopes(pred, target)
    leaf = torch.tensor(pred, requires_grad=True)
    union, inner, outer = paired_areas(leaf, torch.tensor(target))
    for name, area in {"U": union + 1e-7, "I": inner, "E": outer + 1e-7}.items():
        (slope,) = torch.autograd.grad(area.sum(), leaf, retain_graph=True)
        np.testing.assert_allclose(areas[name], area.detach().numpy(), rtol=1e-12)
        np.testing.assert_allclose(slopes[name], slope.numpy(), rtol=1e-9, atol=1e-9)


def test_the_gradient_by_box_deltas_is_that_through_mmdets_coder() -> None:
    from mmdet.models.task_modules.coders.delta_xywh_bbox_coder import delta2bbox

    samples = samples_of("box")
    assert isinstance(samples, BoxSamples)
    deltas = np.random.default_rng(5).normal(0.0, 1.0, samples.start.shape)
    expression = parse(LOSSES[BOX, "GIoU"], BOX)
    found = gradient_at(Gradient(expression, samples.moving), samples, deltas)
    anchors = samples._decoded(samples.start)[0]
    leaf = torch.tensor(deltas, requires_grad=True)
    boxes = delta2bbox(
        torch.tensor(anchors), leaf, stds=(0.1, 0.1, 0.2, 0.2), wh_ratio_clip=np.exp(-4.0)
    )
    union, inner, outer = paired_areas(boxes, torch.tensor(samples._target))
    loss = 1 - inner / union + (outer - union) / outer
    (wanted,) = torch.autograd.grad(loss.sum(), leaf)
    assert found is not None
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-6, atol=1e-7)
    expected = ((inner / union).detach().numpy()[:, None] >= THRESHOLDS).mean()
    assert samples.metric(deltas) == pytest.approx(expected)


@pytest.mark.parametrize("family", ["softmax", "sigmoid", "box"])
def test_samples_start_badly_and_can_be_solved(family: str) -> None:
    samples = samples_of(family)
    assert len(samples.start) == SAMPLES * ROWS
    inputs, _ = samples.inputs(samples.start)
    assert samples.metric(samples.start) < 0.25
    if family != "box":
        target = inputs["Y" if family == "softmax" else "PY"]
        assert samples.metric(20.0 * target - 10.0) == 1.0
        foreground = target[:, :-1] if family == "softmax" else target
        positives = foreground.reshape(SAMPLES, -1).sum(axis=1)
        assert (positives == positives[0]).all()
        assert positives[0] > 2


# --- gradient equivalence -----------------------------------------------------------------------


def key(text: str, space: str = BOX) -> str:
    branch = "bbox" if SPACES[space].kinds.keys() == {"U", "I", "E"} else "cls"
    data = {"name": "x", branch: {"type": "expression", "space": space, "expression": text}}
    return LossDefinition.from_json(data).key


@pytest.mark.parametrize(
    ("space", "one", "other", "same"),
    [
        (BOX, "Mul(Add(E,U),Inv(I))", "Mul(Inv(I),Add(U,E))", True),
        (BOX, f"Neg({IOU})", f"Add(1,Neg({IOU}))", True),
        (BOX, f"Neg({IOU})", "Neg(Inv(Mul(U,Inv(I))))", True),  # algebra that no rule knows
        (BOX, f"Neg({IOU})", f"Neg(Mul(2,{IOU}))", False),
        (BOX, f"Neg({IOU})", f"Neg(Mul(1.2,{IOU}))", False),
        (BOX, f"Neg({IOU})", f"Neg(SLog({IOU}))", False),
        (BINARY, SIGMOID_CE, LOSSES[BINARY, "softplus"], True),
        (BINARY, SIGMOID_CE, LOSSES[BINARY, "focal"], False),
        (MULTI, LOSSES[MULTI, "cross-entropy"], LOSSES[MULTI, "Brier"], False),
    ],
)
def test_losses_with_the_same_gradient_norms_are_one(
    space: str, one: str, other: str, same: bool
) -> None:
    one, other = key(one, space), key(other, space)
    assert one != other or "Inv(I)" in one
    assert equivalent(one, [key(LOSSES[MULTI, "focal"], MULTI), other], 2) is same
    assert not equivalent(one, [], 2)


def test_more_digits_tell_more_apart() -> None:
    one, other = key(f"Neg({IOU})"), key(f"Neg(Mul(1.001,{IOU}))")
    assert equivalent(one, [other], 2)
    assert not equivalent(one, [other], 6)


def test_a_calibrated_loss_counts_with_its_factor() -> None:
    def scaled(text: str, scale: float) -> str:
        branch = {"type": "expression", "space": BOX, "expression": text, "scale": scale}
        return LossDefinition.from_json({"name": "x", "bbox": branch}).key

    one = scaled(f"Neg({IOU})", 3.0)
    assert equivalent(one, [scaled(f"Neg(Mul(2,{IOU}))", 1.5)], 2)
    assert not equivalent(one, [scaled(f"Neg({IOU})", 1.5)], 2)


def test_norms_are_those_of_autograd() -> None:
    samples = samples_of("sigmoid")
    inputs, _ = samples.inputs(samples.start)
    leaf = torch.tensor(samples.start, requires_grad=True)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        leaf, torch.tensor(inputs["PY"]), reduction="sum"
    )
    (gradient,) = torch.autograd.grad(loss, leaf)
    expected = gradient.reshape(SAMPLES, -1).norm(dim=1).tolist()
    assert gradient_norms(parse(SIGMOID_CE, BINARY)) == pytest.approx(expected, rel=1e-6)


def test_both_branches_count_and_so_does_what_is_no_expression() -> None:
    def whole(cls: str, bbox: str, weight: float = 1.0) -> str:
        data = {
            "name": "x",
            "cls": {"type": "expression", "space": BINARY, "expression": cls},
            "bbox": {
                "type": "expression",
                "space": BOX,
                "expression": bbox,
                "loss_weight": weight,
            },
        }
        return LossDefinition.from_json(data).key

    first = whole(SIGMOID_CE, f"Neg({IOU})")
    assert equivalent(whole(LOSSES[BINARY, "softplus"], f"Add(1,Neg({IOU}))"), [first], 2)
    assert not equivalent(whole(SIGMOID_CE, f"Neg(SLog({IOU}))"), [first], 2)
    assert not equivalent(whole(SIGMOID_CE, f"Neg({IOU})", 2.0), [first], 2)


@pytest.mark.parametrize(
    ("arguments", "status", "shown"),
    [
        (["Square(Add(PY,Neg(Sig(X))))", "--space", BINARY], 0, "gradient norm 5"),
        (["Neg(Mul(PY,X))", "--space", BINARY], 1, NOT_IMPROVED),
        (["Sub(1,Div(I,U))", "--space", "box", "--method", "rejection"], 0, "metric after"),
        (["Sub(1,Div(I,U))", "--space", "box"], 0, "agreement"),
        (["Neg(Mul(PY,X))", "--space", BINARY, "--method", "convergence"], 1, "vanish"),
    ],
)
def test_the_command_judges_by_the_same_rules(
    arguments: list[str], status: int, shown: str
) -> None:
    app = typer.Typer(add_completion=False)
    app.command()(verify_command)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == status, result.output
    assert shown in result.output


# --- which filter is used -----------------------------------------------------------------------


def test_the_search_space_decides_unless_the_spec_does() -> None:
    filters = Filters(Verify())
    one_sided = parse("Square(Add(PY,Neg(Sig(X))))", BINARY)
    assert filters.verdict(one_sided) == reject(one_sided, Rejection())
    assert Filters(Verify(method="convergence")).verdict(one_sided) == verify(one_sided)
    cse = parse("Sub(1,Div(I,U))", "box")
    assert filters.verdict(cse) == verify(cse)
    assert Filters(Verify(method="rejection")).verdict(cse) == reject(cse, Rejection())
    mine = SearchSpace.from_json(SPACES[BOX].to_json() | {"constants": [1, 2]})
    own = parse(f"Neg({IOU})", mine)
    assert filters.verdict(own) == verify(own)


def test_equivalence_is_asked_only_where_rejection_is() -> None:
    one = LossDefinition.from_json(
        {"name": "x", "bbox": {"type": "expression", "space": "box", "expression": "Neg(Div(I,U))"}}
    )
    known = {key("Sub(1,Div(I,U))", "box")}
    assert not Filters(Verify()).equivalent(one, known)
    assert Filters(Verify(method="rejection")).equivalent(one, known)
    off = Verify(method="rejection", rejection=Rejection(digits=None))
    assert not Filters(off).equivalent(one, known)
