"""The door of verification: which probe a search space needs, and the verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from primitives import Expression, Kind, SearchSpace, SpaceError
from search_server.funnel.verification import box, sigmoid, softmax
from search_server.funnel.verification.single_precision import check_single_precision
from search_server.funnel.verification.verdict import Rejected, Verdict


@dataclass(frozen=True)
class Family:
    """A kind of loss: what marks its spaces, and its conditions.

    Attributes:
        name: "softmax", "sigmoid" or "box".
        root: kind of value that its losses have.
        inputs: kind of every input that its losses may read.
        needed: every group in it must give at least one input to the space and to the loss,
            with the name of the condition that fails otherwise.
        check: runs the numeric conditions, cheapest first; raises Rejected.
    """

    name: str
    root: Kind
    inputs: Mapping[str, Kind]
    needed: tuple[tuple[str, frozenset[str]], ...]
    check: Callable[[Expression, dict[str, float]], None]


FAMILIES = (
    Family(
        name="softmax",
        root=Kind.PER_ROW,
        inputs=dict.fromkeys("XYZ", Kind.PER_CLASS),
        needed=(
            ("ignores the prediction", frozenset({"X"})),
            ("ignores the target", frozenset({"Y"})),
        ),
        check=softmax.check,
    ),
    Family(
        name="sigmoid",
        root=Kind.PER_CLASS,
        inputs=dict.fromkeys(("X", "Q", "PY", "NY"), Kind.PER_CLASS),
        needed=(
            ("ignores the prediction", frozenset({"X"})),
            ("ignores the target", frozenset({"Q", "PY", "NY"})),
        ),
        check=sigmoid.check,
    ),
    Family(
        name="box",
        root=Kind.PER_ROW,
        inputs=dict.fromkeys("UIE", Kind.PER_ROW),
        needed=(
            ("ignores the intersection", frozenset({"I"})),
            ("ignores the size", frozenset({"U", "E"})),
        ),
        check=box.check,
    ),
)


@lru_cache(maxsize=64)
def family_of(space: SearchSpace) -> Family:
    """The family whose probe fits a search space, by the kind of its root and its inputs.

    Raises:
        SpaceError: no family has these inputs, so nothing is known about what they mean.
    """
    inputs = {each.name: each.kind for each in space.inputs}
    for family in FAMILIES:
        if (
            space.root is family.root
            and all(family.inputs.get(name) is kind for name, kind in inputs.items())
            and all(group & inputs.keys() for _, group in family.needed)
        ):
            return family
    known = "; ".join(
        f"{family.name}: {_kind(family.root)} root, inputs among {', '.join(family.inputs)}"
        for family in FAMILIES
    )
    raise SpaceError(
        "inputs",
        f"{_kind(space.root)} root, inputs {', '.join(inputs)}",
        f"space {space.name} is of no family that can be verified ({known})",
    )


def verify(expression: Expression) -> Verdict:
    """Says whether an expression has the properties of a loss that training converges with.

    The conditions are those of CSE-AutoLoss (section 3.2) as far as they hold for every loss
    that is known to train; see docs/verification.md. Deterministic; most expressions are decided
    by the first condition, in microseconds.

    Raises:
        SpaceError: the expression's space is of no known family.
    """
    family = family_of(expression.space)
    measures: dict[str, float] = {"size": float(expression.size), "depth": float(expression.depth)}
    try:
        for condition, group in family.needed:
            if not group & expression.inputs:
                names = " or ".join(sorted(group))
                raise Rejected(condition, f"the expression does not use {names}")
        with np.errstate(all="ignore"):
            family.check(expression, measures)
        check_single_precision(expression, family.name, measures)
    except Rejected as no:
        return Verdict(False, no.condition, no.message, measures)
    return Verdict(True, None, f"meets every condition of the {family.name} family", measures)


def _kind(kind: Kind) -> str:
    return kind.words
