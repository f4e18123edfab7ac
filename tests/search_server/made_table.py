"""Small tables with planted answers: plans and trials made by hand, nothing trained."""

from collections.abc import Mapping, Sequence
from typing import Any

from search_server.table.contents import Table, table_of
from search_server.table.log import TableKey, TableTrial
from search_server.table.plan import DrawCount, PlannedLoss, TablePlan

GROUP = "atss"
RUNGS, STEPS = (50, 100), 200
SPEC: dict[str, Any] = {
    "name": "made",
    "steps": STEPS,
    "batch_size": 8,
    "rungs": list(RUNGS),
    "seeds": [0, 1],
    "simulate": {"steps": 80, "images_per_class": 1, "batch_size": 4, "seed": 0},
    "groups": {GROUP: {}},
}
CLS = (
    "Add(Mul(PY,Softplus(Neg(X))),Mul(NY,Softplus(X)))",
    "Abs(Sub(PY,Sig(X)))",
    "Sub(Softplus(X),Mul(Q,X))",
    "Mul(Sub(PY,Sig(X)),Sub(PY,Sig(X)))",
)
BOX = ("Sub(1,Div(I,U))", "Neg(Log(Div(I,U)))", "Sub(1,Div(I,E))")


def loss(name: str, **more: Any) -> PlannedLoss:
    """A planned loss of stock losses; its id is its name."""
    given = {"kind": "random", "way": "random", "accepted": True, **more}
    definition = {"name": name, "cls": None, "bbox": None, "iou_centerness": False}
    return PlannedLoss(id=name, group=GROUP, name=name, definition=definition, **given)


def pair(i: int, j: int) -> PlannedLoss:
    """A pair of the sub-space `CLS` x `BOX`."""
    definition = {
        "name": f"{i} + {j}",
        "cls": {"type": "expression", "space": "binary_cls", "expression": CLS[i], "alpha": None},
        "bbox": {"type": "expression", "space": "box", "expression": BOX[j]},
        "iou_centerness": False,
    }
    return PlannedLoss(
        f"pair-{i}-{j}", GROUP, "subspace", "random", f"{i} + {j}", definition, True, pair=(i, j)
    )


def trial(
    loss: str,
    seed: int,
    ap: float | None,
    rungs: Sequence[float] | None = None,
    stage: str = "proxy",
    last_step: int = STEPS,
) -> TableTrial:
    """An ended trial; an AP of None is a divergence. Without rungs they are the AP itself."""
    reached = dict(zip(RUNGS, rungs or [ap or 0.0] * len(RUNGS), strict=False))
    return TableTrial(
        loss=loss,
        stage=stage,
        seed=seed,
        status="diverged" if ap is None else "done",
        reason="" if ap is not None else "a gradient is not finite",
        ap=ap,
        rungs={} if stage == "simulate" or ap is None else reached,
        metrics={"ap50": 0.5} if ap is not None else {},
        last_step=last_step,
        seconds={"total": 12.5, "start": 2.5},
        versions={"torch": "2"},
        weights="abc",
    )


def score(loss: str, ap: float | None) -> TableTrial:
    """An ended simulation."""
    return trial(loss, 0, ap, stage="simulate", last_step=80)


def plan_of(
    losses: Sequence[PlannedLoss],
    draws: Sequence[DrawCount] = (),
    pools: Mapping[str, Any] | None = None,
) -> TablePlan:
    """A plan; the first loss is the baseline."""
    return TablePlan(SPEC, 0, tuple(losses), tuple(draws), pools or {}, {GROUP: losses[0].id})


def by_key(trials: Sequence[TableTrial]) -> dict[TableKey, list[TableTrial]]:
    """Trials as a log gives them."""
    found: dict[TableKey, list[TableTrial]] = {}
    for each in trials:
        found.setdefault(each.key, []).append(each)
    return found


def made(plan: TablePlan, trials: Sequence[TableTrial]) -> Table:
    """The table of both."""
    return table_of(plan, by_key(trials))


def sub_space(value: Any = None) -> tuple[TablePlan, list[TableTrial]]:
    """A closed sub-space; `value(i, j)` is the AP of a pair, the same for both seeds."""
    losses = [pair(i, j) for i in range(len(CLS)) for j in range(len(BOX))]
    plan = plan_of(losses, pools={GROUP: {"cls": CLS, "bbox": BOX}})
    trials = []
    for each in losses:
        assert each.pair is not None
        ap = value(*each.pair) if value else 0.3 + 0.01 * each.pair[0] + 0.001 * each.pair[1]
        trials += [score(each.id, ap), trial(each.id, 0, ap), trial(each.id, 1, ap)]
    return plan, trials
