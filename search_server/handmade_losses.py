"""Hand-made losses with numbers of their own: what a tuning chooses from, and what evolution starts
from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from losses import CATALOG, ExpressionBranch, LossDefinition, RankingBranch, StockBranch
from losses.branches import Branch
from losses.families import Family
from primitives import SearchSpace, parse

Numbers = Mapping[str, float]


@dataclass(frozen=True)
class Number:
    """A number of a loss.

    Attributes:
        low, high: the range that it is tuned in.
        published: its value in the catalogue, or mmdet's default.
        log: whether it is drawn in equal ratios instead of equal steps.
    """

    name: str
    low: float
    high: float
    published: float
    log: bool = False


@dataclass(frozen=True)
class HandmadeLoss:
    """A loss that people made, with its numbers.

    Attributes:
        role: multi_cls or binary_cls for a classification loss of such heads, box for one on
            decoded boxes, deltas for one on box deltas, ranking for one of the scores of a batch.
        make: the branch that the numbers stand for, without a weight.
        catalog: the loss of the catalogue whose branch it is at the published numbers; or None.
    """

    name: str
    role: str
    numbers: tuple[Number, ...]
    make: Callable[[Numbers], Branch]
    catalog: str | None = None

    @property
    def published(self) -> dict[str, float]:
        """The numbers of the catalogue, by name."""
        return {number.name: number.published for number in self.numbers}

    @property
    def is_whole(self) -> bool:
        """Whether it is the loss of the boxes too."""
        return isinstance(made := self.make(self.published), RankingBranch) and made.has_box_loss

    def branch(self, numbers: Numbers) -> Branch:
        """The branch that the numbers stand for, without a weight."""
        if self.catalog is not None and dict(numbers) == self.published:
            found = CATALOG[self.catalog].branch("bbox" if self.role in _BOX_ROLES else "cls")
            assert found is not None
            return found
        return self.make(numbers)

    def fits(self, family: Family, branch: str) -> bool:
        """Whether it can be the loss of a branch, cls or bbox, of a family's heads."""
        if branch == "bbox":
            return self.role == "box" or (self.role == "deltas" and not family.always_decodes)
        if self.role == "ranking":
            return family.ranks and not family.two_stage
        return self.role == family.cls_space


_BOX_ROLES = ("box", "deltas")


def focal_text(gamma: float) -> str:
    """Sigmoid focal loss: (1 - p_t)^gamma times the cross-entropy, p_t the label's probability.

    log(1 - p_t) is -softplus(x) for a positive and -softplus(-x) for a negative, so the power is
    exact for any logit.
    """
    return (
        f"Add(Mul(PY,Mul(Exp(Neg(Mul({gamma!r},Softplus(X)))),Softplus(Neg(X)))),"
        f"Mul(NY,Mul(Exp(Neg(Mul({gamma!r},Softplus(Neg(X))))),Softplus(X))))"
    )


def quality_focal_text(beta: float) -> str:
    """Quality focal loss: |q - p|^beta times the cross-entropy with the IoU q as label."""
    return f"Mul(Exp(Mul({beta!r},Log(Abs(Sub(Q,Sig(X)))))),Sub(Softplus(X),Mul(Q,X)))"


def varifocal_text(alpha: float, gamma: float) -> str:
    """Varifocal loss: cross-entropy with the IoU as label, positives weighted by it, negatives by
    alpha p^gamma."""
    power = f"Exp(Neg(Mul({gamma!r},Softplus(Neg(X)))))"
    return f"Mul(Add(Q,Mul({alpha!r},Mul(NY,{power}))),Sub(Softplus(X),Mul(Q,X)))"


def softmax_focal_text(gamma: float) -> str:
    """Focal loss of a softmax head: (1 - p_t)^gamma times the cross-entropy."""
    return f"Neg(Dot(Mul(Y,Exp(Mul({gamma!r},Log(Sub(1,Softmax(X)))))),Log(Softmax(X))))"


def smoothed_text(smoothing: float) -> str:
    """Softmax cross-entropy; every class gets `smoothing` more label, whatever the label is."""
    return f"Neg(Dot(Add(Y,{smoothing!r}),Log(Softmax(X))))"


def expression_branch(text: str, space: str | SearchSpace) -> ExpressionBranch:
    """The branch of an expression that is the whole loss: without alpha."""
    return ExpressionBranch(parse(text, space))


def _focal(gamma: float, alpha: float) -> Branch:
    """mmdet's own loss; below gamma 1 its expression, because there mmdet's gradient is NaN for a
    logit whose probability is rounded to 1."""
    if gamma >= 1:
        return _stock("FocalLoss", gamma=gamma, alpha=alpha)
    return replace(expression_branch(focal_text(gamma), "binary_cls"), alpha=alpha)


def _stock(type_: str, **settings: float) -> StockBranch:
    return StockBranch(json.dumps({"type": type_, **settings}, sort_keys=True))


def _box(name: str, type_: str, catalog: str | None = None) -> HandmadeLoss:
    return HandmadeLoss(name, "box", (), lambda n: _stock(type_), catalog)


_GAMMA = Number("gamma", 0.0, 4.0, 2.0)

HANDMADE_LOSSES: Mapping[str, HandmadeLoss] = {
    loss.name: loss
    for loss in (
        HandmadeLoss(
            "focal",
            "binary_cls",
            (_GAMMA, Number("alpha", 0.05, 0.95, 0.25)),
            lambda n: _focal(n["gamma"], n["alpha"]),
            "focal-giou",
        ),
        HandmadeLoss(
            "qfl",
            "binary_cls",
            (Number("beta", 1.0, 4.0, 2.0),),  # below 1 its gradient has a pole at p = q
            lambda n: expression_branch(quality_focal_text(n["beta"]), "binary_cls"),
            "qfl-giou",
        ),
        HandmadeLoss(
            "vfl",
            "binary_cls",
            (Number("alpha", 0.05, 2.0, 0.75, log=True), _GAMMA),
            lambda n: expression_branch(varifocal_text(n["alpha"], n["gamma"]), "binary_cls"),
            "vfl-giou",
        ),
        HandmadeLoss("bce", "binary_cls", (), lambda n: _stock("CrossEntropyLoss")),
        HandmadeLoss(
            "ce",
            "multi_cls",
            (Number("smoothing", 0.0, 0.02, 0.0),),
            lambda n: expression_branch(smoothed_text(n["smoothing"]), "multi_cls"),
            "ce-giou",
        ),
        HandmadeLoss(
            "softmax_focal",
            "multi_cls",
            (_GAMMA,),
            lambda n: expression_branch(softmax_focal_text(n["gamma"]), "multi_cls"),
        ),
        HandmadeLoss(
            "rank_sort",
            "ranking",
            (Number("delta", 0.1, 2.0, 0.5, log=True),),
            lambda n: RankingBranch("rank_sort", delta=n["delta"]),
            "rank-sort",
        ),
        HandmadeLoss(
            "alrp",
            "ranking",
            (Number("delta", 0.2, 4.0, 1.0, log=True),),
            lambda n: RankingBranch("alrp", delta=n["delta"]),
            "alrp",
        ),
        HandmadeLoss(
            "ap",
            "ranking",
            (Number("delta", 0.2, 4.0, 1.0, log=True),),
            lambda n: RankingBranch("ap", delta=n["delta"]),
            "ap-l1",
        ),
        _box("giou", "GIoULoss", "focal-giou"),
        _box("iou", "IoULoss", "focal-iou"),
        _box("diou", "DIoULoss", "focal-diou"),
        _box("ciou", "CIoULoss", "focal-ciou"),
        _box("eiou", "EIoULoss"),
        _box("siou", "SIoULoss"),
        HandmadeLoss("l1", "deltas", (), lambda n: _stock("L1Loss"), "focal-l1"),
        HandmadeLoss(
            "smooth_l1",
            "deltas",
            (Number("beta", 0.02, 2.0, 1.0, log=True),),
            lambda n: _stock("SmoothL1Loss", beta=n["beta"]),
            "focal-smooth-l1",
        ),
    )
}

# what is tuned where a spec does not say: the losses that detectors are trained with as published
_USUAL = {
    "cls": ("ce", "softmax_focal", "focal", "qfl", "vfl", "rank_sort"),
    "bbox": ("l1", "smooth_l1", "giou", "iou", "diou", "ciou"),
}


def usual_losses(family: Family, branch: str) -> tuple[str, ...]:
    """The names of the losses that are tuned by default, the most usual one first."""
    return tuple(name for name in _USUAL[branch] if HANDMADE_LOSSES[name].fits(family, branch))


def as_expressions(definition: LossDefinition, spaces: Mapping[str, SearchSpace]) -> LossDefinition:
    """A definition whose stock losses in the searched branches became expressions, where they have
    such a form; weights, alpha and all else are kept. So a tuned loss can be varied.

    Focal and cross-entropy losses, GIoU and IoU have one: the same loss up to the small constants
    that mmdet adds to areas. The others stay.
    """
    for branch, space in spaces.items():
        given = definition.branch(branch)
        if isinstance(given, StockBranch) and (found := _expression_form(given, space)):
            found = replace(found, loss_weight=given.loss_weight)
            definition = definition.with_branch(branch, found)
    return definition


def _expression_form(branch: StockBranch, space: SearchSpace) -> ExpressionBranch | None:
    """The expression in its own built-in space; None where there is none, or where it has settings
    that the expression would not keep."""
    config = branch.config
    name = config.pop("type").rpartition(".")[2]
    config.pop("use_sigmoid", None)
    if name == "FocalLoss" and space.name == "binary_cls" and config.keys() <= {"gamma", "alpha"}:
        found = expression_branch(focal_text(float(config.get("gamma", 2.0))), space)
        return replace(found, alpha=float(config.get("alpha", 0.25)))
    texts = {
        ("CrossEntropyLoss", "binary_cls"): "Sub(Softplus(X),Mul(PY,X))",
        ("CrossEntropyLoss", "multi_cls"): "Neg(Dot(Y,Log(Softmax(X))))",
        ("GIoULoss", "box"): "Add(Sub(1,Div(I,U)),Div(Sub(E,U),E))",
        ("IoULoss", "box"): "Neg(Log(Div(I,U)))",
    }
    text = texts.get((name, space.name))
    return None if text is None or config else expression_branch(text, space)
