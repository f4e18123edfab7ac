"""A branch of a loss definition that ranks all scores of a batch: AP, aLRP, PAP, Rank & Sort."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from losses.errors import DefinitionError
from losses.json_checks import (
    check_fields,
    one_of,
    optional_weight,
    positive_integer,
    positive_number,
    true_or_false,
)
from losses.ranked_batch import BOX_OVERLAPS
from losses.ranking.functions import PapFunctions

# each loss, its settings and what a setting is that is not given
RANKING_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "ap": {"delta": 1.0},
    "alrp": {
        "delta": 1.0,
        "box_loss": "GIoULoss",
        "box_weight": None,
        "balance_start": 50.0,
        "balance_every": 3665,
    },
    "pap": {
        "functions": None,
        "overlap": "giou",
        "num_topk": 100_000,
        "box_gradient_scale": 1.0,
        "all_processes": False,
    },
    "rank_sort": {"delta": 0.5, "box_loss": "GIoULoss", "box_weight": None},
}
RANKING_LOSSES = tuple(RANKING_DEFAULTS)
OVERLAPS = BOX_OVERLAPS
RANKING_BOX_LOSSES = ("GIoULoss", "IoULoss")

# registered name of the loss module of each loss
_MODULES = {
    "ap": "APRankingLoss",
    "alrp": "ALRPRankingLoss",
    "pap": "PAPRankingLoss",
    "rank_sort": "RankSortRankingLoss",
}


def _functions(value: Any, where: str) -> PapFunctions:
    if isinstance(value, PapFunctions):
        return value
    owner = where.rpartition(".")[0]
    try:
        return PapFunctions.from_json(value)
    except DefinitionError as error:
        message = str(error).removeprefix(f"{error.field}: ")
        field = error.field or "functions"
        raise DefinitionError(message, f"{owner}.{field}" if owner else field) from error


_CHECKS: Mapping[str, Callable[[Any, str], Any]] = {
    "delta": positive_number,
    "box_loss": lambda value, where: one_of(value, RANKING_BOX_LOSSES, where),
    "box_weight": optional_weight,
    "balance_start": positive_number,
    "balance_every": positive_integer,
    "functions": _functions,
    "overlap": lambda value, where: one_of(value, OVERLAPS, where),
    "num_topk": positive_integer,
    "box_gradient_scale": positive_number,
    "all_processes": true_or_false,
}


@dataclass(frozen=True)
class RankingBranch:
    """A loss that ranks the scores of all anchors and classes of a batch at once.

    ``ap`` ranks scores only; the others are losses of the scores and of the boxes. A setting that
    the loss does not have is None; one that it has, and that is not given, gets its default.

    Attributes:
        loss: ap, alrp, pap or rank_sort.
        loss_weight: factor on the loss, or on its classification part where it has two; None: 1.
        delta: ap, alrp, rank_sort: half the width of the smoothed step, in logits; above 0.
        box_loss: alrp, rank_sort: mmdet's loss on decoded boxes.
        box_weight: alrp, rank_sort: factor on the box part; None: 1.
        balance_start: alrp: the weight of the box part before the first balancing.
        balance_every: alrp: number of steps between balancings.
        functions: pap: its five functions.
        overlap: pap: what tells how good a box is, giou, iou or l1, each in [0, 1].
        num_topk: pap: number of logits that are ranked.
        box_gradient_scale: pap: factor on the gradient that reaches the box branch alone.
        all_processes: pap: rank the scores of all processes together instead of each by itself.

    Raises:
        DefinitionError: a setting is missing, out of range, or one of another loss.
    """

    loss: str
    loss_weight: float | None = None
    delta: float | None = None
    box_loss: str | None = None
    box_weight: float | None = None
    balance_start: float | None = None
    balance_every: int | None = None
    functions: PapFunctions | None = None
    overlap: str | None = None
    num_topk: int | None = None
    box_gradient_scale: float | None = None
    all_processes: bool | None = None

    def __post_init__(self) -> None:
        own = RANKING_DEFAULTS[one_of(self.loss, RANKING_LOSSES, "loss")]
        object.__setattr__(self, "loss_weight", optional_weight(self.loss_weight, "loss_weight"))
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            if name in own:
                value = own[name] if value is None else value
                object.__setattr__(self, name, check(value, name))
            elif value is not None:
                raise DefinitionError(f"{self.loss} has none; it has {', '.join(own)}", name)

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str = "cls") -> "RankingBranch":
        """The branch that ``to_json`` gave, or that a person wrote.

        Args:
            data: plain JSON.
            where: name of the branch, the start of the field in errors.

        Raises:
            DefinitionError: a field is missing, unknown, of the wrong type or out of range.
        """
        given_fields = set(data) if isinstance(data, Mapping) else set()
        check_fields(data, where, {"type", "loss"}, given_fields)
        loss = one_of(data["loss"], RANKING_LOSSES, f"{where}.loss")
        settings = RANKING_DEFAULTS[loss]
        required = {name for name in settings if name == "functions"}
        check_fields(
            data, where, {"type", "loss", *required}, {"loss_weight", *settings} - required
        )
        given = {name: data[name] for name in settings if name in data}
        for name, value in given.items():
            if value is None and settings[name] is not None:
                raise DefinitionError("must not be null", f"{where}.{name}")
        try:
            return cls(loss=loss, loss_weight=data.get("loss_weight"), **given)
        except DefinitionError as error:
            message = str(error).removeprefix(f"{error.field}: ")
            raise DefinitionError(message, f"{where}.{error.field}") from error

    @property
    def has_box_loss(self) -> bool:
        """Whether it is the loss of the boxes too: then there is no other one beside it."""
        return self.loss != "ap"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that this loss has, as plain JSON."""
        values = {name: getattr(self, name) for name in RANKING_DEFAULTS[self.loss]}
        if self.functions is not None:
            values["functions"] = self.functions.to_json()
        return values

    @property
    def config(self) -> dict[str, Any]:
        """Config of the loss module, for a ``RankingHead``; every weight is a number."""
        values = {"type": _MODULES[self.loss], **self.settings, "loss_weight": self.loss_weight}
        weights = ("loss_weight", "box_weight")
        return {
            name: 1.0 if value is None and name in weights else value
            for name, value in values.items()
        }

    def to_json(self) -> dict[str, Any]:
        """The branch as JSON."""
        return {
            "type": "ranking",
            "loss": self.loss,
            **self.settings,
            "loss_weight": self.loss_weight,
        }
