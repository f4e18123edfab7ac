"""What evolution can be told: who becomes a parent, numbers that are refined, starts, pools."""

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from losses import CATALOG, ExpressionBranch, LossDefinition
from primitives import SPACES, Expression, parse
from search_server.errors import SpecError
from search_server.handmade_losses import focal_text
from search_server.problem import problem_of
from search_server.searchers import (
    EvolutionSearcher,
    Observation,
    Problem,
    Proposal,
    generator,
)
from search_server.searchers.selection import eligible, ranked
from search_server.searchers.structure import distance, landed, structure
from search_server.spec import JobSpec, Mutation, Searcher, load_spec, parse_spec

SIGMOID = [
    "Softplus(Mul(X,Sub(NY,PY)))",
    "Sub(Softplus(X),Mul(Q,X))",
    "Mul(2,Sub(Softplus(X),Mul(Q,X)))",
    "Neg(Add(Mul(PY,Log(Sig(X))),Mul(NY,Log(Sig(Neg(X))))))",
]
BOX = ["Sub(1,Div(I,U))", "Neg(Log(Div(I,U)))", "Sub(2,Div(I,U))", "Sub(Div(E,U),Tanh(Div(I,U)))"]


def problem(**changes: Any) -> Problem:
    given: dict[str, Any] = {
        "spaces": {"cls": SPACES["binary_cls"], "bbox": SPACES["box"]},
        "template": LossDefinition("template"),
        "weights": {"cls": None, "bbox": 2.0},
        "alpha": 0.25,
        "total": 100,
    }
    return Problem(**{**given, **changes})


def definition(cls: str, bbox: str, alpha: float | None = 0.25, **more: Any) -> LossDefinition:
    return LossDefinition(
        "test",
        ExpressionBranch(parse(cls, "binary_cls"), more.pop("weight", None), alpha),
        ExpressionBranch(parse(bbox, "box"), 2.0),
        **more,
    )


def seen(
    index: int,
    fitness: float | None,
    score: float | None = None,
    loss: LossDefinition | None = None,
    rungs: dict[int, float] | None = None,
) -> Observation:
    loss = loss or definition(SIGMOID[index % 4], BOX[index % 4])
    return Observation(index, loss, loss.expressions, fitness, score, rungs or {})


def settings(**changes: Any) -> Searcher:
    return Searcher(**{"population": 4, "parents": 2, **changes})


def evolution(
    changes: dict[str, Any], told: list[Observation], given: Problem | None = None
) -> EvolutionSearcher:
    searcher = EvolutionSearcher(settings(**changes), given or problem())
    for observation in told:
        searcher.tell(observation)
    return searcher


def first(searcher: EvolutionSearcher, index: int) -> Proposal:
    return next(searcher.ask(index, generator(0, index)))


def order(told: list[Observation], **changes: Any) -> list[int]:
    return [each.index for each in ranked(told, settings(**changes))]


def test_stopped_candidates_rank_below_the_finished_and_above_the_merely_simulated() -> None:
    told = [
        seen(1, None, 0.9),
        seen(2, None, 0.1, rungs={50: 0.3}),
        seen(3, None, 0.1, rungs={50: 0.4}),
        seen(4, None, 0.1, rungs={50: 0.2, 100: 0.2}),
        seen(5, 0.05, rungs={50: 0.01, 100: 0.02}),
        seen(6, 0.1),
    ]
    assert order(told) == [6, 5, 4, 3, 2, 1]


def sized(index: int, fitness: float, size: int) -> Observation:
    """A candidate whose box expression has `size` nodes, an even number of them from 2 on."""
    text = "I"
    for _ in range((size - 1) // 2):
        text = f"Add(U,{text})"
    loss = LossDefinition("test", None, ExpressionBranch(parse(text, "box")))
    assert sum(each.size for each in loss.expressions.values()) == size
    return seen(index, fitness, loss=loss)


def test_within_the_tolerance_the_smaller_ranks_first() -> None:
    told = [sized(1, 0.400, 9), sized(2, 0.397, 5), sized(3, 0.394, 3), sized(4, 0.396, 7)]
    assert order(told) == [1, 2, 4, 3]
    assert order(told, tolerance=0.005) == [2, 4, 1, 3]
    assert order(told, tolerance=0.01) == [3, 2, 4, 1]


def test_the_front_of_fitness_and_size_comes_first() -> None:
    told = [
        sized(1, 0.5, 9),
        sized(2, 0.49, 11),  # worse and larger than 1
        sized(3, 0.4, 5),
        sized(4, 0.4, 7),  # as good as 3, but larger
        sized(5, 0.3, 5),  # as small as 3, but worse
        sized(6, 0.1, 1),
        sized(7, 0.4, 5),  # as 3
    ]
    assert order(told, objectives="fitness_and_size") == [1, 3, 7, 6, 2, 4, 5]
    assert order(told, objectives="fitness_and_size", tolerance=0.2) == [3, 7, 6, 4, 5, 1, 2]


def test_the_front_is_the_undominated_set_and_so_on() -> None:
    rng = np.random.default_rng(0)
    told = [
        sized(i, float(rng.integers(0, 8)) / 10, int(rng.integers(0, 8)) * 2 + 1) for i in range(60)
    ]
    point = {
        s.index: (s.fitness or 0.0, -sum(e.size for e in s.expressions.values())) for s in told
    }
    left, wanted = set(point), []
    while left:
        front = {
            a
            for a in left
            if not any(
                point[b] != point[a]
                and all(x >= y for x, y in zip(point[b], point[a], strict=True))
                for b in left
            )
        }
        wanted.append(front)
        left -= front
    found = order(told, objectives="fitness_and_size")
    for front in wanted:
        assert set(found[: len(front)]) == front
        found = found[len(front) :]


def test_ageing_forgets_the_oldest_however_good() -> None:
    told = [seen(i, 0.9 if i == 0 else 0.1 + i / 100) for i in range(7)]
    chosen = settings(selection="ageing")
    assert [s.index for s in eligible(ranked(told, chosen), chosen)] == [6, 5, 4, 3]
    told[6] = seen(6, None, 0.3)  # dropped by the simulation: it lives only where all others were
    assert [s.index for s in eligible(ranked(told, chosen), chosen)] == [5, 4, 3, 2]
    for tournament, allowed in ((4, {6}), (2, {4, 5, 6})):
        changes = {"selection": "ageing", "tournament": tournament, "random": 0, "crossover": 0}
        searcher = evolution(changes, [seen(i, 0.1 + i / 100) for i in range(7)])
        parents = {first(searcher, index).parents for index in range(7, 60)}
        assert parents == {(index,) for index in allowed}


def test_ageing_crosses_two_different_parents() -> None:
    changes = {"selection": "ageing", "random": 0, "mutation": 0, "crossover": 1}
    searcher = evolution(changes, [seen(i, i / 10) for i in range(4)])
    pairs = {frozenset(first(searcher, index).parents) for index in range(5, 40)}
    assert {len(pair) for pair in pairs} == {2}


def test_a_niche_has_one_parent_however_good_its_others_are() -> None:
    lineage = [
        definition("Sub(Softplus(X),Mul(Q,X))", "Sub(1,Div(I,U))"),
        definition("Sub(Softplus(X),Mul(Q,X))", "Sub(2,Div(I,U))"),  # another constant
        definition("Sub(Softplus(X),Mul(Q,X))", "Sub(1,Div(I,E))"),  # one leaf
    ]
    other = definition(SIGMOID[3], BOX[3])
    losses = [*lineage, other]
    told = [seen(i, 0.9 - i / 10, loss=loss) for i, loss in enumerate(losses)]
    assert [s.index for s in eligible(ranked(told, settings()), settings())] == [0, 1]
    chosen = settings(selection="niches")
    assert [s.index for s in eligible(ranked(told, chosen), chosen)] == [0, 3]
    narrow = settings(selection="niches", radius=0.0, parents=4)
    assert [s.index for s in eligible(ranked(told, narrow), narrow)] == [0, 2, 3]


def test_distance_of_structure() -> None:
    one = structure({"bbox": parse("Sub(1,Div(I,U))", "box")})
    same = structure({"bbox": parse("Add(2,Neg(Div(I,U)))", "box")})
    near = structure({"bbox": parse("Sub(1,Div(I,E))", "box")})
    far = structure({"bbox": parse("Tanh(E)", "box")})
    assert distance(one, one) == distance(one, same) == 0.0
    assert distance(one, near) == distance(near, one) == pytest.approx(2 / 6)
    assert distance(one, far) == 1.0
    assert distance(structure({}), structure({})) == 0.0


def test_the_last_candidates_refine_the_numbers_of_the_best() -> None:
    good = definition(focal_text(1.3), "Sub(1,Div(I,U))", alpha=0.4, weight=0.7)
    told = [seen(0, 0.1), seen(1, 0.5, loss=good), seen(2, 0.2), seen(3, 0.3)]
    searcher = evolution({"refine": 0.25}, told, problem(inherit=True))
    assert "refined" not in {first(searcher, index).origin for index in range(5, 76)}
    made = [first(searcher, index) for index in range(76, 101)]
    assert {each.origin for each in made} == {"refined"}
    parents = Counter(each.parents for each in made)
    assert parents.most_common(1)[0][0] == (1,)
    assert len(parents) > 1
    for each in (each for each in made if each.parents == (1,)):
        assert set(each.draws) == {"cls", "bbox"}
        rng = np.random.default_rng(0)
        drawn = {branch: draw(rng) for branch, draw in each.draws.items()}
        loss = problem(inherit=True).filled(each.start, drawn, "x")
        assert loss.cls.alpha != 0.4  # type: ignore[union-attr]
        assert loss.cls.loss_weight != 0.7  # type: ignore[union-attr]
        assert loss.bbox.loss_weight != 2.0  # type: ignore[union-attr]
        assert loss.learning_rate_scale != 1.0
        assert drawn["cls"] != good.expressions["cls"]
        assert distance(structure(drawn), structure(good.expressions)) == 0.0


def test_refinement_moves_the_weight_of_a_stock_loss_too() -> None:
    ciou = LossDefinition.from_json({"name": "x", "bbox": TUNED["bbox"]}).bbox
    mixed = definition(SIGMOID[0], BOX[0], alpha=None).with_branch("bbox", ciou)
    told = [seen(0, 0.5, loss=mixed)]
    searcher = evolution({"refine": 0.9}, told, problem(inherit=True))
    start = first(searcher, 50).start
    assert start.bbox.config == {"type": "CIoULoss"}  # type: ignore[union-attr]
    assert start.bbox.loss_weight != 3.0  # type: ignore[union-attr]
    assert start.cls.loss_weight not in (None, 1.0)  # type: ignore[union-attr]
    assert start.cls.alpha is None  # type: ignore[union-attr]


def test_a_budget_of_steps_that_runs_out_brings_the_refinement_forward() -> None:
    told = [seen(0, 0.1), seen(1, 0.5), seen(2, 0.2)]
    for spent, expected in ((0.7, False), (0.8, True), (1.0, True)):
        last = replace(seen(3, 0.3), spent=spent)
        searcher = evolution({"refine": 0.25}, [*told, last], problem(inherit=True, total=1000))
        origins = {first(searcher, index).origin for index in range(5, 30)}
        assert (origins == {"refined"}) == expected


def test_refinement_takes_smaller_steps_towards_the_end() -> None:
    told = [seen(0, 0.1), seen(1, 0.5), seen(2, 0.2), seen(3, 0.3)]
    searcher = evolution({"refine": 0.9}, told, problem(inherit=True, total=2000))

    def spread(indices: range) -> float:
        rates = [first(searcher, index).start.learning_rate_scale for index in indices]
        return float(np.std(np.log(rates)))

    early, late = spread(range(210, 410)), spread(range(1800, 2000))
    assert early == pytest.approx(0.28, rel=0.2)
    assert late == pytest.approx(0.09, rel=0.2)


def ap_of(loss: LossDefinition) -> float:
    """A made-up AP, best at gamma 1, alpha 0.5, weight 2 and one and a half times the rate."""
    gamma = next(
        step.node.value for step in loss.expressions["cls"].program if step.node.value is not None
    )
    cls = loss.cls
    assert isinstance(cls, ExpressionBranch)
    off = [
        math.log(gamma),
        math.log(cls.alpha / (1 - cls.alpha)),  # type: ignore[operator]
        math.log((cls.loss_weight or 1.0) / 2),
        math.log(loss.learning_rate_scale / 1.5),
    ]
    return max(0.0, 0.5 - 0.05 * sum(each**2 for each in off))


def test_refinement_finds_better_numbers_than_random_ones_at_equal_trials() -> None:
    start = definition(focal_text(2.0), "Neg(Log(Div(I,U)))")
    drawn, climbed = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        losses = []
        for _ in range(50):
            gamma, alpha = float(rng.uniform(0.05, 4)), float(rng.uniform(0.05, 0.95))
            weight, rate = (
                np.exp(rng.uniform(math.log(0.1), math.log(10))),
                np.exp(rng.uniform(math.log(0.25), math.log(4))),
            )
            more = {"weight": float(weight), "learning_rate_scale": float(rate)}
            losses.append(definition(focal_text(gamma), "Neg(Log(Div(I,U)))", alpha, **more))
        drawn.append(max(map(ap_of, losses)))

        given = problem(inherit=True, total=50, window=2, seed=seed)
        searcher = EvolutionSearcher(settings(population=1, refine=1.0, sigma=0.5), given)
        made = [seen(0, ap_of(start), loss=start)]
        for index in range(1, 51):
            if index >= 2:
                searcher.tell(made[index - 2])
            own = generator(seed, index)
            proposal = next(searcher.ask(index, own))
            expressions = {branch: draw(own) for branch, draw in proposal.draws.items()}
            loss = start if index == 1 else given.filled(proposal.start, expressions, "x")
            made.append(seen(index, ap_of(loss), loss=loss))
        climbed.append(max(each.fitness for each in made))  # type: ignore[type-var]
    assert np.mean(climbed) > np.mean(drawn) + 0.01  # type: ignore[arg-type]
    assert min(climbed) > ap_of(start) + 0.05  # type: ignore[operator,type-var]


def test_offspring_inherit_what_their_parent_was_tuned_to() -> None:
    tuned = definition(SIGMOID[0], BOX[0], alpha=0.6, weight=0.5, learning_rate_scale=1.7)
    drawn = {"cls": parse(SIGMOID[1], "binary_cls")}
    child = problem(inherit=True).filled(tuned, drawn, "x")
    assert (child.cls.loss_weight, child.cls.alpha) == (0.5, 0.6)  # type: ignore[union-attr]
    assert child.learning_rate_scale == 1.7
    plain = problem().filled(tuned, drawn, "x")
    assert (plain.cls.loss_weight, plain.cls.alpha) == (None, 0.25)  # type: ignore[union-attr]
    grown = problem(inherit=True).filled(LossDefinition("template"), drawn, "x")
    assert (grown.cls.loss_weight, grown.cls.alpha) == (None, 0.25)  # type: ignore[union-attr]


def test_constants_are_mutated_where_the_weights_say_so() -> None:
    mutate = Mutation(subtree=0, point=0, hoist=0, constant=1)
    changes = {"random": 0, "crossover": 0, "mutate": mutate, "parents": 1}
    searcher = evolution(changes, [seen(0, 0.5, loss=definition(SIGMOID[2], BOX[0]))])
    rng = np.random.default_rng(0)
    drawn = [
        (branch, draw(rng))
        for index in range(5, 60)
        for branch, draw in first(searcher, index).draws.items()
    ]
    assert len({str(each) for _, each in drawn}) > 30
    before = {"cls": parse(SIGMOID[2], "binary_cls"), "bbox": parse(BOX[0], "box")}
    for branch, each in drawn:
        # the same pairs of node and argument, but for those of one constant that was put in
        lost = structure({"": before[branch]}) - structure({"": each})
        assert lost.total() <= 1, each


POOL = {
    "cls": tuple(parse(text, "binary_cls") for text in SIGMOID),
    "bbox": tuple(parse(text, "box") for text in BOX),
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"selection": "ageing"},
        {"selection": "niches", "radius": 0.1},
        {"refine": 0.5},
        {"random": 0, "mutation": 0, "crossover": 1},
        {"random": 0, "mutation": 1, "crossover": 0, "mutate": Mutation(constant=1)},
    ],
)
def test_in_a_pool_every_draw_is_a_member(changes: dict[str, Any]) -> None:
    told = [seen(i, i / 10) for i in range(8)]
    searcher = evolution(changes, told, problem(pool=POOL, total=40))
    for index in range(1, 41):
        rng = generator(0, index)
        for proposal in searcher.ask(index, rng):
            assert proposal.draws or proposal.origin == "named"
            for branch, draw in proposal.draws.items():
                assert all(draw(rng) in POOL[branch] for _ in range(3))
            if proposal.origin == "refined":
                assert proposal.start.learning_rate_scale == 1.0


def test_landing_prefers_what_is_alike() -> None:
    rng = np.random.default_rng(0)
    found = Counter(
        str(landed(parse("Sub(1,Div(I,U))", "box"), POOL["bbox"], (), rng)) for _ in range(200)
    )
    assert found.most_common(1)[0][0] in (BOX[0], BOX[2])  # they differ in the constant alone
    assert found[BOX[0]] + found[BOX[2]] > 150
    without = {
        str(landed(POOL["bbox"][0], POOL["bbox"], [POOL["bbox"][0]], rng)) for _ in range(99)
    }
    assert BOX[0] not in without
    assert landed(POOL["bbox"][0], POOL["bbox"][:1], POOL["bbox"][:1], rng) == POOL["bbox"][0]


@pytest.mark.parametrize(
    "changes",
    [
        {"selection": "ageing", "tournament": 2},
        {"selection": "niches"},
        {"objectives": "fitness_and_size", "tolerance": 0.01},
        {"refine": 0.6, "mutate": Mutation(constant=0.5)},
    ],
)
def test_what_is_asked_depends_on_what_was_told_alone(changes: dict[str, Any]) -> None:
    told = [seen(i, i / 10 if i % 3 else None, i / 7) for i in range(9)]
    texts = []
    for _ in range(2):
        searcher = evolution(changes, told, problem(inherit=True, total=40))
        for index in (30, 12):  # asking leaves no trace
            first(searcher, index)
        made = []
        for index in range(10, 41, 3):
            rng = generator(0, index)
            for proposal in searcher.ask(index, rng):
                drawn: dict[str, Expression] = {b: d(rng) for b, d in proposal.draws.items()}
                made.append((proposal.origin, proposal.parents, proposal.start.key, str(drawn)))
        texts.append(made)
    assert texts[0] == texts[1]


SPEC = """
name: starts
detector: digits/atss
branches: {cls: {space: binary_cls}, bbox: {space: box, loss_weight: 2.0}}
searcher:
  named:
    - cse-autoloss-b
    - {cls: focal-expression, bbox: giou-expression}
    - tuned.json
    - cls: {type: stock, loss: {type: FocalLoss, gamma: 1.0, alpha: 0.5}}
"""
TUNED = {
    "name": "the tuned one",
    "cls": {
        "type": "stock",
        "loss": {"type": "FocalLoss", "gamma": 1.5, "alpha": 0.4},
        "loss_weight": 0.7,
    },
    "bbox": {"type": "stock", "loss": {"type": "CIoULoss"}, "loss_weight": 3.0},
    "iou_centerness": True,
    "learning_rate_scale": 1.4,
}


def test_named_losses_may_be_definitions_and_their_paths(tmp_path: Path) -> None:
    (tmp_path / "tuned.json").write_text(json.dumps(TUNED))
    (tmp_path / "job.yaml").write_text(SPEC)
    spec = load_spec(tmp_path / "job.yaml")
    (tmp_path / "tuned.json").unlink()
    assert JobSpec.from_json(spec.to_json()) == spec
    named = problem_of(spec).named
    assert [each.name for each in named] == [
        "cse-autoloss-b",
        "focal-expression + giou-expression",
        "the tuned one",
        "named-4",
    ]
    tuned = named[2]
    assert str(tuned.expressions["cls"]) == str(parse(focal_text(1.5), "binary_cls"))
    assert (tuned.cls.alpha, tuned.cls.loss_weight) == (0.4, 0.7)  # type: ignore[union-attr]
    assert tuned.bbox.config == {"type": "CIoULoss"}  # type: ignore[union-attr]
    assert tuned.bbox.loss_weight == 3.0  # type: ignore[union-attr]
    assert tuned.learning_rate_scale == 1.4
    assert not tuned.iou_centerness  # the job's
    assert named[3].bbox is None
    assert named[0].expressions == CATALOG["cse-autoloss-b"].expressions


@pytest.mark.parametrize(
    ("named", "field"),
    [
        ("[missing.json]", "searcher.named"),
        ("[{name: x, cls: {type: stock}}]", "searcher.named"),
        ("[{name: x, other: 3}]", "searcher.named"),
        ("[focal-expresion]", "searcher.named.0"),
        ("[{cls: focal-expression, box: iou-expression}]", "searcher.named.0.box"),
        ("[{name: x, cls: null}, {name: x, cls: null}]", "searcher"),
    ],
)
def test_a_named_loss_that_is_none_is_refused(named: str, field: str) -> None:
    text = SPEC[: SPEC.index("  named:")] + f"  named: {named}\n"
    with pytest.raises(SpecError) as caught:
        parse_spec(text)
    assert caught.value.field == field


def test_a_stored_spec_from_before_means_what_it_meant() -> None:
    spec = parse_spec(SPEC[: SPEC.index("    - tuned.json")])
    data = spec.to_json()
    for name in ("selection", "tournament", "radius", "tolerance", "objectives"):
        del data["searcher"][name]
    for name in ("refine", "sigma", "inherit"):
        del data["searcher"][name]
    del data["searcher"]["mutate"]["constant"]
    old = JobSpec.from_json(data).searcher
    assert isinstance(old, Searcher)
    assert (old.selection, old.tolerance, old.objectives) == ("truncation", 0.0, "fitness")
    assert (old.refine, old.inherit, old.mutate.constant) == (0.0, False, 0.0)
