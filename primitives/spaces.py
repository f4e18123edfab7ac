"""Search spaces as data: the inputs, constants and operators an expression may use."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

from primitives.errors import SpaceError
from primitives.operators import OPERATORS, Kind, Operator

_INPUT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_SPACE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_SPACE_FIELDS = ("name", "inputs", "constants", "operators", "root")


@dataclass(frozen=True)
class Input:
    """A named tensor that an expression may read.

    Attributes:
        name: an ASCII identifier of at most 64 characters, not the name of an operator.
        kind: PER_ROW `(N,)` or PER_CLASS `(N, C)`.
    """

    name: str
    kind: Kind


@dataclass(frozen=True)
class SearchSpace:
    """What an expression may be made of.

    Attributes:
        name: identifies the space in messages and definitions.
        inputs: the named tensors.
        constants: finite numbers that growth draws from; any decimal literal parses.
        operators: names from `OPERATORS`.
        root: kind of a whole expression, PER_ROW or PER_CLASS.

    Raises:
        SpaceError: a field is not well defined, or no expression of the root's kind exists.
    """

    name: str
    inputs: tuple[Input, ...]
    constants: tuple[float, ...]
    operators: tuple[str, ...]
    root: Kind

    def __post_init__(self) -> None:
        _check_space_name(self.name)
        _check_space_inputs(self.inputs)
        _check_space_constants(self.constants)
        _check_space_operators(self.operators)
        if not isinstance(self.root, Kind) or self.root is Kind.SCALAR:
            raise SpaceError("root", self.root, "must be per_row or per_class")
        if self.root not in self.min_depth:
            raise SpaceError(
                "root",
                self.root.value,
                "no expression of this kind exists with these inputs and operators",
            )

    def __hash__(self) -> int:
        return hash((self.name, self.operators))  # spaces are cache keys: cheap, and enough

    @cached_property
    def kinds(self) -> Mapping[str, Kind]:
        """Kind of each input, by name."""
        return {item.name: item.kind for item in self.inputs}

    @cached_property
    def table(self) -> Mapping[str, Operator]:
        """The rows of `OPERATORS` that this space uses, by name."""
        return {name: OPERATORS[name] for name in self.operators}

    @cached_property
    def min_depth(self) -> Mapping[Kind, int]:
        """Smallest depth of an expression of each kind that can be made (a leaf has depth 1)."""
        depths = {item.kind: 1 for item in self.inputs}
        if self.constants:
            depths[Kind.SCALAR] = 1
        if Kind.PER_CLASS in depths and "Dot" in self.operators:
            depths.setdefault(Kind.PER_ROW, 2)
        return depths

    def to_json(self) -> dict[str, Any]:
        """The space as plain JSON; `from_json` gives an equal space back."""
        return {
            "name": self.name,
            "inputs": {item.name: item.kind.value for item in self.inputs},
            "constants": [int(c) if c.is_integer() else c for c in self.constants],
            "operators": list(self.operators),
            "root": self.root.value,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SearchSpace:
        """A space from `{"name", "inputs": {name: kind}, "constants", "operators", "root"}`.

        Kinds are written "per_row" and "per_class".

        Raises:
            SpaceError: a field is missing, unknown or not well defined.
        """
        if not isinstance(data, Mapping):
            raise SpaceError("definition", data, "must be an object")
        for key in data:
            if key not in _SPACE_FIELDS:
                raise SpaceError(
                    str(key), data[key], f"unknown field; {_listed_names(_SPACE_FIELDS)}"
                )
        for key in _SPACE_FIELDS:
            if key not in data:
                raise SpaceError(key, None, "is missing")
        inputs = data["inputs"]
        if not isinstance(inputs, Mapping):
            raise SpaceError("inputs", inputs, 'must be an object like {"X": "per_class"}')
        return cls(
            name=data["name"],
            inputs=tuple(
                Input(name, _space_input_kind(name, kind)) for name, kind in inputs.items()
            ),
            constants=tuple(_space_constant(value) for value in _space_list("constants", data)),
            operators=tuple(_space_list("operators", data)),
            root=_space_root_kind(data["root"]),
        )


def space_of(space: str | SearchSpace) -> SearchSpace:
    """The built-in space of a name, or the space itself.

    Raises:
        SpaceError: there is no built-in space of this name.
    """
    if isinstance(space, SearchSpace):
        return space
    if not isinstance(space, str) or space not in SPACES:
        raise SpaceError("name", space, f"unknown space; {_listed_names(SPACES)}")
    return SPACES[space]


def _listed_names(names: Any) -> str:
    return "known are " + ", ".join(names)


def _space_list(field: str, data: Mapping[str, Any]) -> list[Any] | tuple[Any, ...]:
    value = data[field]
    if not isinstance(value, list | tuple):
        raise SpaceError(field, value, "must be a list")
    return value


def _space_input_kind(name: object, kind: object) -> Kind:
    for allowed in (Kind.PER_ROW, Kind.PER_CLASS):
        if kind == allowed.value:
            return allowed
    raise SpaceError(f"inputs.{name}", kind, "must be per_row or per_class")


def _space_root_kind(kind: object) -> Kind:
    for allowed in (Kind.PER_ROW, Kind.PER_CLASS):
        if kind == allowed.value:
            return allowed
    raise SpaceError("root", kind, "must be per_row or per_class")


def _space_constant(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpaceError("constants", value, "must be a finite number")
    try:
        return float(value)
    except OverflowError:
        raise SpaceError("constants", value, "must be a finite number") from None


def _check_space_name(name: object) -> None:
    if not isinstance(name, str) or not _SPACE_NAME.fullmatch(name):
        raise SpaceError("name", name, "must be a name of letters, digits, _ and - (at most 64)")


def _check_space_inputs(inputs: tuple[Input, ...]) -> None:
    if not inputs:
        raise SpaceError("inputs", inputs, "at least one input is needed")
    seen: set[str] = set()
    for item in inputs:
        if not isinstance(item.name, str) or not _INPUT_NAME.fullmatch(item.name):
            raise SpaceError("inputs", item.name, "must be an identifier (at most 64 characters)")
        if item.name in OPERATORS:
            raise SpaceError("inputs", item.name, "is the name of an operator")
        if item.name in seen:
            raise SpaceError("inputs", item.name, "is named twice")
        if item.kind not in (Kind.PER_ROW, Kind.PER_CLASS):
            raise SpaceError(f"inputs.{item.name}", item.kind, "must be per_row or per_class")
        seen.add(item.name)


def _check_space_constants(constants: tuple[float, ...]) -> None:
    for value in constants:
        if isinstance(value, bool) or not isinstance(value, float) or not math.isfinite(value):
            raise SpaceError("constants", value, "must be a finite number")
        if constants.count(value) > 1:
            raise SpaceError("constants", value, "is given twice")


def _check_space_operators(operators: tuple[str, ...]) -> None:
    if not operators:
        raise SpaceError("operators", operators, "at least one operator is needed")
    for name in operators:
        if not isinstance(name, str) or name not in OPERATORS:
            raise SpaceError("operators", name, f"unknown operator; {_listed_names(OPERATORS)}")
        if operators.count(name) > 1:
            raise SpaceError("operators", name, "is named twice")


# CSE-AutoLoss (tools/search_space.py): its operator set, the multi-class one whole
_CSE = (
    *("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Exp", "Log", "Sqrt", "Softmax", "Softplus"),
    *("Sig", "Sgdf", "Salf", "Serf", "Tanh", "Relu", "Sin", "Cos", "Dot"),
)
_NOT_IN_BOX = ("Softmax", "Sgdf", "Salf", "Serf", "Dot")

# AutoLoss-Zero (CVPR 2022), reconstructed: its elementwise operators; see docs/autoloss_zero.md
_ZERO = ("Add", "Mul", "Neg", "Abs", "Inv", "SLog", "Exp", "Tanh", "Square", "SSqrt")

_BUILT_IN = (
    # CSE-AutoLoss: inputs and the constants 1, 2, 3.
    # X logits, Y one-hot label with the background's column, Z IoU of the row
    SearchSpace(
        name="multi_cls",
        inputs=tuple(Input(name, Kind.PER_CLASS) for name in ("X", "Y", "Z")),
        constants=(1.0, 2.0, 3.0),
        operators=_CSE,
        root=Kind.PER_ROW,
    ),
    # X logits, Q IoU at the positive's class and else 0, PY label, NY 1 - label
    SearchSpace(
        name="binary_cls",
        inputs=tuple(Input(name, Kind.PER_CLASS) for name in ("X", "Q", "PY", "NY")),
        constants=(1.0, 2.0, 3.0),
        operators=tuple(name for name in _CSE if name != "Dot"),
        root=Kind.PER_CLASS,
    ),
    # U union, I intersection, E enclosing box: areas in square pixels
    SearchSpace(
        name="box",
        inputs=tuple(Input(name, Kind.PER_ROW) for name in ("U", "I", "E")),
        constants=(1.0, 2.0, 3.0),
        operators=tuple(name for name in _CSE if name not in _NOT_IN_BOX),
        root=Kind.PER_ROW,
    ),
    # AutoLoss-Zero: prediction, target and the constant 1. The prediction that a loss gets is a
    # logit, so what makes a probability of it is an operator; Dot gives a loss per row.
    SearchSpace(
        name="autoloss_zero_multi_cls",
        inputs=tuple(Input(name, Kind.PER_CLASS) for name in ("X", "Y")),
        constants=(1.0,),
        operators=(*_ZERO, "MeanClasses", "Softmax", "Dot"),
        root=Kind.PER_ROW,
    ),
    SearchSpace(
        name="autoloss_zero_binary_cls",
        inputs=tuple(Input(name, Kind.PER_CLASS) for name in ("X", "PY")),
        constants=(1.0,),
        operators=(*_ZERO, "MeanClasses", "Sig"),
        root=Kind.PER_CLASS,
    ),
    SearchSpace(
        name="autoloss_zero_box",
        inputs=tuple(Input(name, Kind.PER_ROW) for name in ("U", "I", "E")),
        constants=(1.0,),
        operators=_ZERO,
        root=Kind.PER_ROW,
    ),
)

SPACES: Mapping[str, SearchSpace] = MappingProxyType({space.name: space for space in _BUILT_IN})
