"""Formulas, verdicts, spaces and the catalogue as the API takes and gives them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from search_server.service.formula_view import FormulaView
from search_server.service.models.base import Answer
from search_server.service.models.rows import FromRecord

EXPRESSION = "Mul(Add(Q,Sig(X)),Sub(Softplus(X),Mul(Q,X)))"
DEFINITION: dict[str, Any] = {
    "name": "mine",
    "cls": {"type": "expression", "space": "binary_cls", "expression": EXPRESSION},
    "bbox": None,
}
SpaceText = str | dict[str, Any]


class Asked(BaseModel):
    """A body that is sent; a field that it does not have is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class VerifyAsked(Asked):
    """An expression that is to be judged."""

    expression: str = Field(max_length=10_000, examples=["Sub(1,Div(I,U))"])
    space: SpaceText = Field(
        description="name of a space, or a space of your own as JSON", examples=["box"]
    )


class FormulaAsked(Asked):
    """A loss definition, or an expression with its space; one of the two."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"expression": EXPRESSION, "space": "binary_cls"},
                {"definition": DEFINITION},
            ]
        }
    )

    definition: dict[str, Any] | None = None
    expression: str | None = Field(default=None, max_length=10_000)
    space: SpaceText | None = None


class Tree(FromRecord):
    """A node of an expression: an operator with its arguments, an input, or a number."""

    operator: str | None = Field(examples=["Mul"])
    arguments: list[Tree]
    input: str | None = Field(examples=["X"])
    value: float | None


class BranchFormula(FromRecord):
    """What one branch computes."""

    kind: Literal["expression", "ranking", "stock", "own"]
    text: str = Field(description="for people, in one line")
    expression: str | None = Field(description="in prefix form", examples=[EXPRESSION])
    space: str | None = Field(examples=["binary_cls"])
    size: int = Field(ge=0)
    latex: list[str] = Field(description="a line each; empty for a loss of mmdet")
    mathml: list[str] = Field(description="the same lines as `math` elements")
    tree: Tree | None
    words: dict[str, str] = Field(description="input -> what it means", examples=[{"X": "logit"}])
    lines: list[str] = Field(description="of a ranking loss, as plain text")
    functions: dict[str, list[tuple[float, float]]] = Field(
        description="of a parameterized AP loss: function -> points, the ends included"
    )


class Formula(FromRecord):
    """What a loss computes, by branch."""

    name: str
    learning_rate_scale: float
    iou_centerness: bool
    branches: dict[str, BranchFormula]


class VerdictAnswer(FromRecord):
    """Whether an expression is a loss, with the numbers that say so."""

    expression: str
    space: str
    family: Literal["softmax", "sigmoid", "box"]
    accepted: bool
    condition: str | None = Field(description="what it lacks", examples=["wrong direction"])
    message: str
    measures: dict[str, float | None] = Field(description="null: not finite")


class SpaceItem(Answer):
    """A search space."""

    name: str = Field(examples=["box"])
    inputs: dict[str, Literal["per_row", "per_class"]]
    constants: list[float]
    operators: list[str]
    root: Literal["per_row", "per_class"]
    words: dict[str, str] = Field(description="input -> what it means")


class SpaceList(Answer):
    """The built-in search spaces."""

    spaces: list[SpaceItem]


class NamedLoss(Answer):
    """A loss of the catalogue."""

    name: str = Field(examples=["cse-autoloss-a"])
    branches: dict[str, str] = Field(description="branch -> its loss in a line")
    definition: dict[str, Any]


class LossList(Answer):
    """The catalogue of named losses."""

    losses: list[NamedLoss]


def formula_answer(view: FormulaView) -> Formula:
    """The formulas of a loss."""
    return Formula.model_validate(view)
