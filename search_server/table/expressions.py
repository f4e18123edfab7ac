"""The hand-made expressions of the table, from known losses to ones that should train badly.

Each is written out in the prefix form of its space. Classification losses of the sigmoid form carry
their class balance as constants, so that one `alpha: null` serves a whole sub-space.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from losses import CATALOG

_POSITIVE, _NEGATIVE = "Softplus(Neg(X))", "Softplus(X)"  # -log p and -log(1 - p)
_MISSED, _FIRED = "Sig(Neg(X))", "Sig(X)"  # 1 - p and p
_SOFT = "Sub(Softplus(X),Mul(Q,X))"  # cross-entropy towards the quality Q


def _power(base: str, gamma: float) -> str:
    """`base` to a power that is a multiple of a half, up to 3; empty for 0."""
    whole, half = int(gamma), gamma != int(gamma)
    parts = [base] * whole + ([f"Sqrt({base})"] if half else [])
    text = ""
    for part in parts:
        text = f"Mul({text},{part})" if text else part
    return text


def sigmoid_focal(gamma: float, alpha: float | None) -> str:
    """Focal loss as an expression; without an alpha both sorts of label count alike."""
    sides = []
    for label, wrong, cost, share in (
        ("PY", _MISSED, _POSITIVE, alpha),
        ("NY", _FIRED, _NEGATIVE, None if alpha is None else round(1 - alpha, 6)),
    ):
        power = _power(wrong, gamma)
        value = f"Mul({power},{cost})" if power else cost
        side = f"Mul({label},{value})"
        sides.append(side if share is None else f"Mul({share:g},{side})")
    return f"Add({sides[0]},{sides[1]})"


def softmax_focal(gamma: float) -> str:
    """Softmax focal loss: cross-entropy times a power of the share missed."""
    power = _power("Sub(1,Softmax(X))", gamma)
    weight = f"Mul(Y,{power})" if power else "Y"
    return f"Neg(Dot({weight},Log(Softmax(X))))"


SIGMOID: Mapping[str, str] = MappingProxyType(
    {
        "focal 2 0.25": sigmoid_focal(2, 0.25),
        "focal 1 0.5": sigmoid_focal(1, 0.5),
        "focal 2 0.5": sigmoid_focal(2, 0.5),
        "focal 1 0.25": sigmoid_focal(1, 0.25),
        "focal 0.5 0.4": sigmoid_focal(0.5, 0.4),
        "focal 3 0.5": sigmoid_focal(3, 0.5),
        "cross-entropy": sigmoid_focal(0, None),
        "cross-entropy 0.25": sigmoid_focal(0, 0.25),
        "quality focal 2": f"Mul(Mul(Sub(Q,{_FIRED}),Sub(Q,{_FIRED})),{_SOFT})",
        "quality focal 1": f"Mul(Abs(Sub(Q,{_FIRED})),{_SOFT})",
        "varifocal": f"Mul(Add(Q,Mul(0.75,Mul(NY,Mul({_FIRED},{_FIRED})))),{_SOFT})",
        "quality cross-entropy": _SOFT,
        "CSE-B": str(CATALOG["cse-autoloss-b"].expressions["cls"]),
        "squared": f"Mul(Sub(PY,{_FIRED}),Sub(PY,{_FIRED}))",
        "absolute": f"Abs(Sub(PY,{_FIRED}))",
    }
)
"""Classification losses of sigmoid heads, in `binary_cls`."""

SOFTMAX: Mapping[str, str] = MappingProxyType(
    {
        "cross-entropy": softmax_focal(0),
        "focal 0.5": softmax_focal(0.5),
        "focal 1": softmax_focal(1),
        "focal 2": softmax_focal(2),
        "CSE-A": str(CATALOG["cse-autoloss-a"].expressions["cls"]),
        "quality cross-entropy": "Neg(Dot(Mul(Y,Z),Log(Softmax(X))))",
        "absolute": "Neg(Dot(Y,Softmax(X)))",
    }
)
"""Classification losses of softmax heads, in `multi_cls`."""

BOX: Mapping[str, str] = MappingProxyType(
    {
        "GIoU": str(CATALOG["giou-expression"].expressions["bbox"]),
        "IoU": "Sub(1,Div(I,U))",
        "log IoU": "Neg(Log(Div(I,U)))",
        "CSE-A": str(CATALOG["cse-autoloss-a"].expressions["bbox"]),
        "CSE-B": str(CATALOG["cse-autoloss-b"].expressions["bbox"]),
        "IoU squared": "Sub(1,Mul(Div(I,U),Div(I,U)))",
        "hull share": "Sub(1,Div(I,E))",
        "missed squared": "Mul(Sub(1,Div(I,U)),Sub(1,Div(I,U)))",
    }
)
"""Box losses, in `box`."""
