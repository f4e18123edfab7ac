"""One branch of a loss definition: an expression, one of mmdet's losses or a ranking loss."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from losses.errors import DefinitionError
from losses.json_checks import check_fields, factor_number, optional_number, optional_weight
from losses.ranking_branch import RankingBranch
from primitives import SPACES, Expression, Kind, PrimitivesError, SearchSpace, parse

DEFAULT_ALPHA = 0.25

_REGISTERED = re.compile(r"(mmdet\.)?[A-Za-z][A-Za-z0-9]*")

_ROLES = {
    "multi_cls": (frozenset("XYZ"), Kind.PER_ROW),
    "binary_cls": (frozenset(("X", "Q", "PY", "NY")), Kind.PER_CLASS),
    "box": (frozenset("UIE"), Kind.PER_ROW),
}


def space_role(space: SearchSpace) -> str:
    """Which built-in space a user's own space stands in for: multi_cls, binary_cls or box.

    It is the one whose inputs include the space's and whose expressions have the same kind.

    Raises:
        DefinitionError: no loss provides these inputs.
    """
    names = {item.name for item in space.inputs}
    for role, (inputs, root) in _ROLES.items():
        if names <= inputs and space.root is root:
            kinds = {item.name: item.kind for item in SPACES[role].inputs}
            if all(item.kind is kinds[item.name] for item in space.inputs):
                return role
    raise DefinitionError(
        f"space {space.name!r} has inputs {', '.join(sorted(names))} and a"
        f" {space.root.value} root; a loss provides X, Y, Z (per row), X, Q, PY, NY (per class)"
        " or U, I, E (per row)"
    )


@dataclass(frozen=True)
class ExpressionBranch:
    """A branch whose loss is an expression.

    Attributes:
        expression: the parsed expression, with its space.
        loss_weight: factor on the loss; None: the right default of the head.
        alpha: sigmoid form only: weight of elements with label 1, others get ``1 - alpha``;
            None: no weighting.
        scale: factor on the loss beside ``loss_weight``, in [1e-3, 1e3]: what calibration found.
            It is kept apart, so that the weight stays what a person wrote.
    """

    expression: Expression
    loss_weight: float | None = None
    alpha: float | None = None
    scale: float = 1.0

    @property
    def role(self) -> str:
        """``multi_cls``, ``binary_cls`` or ``box``."""
        return space_role(self.expression.space)

    def to_json(self) -> dict[str, Any]:
        """The branch as JSON; ``scale`` is there only when it is not 1."""
        data: dict[str, Any] = {
            "type": "expression",
            "space": space_json(self.expression.space),
            "expression": str(self.expression),
            "loss_weight": self.loss_weight,
        }
        if self.role == "binary_cls":
            data["alpha"] = self.alpha
        return data if self.scale == 1.0 else {**data, "scale": self.scale}


@dataclass(frozen=True)
class StockBranch:
    """A branch whose loss is one of mmdet's.

    Attributes:
        loss: canonical JSON text of the mmdet loss config, without ``loss_weight``.
        loss_weight: factor on the loss; None: the right default of the head.
    """

    loss: str
    loss_weight: float | None = None

    @property
    def config(self) -> dict[str, Any]:
        """The mmdet loss config, without ``loss_weight``."""
        return json.loads(self.loss)

    @property
    def type(self) -> str:
        """Registered name of the loss."""
        return self.config["type"]

    def to_json(self) -> dict[str, Any]:
        """The branch as JSON."""
        return {"type": "stock", "loss": self.config, "loss_weight": self.loss_weight}


Branch = ExpressionBranch | StockBranch | RankingBranch


def space_json(space: SearchSpace) -> str | dict[str, Any]:
    """A space's name if it is the one that the loss of its role takes by itself, else its JSON
    form: a built-in space of another kind is spelt out, so that a config says all it needs."""
    built_in = space.name in _ROLES and SPACES[space.name] == space
    return space.name if built_in else space.to_json()


def branch_from_json(data: Any, where: str) -> Branch | None:
    """The branch that ``to_json`` gave, or that a person wrote; None for null.

    Args:
        data: plain JSON.
        where: name of the branch, ``cls``, ``bbox`` or ``rpn``; the start of the field in errors.

    Raises:
        DefinitionError: a field is missing, unknown, of the wrong type, or no expression.
    """
    if data is None:
        return None
    if not isinstance(data, Mapping):
        raise DefinitionError(f"must be an object or null, got {data!r}", where)
    kind = data.get("type")
    if kind == "expression":
        return _expression_branch(data, where)
    if kind == "stock":
        return _stock_branch(data, where)
    if kind == "ranking":
        return RankingBranch.from_json(data, where)
    raise DefinitionError(f"must be expression, stock or ranking, got {kind!r}", f"{where}.type")


def _expression_branch(data: Mapping[str, Any], where: str) -> ExpressionBranch:
    check_fields(data, where, {"type", "space", "expression"}, {"loss_weight", "alpha", "scale"})
    given, text = data["space"], data["expression"]
    try:
        if isinstance(given, Mapping):
            space = SearchSpace.from_json(given)
        elif isinstance(given, str) and given in SPACES:
            space = SPACES[given]
        else:
            raise DefinitionError(
                f"{given!r} is none of {', '.join(SPACES)}, nor a space object", f"{where}.space"
            )
        role = space_role(space)
    except PrimitivesError as error:
        raise DefinitionError(str(error), f"{where}.space") from error
    if not isinstance(text, str):
        raise DefinitionError(f"must be a text, got {text!r}", f"{where}.expression")
    try:
        expression = parse(text, space)
    except PrimitivesError as error:
        raise DefinitionError(str(error), f"{where}.expression") from error
    if (role == "box") != (where == "bbox"):
        fitting = "box" if where == "bbox" else "multi_cls or binary_cls"
        raise DefinitionError(f"is {role}; this branch takes {fitting}", f"{where}.space")
    if "alpha" in data and role != "binary_cls":
        raise DefinitionError("only binary_cls expressions have alpha", f"{where}.alpha")
    alpha = None
    if role == "binary_cls":
        alpha = optional_number(data.get("alpha", DEFAULT_ALPHA), f"{where}.alpha")
        if alpha is not None and not 0 <= alpha <= 1:
            raise DefinitionError(f"must be in [0, 1] or null, got {alpha}", f"{where}.alpha")
    weight = optional_weight(data.get("loss_weight"), f"{where}.loss_weight")
    scale = factor_number(data.get("scale", 1.0), f"{where}.scale")
    return ExpressionBranch(expression, weight, alpha, scale)


def _stock_branch(data: Mapping[str, Any], where: str) -> StockBranch:
    check_fields(data, where, {"type", "loss"}, {"loss_weight"})
    loss = data["loss"]
    if not isinstance(loss, Mapping) or not isinstance(loss.get("type"), str):
        raise DefinitionError(
            "must be an mmdet loss config: an object with a type", f"{where}.loss"
        )
    if _REGISTERED.fullmatch(loss["type"]) is None:
        # mmengine would import whatever module a longer path names
        raise DefinitionError(
            f"must be the name of a loss of mmdet, such as FocalLoss, got {loss['type']!r:.80}",
            f"{where}.loss.type",
        )
    for name in loss:
        if str(name).startswith("_"):  # such as _scope_, which names a module, too
            raise DefinitionError("is no setting of a loss", f"{where}.loss.{name}")
    if "loss_weight" in loss:
        raise DefinitionError("belongs beside loss, not in it", f"{where}.loss.loss_weight")
    try:
        text = json.dumps(loss, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"is not plain JSON: {error}", f"{where}.loss") from error
    return StockBranch(text, optional_weight(data.get("loss_weight"), f"{where}.loss_weight"))
