"""The published CSE-AutoLoss formulas: text, value and gradient as in the reference's numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from primitives import canonical, parse, to_torch

GOLDEN = Path(__file__).parents[1] / "golden" / "reference_small.npz"
A_CLS = "Neg(Dot(Mul(Y,Add(1,Sin(Z))),Log(Softmax(X))))"
A_REG = "Add(1,Neg(Add(Div(I,U),Neg(Div(Add(E,Neg(Add(I,2))),E)))))"
B_CLS = (
    "Neg(Add(Mul(Q,Mul(Add(1,Serf(Sig(NY))),Log(Sig(X)))),Mul(Add(Sgdf(X),Neg(Q)),"
    "Mul(Add(Add(1,Neg(Q)),Neg(Add(1,Neg(Sig(X))))),Log(Add(1,Neg(Sig(X))))))))"
)
B_REG = (
    "Neg(Div(Add(Div(Neg(Add(Neg(E),Add(1,I))),Neg(Add(3,Add(2,U)))),Add(Div(E,E),Div(Neg(E),"
    "Neg(1)))),Neg(Add(Div(Neg(Add(U,Div(I,1))),Neg(3)),Neg(E)))))"
)


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN) as data:
        return {key: torch.tensor(data[key]) for key in data.files}


def check(loss: torch.Tensor, x: torch.Tensor, case: str, golden: dict[str, torch.Tensor]) -> None:
    (gradient,) = torch.autograd.grad(loss, x)
    wanted = golden[f"{case}.grad"]
    torch.testing.assert_close(loss, golden[f"{case}.loss"], rtol=1e-5, atol=0.0)
    # Entries that are rounding noise beside the largest count as zero.
    torch.testing.assert_close(
        gradient, wanted, rtol=1e-5, atol=1e-6 * float(wanted.abs().max()), equal_nan=True
    )


@pytest.mark.parametrize(
    ("text", "space"),
    [(A_CLS, "multi_cls"), (B_CLS, "binary_cls"), (A_REG, "box"), (B_REG, "box")],
)
def test_published_texts_round_trip(text: str, space: str) -> None:
    assert str(parse(text, space)) == text


@pytest.mark.parametrize("form", [lambda e: e, canonical], ids=["genotype", "canonical"])
def test_a_cls(form, golden: dict[str, torch.Tensor]) -> None:  # type: ignore[no-untyped-def]
    x = golden["a_cls.x"].clone().requires_grad_()
    labels = golden["a_cls.labels"]
    iou = torch.ones_like(x)
    iou[labels < x.shape[1] - 1] = golden["a_cls.pos_ious"][:, None]
    target = torch.nn.functional.one_hot(labels, x.shape[1])  # integers, as the reference's
    rows = to_torch(form(parse(A_CLS, "multi_cls")))(X=x, Y=target, Z=iou)
    assert rows.dtype == torch.float32
    loss = (rows * golden["a_cls.weight"]).sum() / golden["a_cls.avg_factor"]
    check(loss, x, "a_cls", golden)


@pytest.mark.parametrize("form", [lambda e: e, canonical], ids=["genotype", "canonical"])
def test_b_cls(form, golden: dict[str, torch.Tensor]) -> None:  # type: ignore[no-untyped-def]
    x = golden["b_cls.x"].clone().requires_grad_()
    labels = golden["b_cls.labels"]
    label = torch.nn.functional.one_hot(labels, x.shape[1] + 1)[:, :-1].to(x.dtype)
    positive = labels < x.shape[1]
    quality = torch.zeros_like(x)
    quality[positive, labels[positive]] = golden["b_cls.pos_ious"]
    entries = to_torch(form(parse(B_CLS, "binary_cls")))(X=x, Q=quality, PY=label, NY=1 - label)
    entries = entries * (0.25 * label + 0.75 * (1 - label)) * golden["b_cls.weight"][:, None]
    check(entries.sum() / golden["b_cls.avg_factor"], x, "b_cls", golden)


def areas(pred: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
    def area(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        return (high - low).clamp(min=0).prod(dim=1)

    inside = area(
        torch.maximum(pred[:, :2], target[:, :2]), torch.minimum(pred[:, 2:], target[:, 2:])
    )
    union = area(pred[:, :2], pred[:, 2:]) + area(target[:, :2], target[:, 2:]) - inside
    enclosing = area(
        torch.minimum(pred[:, :2], target[:, :2]), torch.maximum(pred[:, 2:], target[:, 2:])
    )
    return {"U": union + 1e-7, "I": inside, "E": enclosing + 1e-7}


@pytest.mark.parametrize("form", [lambda e: e, canonical], ids=["genotype", "canonical"])
@pytest.mark.parametrize(("case", "text"), [("a_reg", A_REG), ("b_reg", B_REG)])
def test_box_losses(case: str, text: str, form, golden: dict[str, torch.Tensor]) -> None:  # type: ignore[no-untyped-def]
    pred = golden[f"{case}.pred"].clone().requires_grad_()
    rows = to_torch(form(parse(text, "box")))(**areas(pred, golden[f"{case}.target"]))
    weight = golden[f"{case}.weight"].mean(dim=1)
    check((rows * weight).sum() / golden[f"{case}.avg_factor"], pred, case, golden)
