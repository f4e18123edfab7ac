"""The expression losses: published values, mmdet's call signature, reductions and stock twins."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS

import losses.expression_losses as module
from losses import (
    CATALOG,
    BoxExpressionLoss,
    SigmoidExpressionLoss,
    SoftmaxExpressionLoss,
)
from primitives import PrimitivesError, parse

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "reference_small.npz")
CE = "Neg(Dot(Y,Log(Softmax(X))))"
Z_CE = "Neg(Dot(Mul(Y,Z),Log(Softmax(X))))"
BCE = "Sub(Softplus(X),Mul(PY,X))"
Q_BCE = "Sub(Softplus(X),Mul(Q,X))"
IOU = "Sub(1,Div(I,U))"


def golden(case):
    start = f"{case}."
    return {
        key.removeprefix(start): torch.from_numpy(np.asarray(GOLDEN[key]))
        for key in GOLDEN.files
        if key.startswith(start)
    }


def assert_relatively_close(actual, expected):
    """Within 1e-5 of the largest magnitude, elementwise 1e-5 where that is above noise."""
    scale = expected.abs().max()
    assert (actual - expected).abs().max() <= 1e-5 * scale
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=float(1e-6 * scale))


@pytest.mark.parametrize("letter", ["a", "b"])
def test_published_classification_losses(letter):
    case = golden(f"{letter}_cls")
    config = {
        "type": "SoftmaxExpressionLoss" if letter == "a" else "SigmoidExpressionLoss",
        "expression": str(CATALOG[f"cse-autoloss-{letter}"].cls.expression),
    }
    logits = case["x"].requires_grad_()
    loss = MODELS.build(config)(
        logits,
        case["labels"],
        case["weight"],
        avg_factor=case["avg_factor"].item(),
        pos_ious=case["pos_ious"],
    )
    loss.backward()
    assert_relatively_close(loss.detach(), case["loss"])
    assert_relatively_close(logits.grad, case["grad"])


@pytest.mark.parametrize("letter", ["a", "b"])
def test_published_box_losses(letter):
    case = golden(f"{letter}_reg")
    expression = str(CATALOG[f"cse-autoloss-{letter}"].bbox.expression)
    pred = case["pred"].requires_grad_()
    loss = MODELS.build({"type": "BoxExpressionLoss", "expression": expression})(
        pred, case["target"], case["weight"], avg_factor=case["avg_factor"].item()
    )
    loss.backward()
    assert_relatively_close(loss.detach(), case["loss"])
    assert_relatively_close(pred.grad, case["grad"])


def make(kind, expression, **settings):
    return MODELS.build({"type": kind, "expression": expression, **settings})


def boxes(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=g) * 60
    return torch.cat([corner, corner + 4 + torch.rand(n, 2, generator=g) * 40], 1)


CASES = {
    "softmax": ("SoftmaxExpressionLoss", CE, 5, (20,)),
    "sigmoid": ("SigmoidExpressionLoss", BCE, 4, (20, 4)),
    "box": ("BoxExpressionLoss", IOU, 4, (20,)),
}


def arguments(kind):
    torch.manual_seed(0)
    if kind == "box":
        return boxes(20), boxes(20, seed=1)
    return torch.randn(20, CASES[kind][2]), torch.randint(0, 5, (20,))


@pytest.mark.parametrize("kind", CASES)
def test_reductions_are_mmdet_s(kind):
    name, expression, _, shape = CASES[kind]
    loss = make(name, expression, loss_weight=2.5)
    args = arguments(kind)
    each = loss(*args, reduction_override="none")
    assert each.shape == shape
    torch.testing.assert_close(loss(*args), each.mean())
    torch.testing.assert_close(loss(*args, reduction_override="sum"), each.sum())
    weight = torch.rand(20)
    weight[::3] = 0
    rows = weight if len(shape) == 1 else weight[:, None]
    torch.testing.assert_close(loss(*args, weight), (each * rows).mean())
    torch.testing.assert_close(
        loss(*args, weight, reduction_override="none"), each * rows, rtol=1e-5, atol=1e-7
    )
    eps = torch.finfo(torch.float32).eps
    torch.testing.assert_close(
        loss(*args, weight, avg_factor=7.0), (each * rows).sum() / (7.0 + eps)
    )
    torch.testing.assert_close(
        loss(*args, weight, avg_factor=torch.tensor(7.0)), (each * rows).sum() / (7.0 + eps)
    )
    assert torch.isfinite(loss(*args, torch.zeros(20), avg_factor=0.0))
    with pytest.raises(ValueError, match="sum"):
        loss(*args, avg_factor=7.0, reduction_override="sum")
    with pytest.raises(ValueError, match="reduction"):
        loss(*args, reduction_override="max")
    default_sum = make(name, expression, reduction="sum")
    torch.testing.assert_close(default_sum(*args), each.sum() / 2.5)
    with pytest.raises(ValueError, match="reduction"):
        make(name, expression, reduction="average")


def test_weights_per_side_and_per_element():
    pred, target = boxes(6), boxes(6, seed=1)
    loss = make("BoxExpressionLoss", IOU)
    per_side = torch.rand(6, 4)
    torch.testing.assert_close(loss(pred, target, per_side), loss(pred, target, per_side.mean(1)))
    scores, labels = torch.randn(6, 4), torch.randint(0, 5, (6,))
    sigmoid = make("SigmoidExpressionLoss", BCE)
    each = sigmoid(scores, labels, reduction_override="none")
    weight = torch.rand(6, 4)
    torch.testing.assert_close(sigmoid(scores, labels, weight), (each * weight).mean())


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_empty_inputs_give_a_zero_with_a_graph(kind, reduction):
    name, expression, *_ = CASES[kind]
    first = arguments(kind)[0][:0].requires_grad_()
    loss = make(name, expression)(first, arguments(kind)[1][:0], reduction_override=reduction)
    loss.sum().backward()
    assert loss.sum() == 0
    assert loss.requires_grad


def test_inputs_of_the_softmax_form():
    """Rows of positives hold their IoU in every column, background rows hold 1."""
    labels = torch.tensor([0, 2, 1])
    scores = torch.randn(3, 3)
    ious = torch.tensor([0.25, 0.5])
    z_of = make("SoftmaxExpressionLoss", "Dot(Z,Z)")
    rows = z_of(scores, labels, pos_ious=ious, reduction_override="none")
    torch.testing.assert_close(rows, torch.tensor([3 * 0.0625, 3.0, 3 * 0.25]))
    y_of = make("SoftmaxExpressionLoss", "Dot(Y,X)")
    torch.testing.assert_close(
        y_of(scores, labels, reduction_override="none"), scores[torch.arange(3), labels]
    )


def test_inputs_of_the_sigmoid_form_and_alpha():
    labels = torch.tensor([0, 2, 1])  # 2 is background
    scores = torch.randn(3, 2)
    ious = torch.tensor([0.25, 0.5])

    def values(text, alpha=None, **kwargs):
        loss = make("SigmoidExpressionLoss", text, alpha=alpha)
        return loss(scores, labels, reduction_override="none", **kwargs)

    hot = torch.tensor([[1.0, 0], [0, 0], [0, 1]])
    torch.testing.assert_close(values("PY"), hot)
    torch.testing.assert_close(values("NY"), 1 - hot)
    q = torch.tensor([[0.25, 0], [0, 0], [0, 0.5]])
    torch.testing.assert_close(values("Q", pos_ious=ious), q)
    ones = values("Add(PY,NY)", alpha=0.25)
    torch.testing.assert_close(ones, 0.25 * hot + 0.75 * (1 - hot))
    assert make("SigmoidExpressionLoss", BCE).alpha == 0.25
    with pytest.raises(ValueError, match="alpha"):
        make("SigmoidExpressionLoss", BCE, alpha=1.5)
    with pytest.raises(ValueError, match="use_sigmoid"):
        make("SigmoidExpressionLoss", BCE, use_sigmoid=False)


@pytest.mark.parametrize(
    ("name", "expression"), [("SoftmaxExpressionLoss", Z_CE), ("SigmoidExpressionLoss", Q_BCE)]
)
def test_ious_are_needed_checked_and_detached(name, expression):
    loss = make(name, expression)
    assert loss.wants_ious
    assert not make(name, CE if name.startswith("Soft") else BCE).wants_ious
    scores = torch.randn(4, 3, requires_grad=True)
    labels = torch.tensor([0, 1, 0, 3 if name.startswith("Sig") else 2])
    with pytest.raises(ValueError, match=r"apply_loss.*IoUAwareHead"):
        loss(scores, labels)
    with pytest.raises(ValueError, match="3 rows are positive"):
        loss(scores, labels, pos_ious=torch.rand(2))
    ious = torch.rand(3, requires_grad=True)
    value = loss(scores, labels, pos_ious=ious)
    value.backward()
    assert ious.grad is None
    loss.lent_ious = ious
    assert torch.equal(loss(scores, labels), value)
    background = torch.full((4,), labels[-1])
    assert torch.isfinite(loss(scores, background, pos_ious=torch.zeros(0)))


def test_pairs_of_weight_zero_cannot_spoil_the_sum():
    """RetinaNet passes every anchor, with target (0, 0, 0, 0) where it is a negative."""
    loss = make("BoxExpressionLoss", "Neg(Log(Sqrt(Div(I,U))))")
    pred = boxes(4).requires_grad_()
    target = boxes(4) + 1
    target[2:] = 0
    weight = torch.tensor([1.0, 1, 0, 0])[:, None].expand(4, 4)
    value = loss(pred, target, weight, avg_factor=2.0)
    value.backward()
    assert torch.isfinite(pred.grad).all()
    assert not pred.grad[2:].any()
    torch.testing.assert_close(value, loss(pred[:2], target[:2], avg_factor=2.0))
    nothing = loss(pred, target, torch.zeros(4, 4), avg_factor=2.0)
    assert nothing == 0
    assert nothing.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_computes_in_float32_or_wider(dtype):
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    scores, labels = torch.randn(8, 5).to(dtype), torch.randint(0, 5, (8,))
    assert make("SoftmaxExpressionLoss", CE)(scores, labels).dtype == wide
    assert make("SigmoidExpressionLoss", BCE)(scores, labels, torch.ones(8)).dtype == wide
    large = (boxes(8) * 20).to(dtype)  # areas beyond the range of float16
    value = make("BoxExpressionLoss", IOU)(large, large, torch.ones(8, 4, dtype=dtype))
    assert value.dtype == wide
    assert value.abs() < 1e-5


def test_expression_text_and_object_are_the_same():
    scores, labels = torch.randn(8, 5), torch.randint(0, 5, (8,))
    text = SoftmaxExpressionLoss(CE)(scores, labels)
    assert torch.equal(text, SoftmaxExpressionLoss(parse(CE, "multi_cls"))(scores, labels))
    with pytest.raises(PrimitivesError):
        SoftmaxExpressionLoss("Neg(X)")
    with pytest.raises(PrimitivesError):
        SigmoidExpressionLoss(CE)
    with pytest.raises(PrimitivesError):
        BoxExpressionLoss("Sub(1,Div(I,")
    assert "Softmax" in repr(SoftmaxExpressionLoss(CE))


def test_a_user_s_space_reaches_the_loss():
    space = {
        "name": "tiny",
        "inputs": {"U": "per_row", "I": "per_row"},
        "constants": [1],
        "operators": ["Sub", "Div"],
        "root": "per_row",
    }
    pred, target = boxes(4), boxes(4, seed=1)
    own = make("BoxExpressionLoss", IOU, space=space)
    assert torch.equal(own(pred, target), make("BoxExpressionLoss", IOU)(pred, target))
    with pytest.raises(PrimitivesError):
        make("BoxExpressionLoss", "Div(I,E)", space=space)
    assert module.resolve_space(space).name == "tiny"


def twin_grad(loss, *args, **kwargs):
    first = args[0].clone().requires_grad_()
    value = loss(first, *args[1:], **kwargs)
    value.backward()
    return value.detach(), first.grad


def test_twins_of_stock_classification_losses():
    torch.manual_seed(0)
    labels, weight = torch.randint(0, 5, (40,)), torch.rand(40)
    kwargs = {"weight": weight, "avg_factor": 11.0}
    ce = make("SoftmaxExpressionLoss", str(CATALOG["ce-expression"].cls.expression))
    stock = MODELS.build({"type": "CrossEntropyLoss"})
    scores = torch.randn(40, 5) * 2
    for ours, theirs in zip(
        twin_grad(ce, scores, labels, **kwargs),
        twin_grad(stock, scores, labels, **kwargs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    focal = make("SigmoidExpressionLoss", str(CATALOG["focal-expression"].cls.expression))
    stock = MODELS.build({"type": "FocalLoss"})
    scores = torch.randn(40, 4) * 2
    for ours, theirs in zip(
        twin_grad(focal, scores, labels, **kwargs),
        twin_grad(stock, scores, labels, **kwargs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["qfl-giou", "vfl-giou"])
def test_twins_of_iou_aware_classification_losses(name):
    torch.manual_seed(0)
    labels = torch.randint(0, 5, (40,))
    ious = torch.rand(int((labels < 4).sum()))
    scores = torch.randn(40, 4) * 2
    branch = CATALOG[name].cls
    ours = make("SigmoidExpressionLoss", str(branch.expression), alpha=branch.alpha)
    row_ious = torch.zeros(40)
    row_ious[labels < 4] = ious
    if name == "qfl-giou":
        stock = MODELS.build({"type": "QualityFocalLoss", "beta": 2.0})
        target = (labels, row_ious)
    else:
        stock = MODELS.build({"type": "VarifocalLoss", "alpha": 0.75, "gamma": 2.0})
        target = torch.nn.functional.one_hot(labels, 5)[:, :4] * row_ious[:, None]
    expected = twin_grad(stock, scores, target, avg_factor=9.0)
    actual = twin_grad(ours, scores, labels, pos_ious=ious, avg_factor=9.0)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "stock"),
    [
        ("giou-expression", {"type": "GIoULoss"}),
        ("iou-expression", {"type": "IoULoss", "mode": "linear"}),
    ],
)
def test_twins_of_stock_box_losses(name, stock):
    """Equal but for the guards against division by zero.

    mmdet clamps the areas at 1e-7 (GIoU) or 1e-6 (IoU) where ours adds 1e-7, and the IoU loss
    clamps the IoU at 1e-6: no difference above rounding for boxes of a pixel or more that overlap.
    """
    pred, target = boxes(50), boxes(50) + torch.randn(50, 4)
    ours = make("BoxExpressionLoss", str(CATALOG[name].bbox.expression))
    weight = torch.rand(50, 4)
    actual = twin_grad(ours, pred, target, weight, avg_factor=50.0)
    expected = twin_grad(MODELS.build(stock), pred, target, weight, avg_factor=50.0)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
