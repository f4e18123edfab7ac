"""Loss definitions: what replaces a detector's losses, as plain JSON and as a frozen dataclass."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from losses.branches import Branch, ExpressionBranch, branch_from_json
from losses.errors import DefinitionError
from losses.json_checks import check_fields, factor_number
from losses.ranking_branch import RankingBranch
from primitives import Expression, canonical

BRANCHES = ("cls", "bbox")  # of the detector's own head; `LossDefinition.rpn` stands beside them
_OPTIONAL = ("iou_centerness", "rpn", "learning_rate_scale")


@dataclass(frozen=True)
class LossDefinition:
    """What replaces the losses of a detector.

    Attributes:
        name: for people; not part of the identity.
        cls: loss of the classification branch; None: the detector keeps its own.
        bbox: loss of the box branch; None: the detector keeps its own.
        iou_centerness: FCOS and ATSS: the centerness target is the IoU.
        rpn: two-stage detectors: a ranking loss of the region proposal network; None: it keeps its
            own losses.
        learning_rate_scale: factor on the optimiser's learning rate, in [1e-3, 1e3].

    Raises:
        DefinitionError: the parts do not go together.
    """

    name: str
    cls: Branch | None = None
    bbox: Branch | None = None
    iou_centerness: bool = False
    rpn: RankingBranch | None = None
    learning_rate_scale: float = 1.0

    def __post_init__(self) -> None:
        factor_number(self.learning_rate_scale, "learning_rate_scale")
        for place in BRANCHES:
            if isinstance(branch := getattr(self, place), ExpressionBranch):
                factor_number(branch.scale, f"{place}.scale")
        if isinstance(self.cls, ExpressionBranch) and self.cls.role == "box":
            raise DefinitionError("a box expression cannot be a classification loss", "cls.space")
        if isinstance(self.bbox, ExpressionBranch) and self.bbox.role != "box":
            raise DefinitionError(
                f"a {self.bbox.role} expression cannot be a box loss", "bbox.space"
            )
        if isinstance(self.bbox, RankingBranch):
            raise DefinitionError("a ranking loss is given as cls, or as rpn", "bbox.type")
        if self.rpn is not None and not isinstance(self.rpn, RankingBranch):
            raise DefinitionError(
                "only a ranking loss can replace the losses of a region proposal network",
                "rpn.type",
            )
        if isinstance(self.cls, RankingBranch):
            if self.cls.has_box_loss and self.bbox is not None:
                raise DefinitionError(
                    f"must be null: {self.cls.loss} is the loss of the boxes too", "bbox"
                )
            if self.iou_centerness:
                raise DefinitionError(
                    "does not go with a ranking loss, which drops the centerness of ATSS",
                    "iou_centerness",
                )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "LossDefinition":
        """The definition that ``to_json`` gave, or that a person wrote.

        Raises:
            DefinitionError: a field is missing, unknown, of the wrong type, or no expression.
        """
        check_fields(data, "", {"name"}, {*BRANCHES, *_OPTIONAL})
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
            rpn=branch_from_json(data.get("rpn"), "rpn"),  # type: ignore[arg-type]
            learning_rate_scale=factor_number(
                data.get("learning_rate_scale", 1.0), "learning_rate_scale"
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """The definition as plain JSON; `from_json` gives it back.

        ``rpn`` and ``learning_rate_scale`` are there only when they are set, so that the identity
        of every other definition is what it was before there were such fields.
        """
        data: dict[str, Any] = {
            "name": self.name,
            "cls": None if self.cls is None else self.cls.to_json(),
            "bbox": None if self.bbox is None else self.bbox.to_json(),
            "iou_centerness": self.iou_centerness,
        }
        if self.rpn is not None:
            data["rpn"] = self.rpn.to_json()
        if self.learning_rate_scale != 1.0:
            data["learning_rate_scale"] = self.learning_rate_scale
        return data

    def branch(self, name: str) -> Branch | None:
        """The branch ``cls``, ``bbox`` or ``rpn``."""
        places = (*BRANCHES, "rpn")
        if name not in places:
            raise DefinitionError(f"unknown branch {name!r}; there are {', '.join(places)}")
        return getattr(self, name)

    def with_branch(self, branch: str, value: Branch | None) -> "LossDefinition":
        """A copy with another loss for the branch ``cls``, ``bbox`` or ``rpn``."""
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
