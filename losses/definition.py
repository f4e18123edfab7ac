"""Loss definitions: what replaces a detector's losses, as plain JSON and as a frozen dataclass."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from losses.branches import Branch, ExpressionBranch, branch_from_json, check_fields
from losses.errors import DefinitionError
from primitives import Expression, canonical

BRANCHES = ("cls", "bbox")


@dataclass(frozen=True)
class LossDefinition:
    """What replaces the losses of a detector.

    Attributes:
        name: for people; not part of the identity.
        cls: loss of the classification branch; None: the detector keeps its own.
        bbox: loss of the box branch; None: the detector keeps its own.
        iou_centerness: FCOS and ATSS: the centerness target is the IoU.
    """

    name: str
    cls: Branch | None = None
    bbox: Branch | None = None
    iou_centerness: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.cls, ExpressionBranch) and self.cls.role == "box":
            raise DefinitionError("a box expression cannot be a classification loss", "cls.space")
        if isinstance(self.bbox, ExpressionBranch) and self.bbox.role != "box":
            raise DefinitionError(
                f"a {self.bbox.role} expression cannot be a box loss", "bbox.space"
            )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "LossDefinition":
        """The definition that ``to_json`` gave, or that a person wrote.

        Raises:
            DefinitionError: a field is missing, unknown, of the wrong type, or no expression.
        """
        check_fields(data, "", {"name"}, {"cls", "bbox", "iou_centerness"})
        name, iou_centerness = data["name"], data.get("iou_centerness", False)
        if not isinstance(name, str) or not name.strip():
            raise DefinitionError(f"must be a text that is not empty, got {name!r}", "name")
        if not isinstance(iou_centerness, bool):
            raise DefinitionError(
                f"must be true or false, got {iou_centerness!r}", "iou_centerness"
            )
        return cls(
            name=name,
            cls=branch_from_json(data.get("cls"), "cls"),
            bbox=branch_from_json(data.get("bbox"), "bbox"),
            iou_centerness=iou_centerness,
        )

    def to_json(self) -> dict[str, Any]:
        """The definition as plain JSON; `from_json` gives it back."""
        return {
            "name": self.name,
            "cls": None if self.cls is None else self.cls.to_json(),
            "bbox": None if self.bbox is None else self.bbox.to_json(),
            "iou_centerness": self.iou_centerness,
        }

    def branch(self, name: str) -> Branch | None:
        """The branch ``cls`` or ``bbox``."""
        if name not in BRANCHES:
            raise DefinitionError(f"unknown branch {name!r}; there are {', '.join(BRANCHES)}")
        return getattr(self, name)

    def with_branch(self, branch: str, value: Branch | None) -> "LossDefinition":
        """A copy with another loss for the branch ``cls`` or ``bbox``."""
        self.branch(branch)
        return replace(self, **{branch: value})  # type: ignore[arg-type]

    @property
    def expressions(self) -> dict[str, Expression]:
        """The expression of each branch that is one."""
        branches = ((name, self.branch(name)) for name in BRANCHES)
        return {
            name: branch.expression
            for name, branch in branches
            if isinstance(branch, ExpressionBranch)
        }

    @property
    def key(self) -> str:
        """Identity: equal for definitions that are the same loss up to canonical form.

        The name is no part of it.
        """
        data = self.to_json()
        del data["name"]
        for name, expression in self.expressions.items():
            data[name]["expression"] = str(canonical(expression))
        return json.dumps(data, sort_keys=True, separators=(",", ":"))
