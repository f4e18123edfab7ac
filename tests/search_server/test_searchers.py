"""Searchers: who becomes a parent, what is drawn, and that a search depends on its seed alone."""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest

from losses import CATALOG, ExpressionBranch, LossDefinition
from primitives import SPACES, Expression, parse
from search_server.candidates import Draws, NothingNew, Stopped, find_candidate
from search_server.searchers import (
    EvolutionSearcher,
    Observation,
    Problem,
    Proposal,
    RandomSearcher,
    generator,
)
from search_server.spec import Searcher

SIGMOID = [
    "Softplus(Mul(X,Sub(NY,PY)))",
    "Sub(Softplus(X),Mul(Q,X))",
    "Sub(Softplus(X),Mul(PY,X))",
    "Mul(2,Sub(Softplus(X),Mul(Q,X)))",
]
BOX = ["Sub(1,Div(I,U))", "Neg(Div(I,U))", "Sub(2,Div(I,E))", "Neg(Log(Div(I,U)))"]


def problem(**changes: Any) -> Problem:
    given: dict[str, Any] = {
        "spaces": {"cls": SPACES["binary_cls"], "bbox": SPACES["box"]},
        "template": LossDefinition("template"),
        "weights": {"cls": None, "bbox": 2.0},
        "alpha": 0.25,
        "named": (CATALOG["cse-autoloss-b"],),
    }
    return Problem(**{**given, **changes})


def definition(cls: str | None, bbox: str | None) -> LossDefinition:
    return LossDefinition(
        "test",
        None if cls is None else ExpressionBranch(parse(cls, "binary_cls"), None, 0.25),
        None if bbox is None else ExpressionBranch(parse(bbox, "box"), 2.0),
    )


def seen(
    index: int, fitness: float | None, score: float | None = None, place: int | None = None
) -> Observation:
    place = index if place is None else place
    loss = definition(SIGMOID[place % 4], BOX[place % 4])
    return Observation(index, loss, loss.expressions, fitness, score)


def told(searcher: EvolutionSearcher, *observations: Observation) -> EvolutionSearcher:
    for observation in observations:
        searcher.tell(observation)
    return searcher


def first(searcher: Any, index: int, seed: int = 0) -> Proposal:
    return next(searcher.ask(index, generator(seed, index)))


def test_the_first_generation_is_named_then_random() -> None:
    searcher = EvolutionSearcher(Searcher(population=4), problem())
    proposals = [first(searcher, index) for index in range(1, 5)]
    assert [each.origin for each in proposals] == ["named", "random", "random", "random"]
    assert proposals[0].start == CATALOG["cse-autoloss-b"]
    assert all(set(each.draws) == {"cls", "bbox"} for each in proposals)


def test_only_the_best_become_parents() -> None:
    settings = Searcher(population=4, parents=2, random=0, mutation=0.5, crossover=0.5)
    searcher = told(
        EvolutionSearcher(settings, problem()),
        seen(0, 0.1),
        seen(1, 0.4),
        seen(2, None, 0.9),  # better in the simulation, but without a fitness
        seen(3, 0.3),
        seen(4, None, None),  # lost
    )
    parents: Counter[int] = Counter()
    for index in range(5, 105):
        parents.update(first(searcher, index).parents)
    assert set(parents) == {1, 3}
    assert min(parents.values()) > 20


def test_scores_fill_up_where_fitness_is_scarce() -> None:
    settings = Searcher(population=4, parents=2, random=0, mutation=1, crossover=0)
    searcher = told(EvolutionSearcher(settings, problem()), seen(1, None, 0.2), seen(2, 0.0))
    found = {first(searcher, index).parents for index in range(5, 40)}
    assert found == {(1,), (2,)}


def test_weights_hold_for_what_is_made() -> None:
    settings = Searcher(population=4, parents=4, random=0.2, mutation=0.5, crossover=0.3)
    searcher = told(EvolutionSearcher(settings, problem()), *(seen(i, i / 10) for i in range(4)))
    origins = Counter(first(searcher, index).origin for index in range(5, 1005))
    for origin, share in (("random", 0.2), ("mutation", 0.5), ("crossover", 0.3)):
        assert abs(origins[origin] / 1000 - share) < 0.05


def test_mutation_changes_some_branch_and_keeps_the_rest() -> None:
    settings = Searcher(population=1, parents=1, random=0, mutation=1, crossover=0)
    searcher = told(EvolutionSearcher(settings, problem()), seen(0, 0.5))
    branches = Counter(tuple(first(searcher, index).draws) for index in range(2, 200))
    assert set(branches) == {("cls",), ("bbox",), ("cls", "bbox")}
    one = first(searcher, 2)
    assert one.start == seen(0, 0.5).definition


def test_crossover_takes_from_both_parents() -> None:
    settings = Searcher(population=1, parents=2, random=0, mutation=0, crossover=1)
    searcher = told(EvolutionSearcher(settings, problem()), seen(0, 0.5), seen(1, 0.4))
    made = [first(searcher, index) for index in range(2, 60)]
    assert {frozenset(each.parents) for each in made} == {frozenset({0, 1})}
    rng = np.random.default_rng(0)
    texts = {str(each.draws["bbox"](rng)) for each in made}
    assert len(texts) > 3


def test_a_crossover_without_anything_to_cross_is_drawn_once() -> None:
    settings = Searcher(population=1, parents=2, random=0, mutation=0, crossover=1)
    only_cls, only_bbox = definition(SIGMOID[0], None), definition(None, BOX[0])
    searcher = told(
        EvolutionSearcher(settings, problem()),
        Observation(0, only_cls, only_cls.expressions, 0.5, None),
        Observation(1, only_bbox, only_bbox.expressions, 0.4, None),
    )
    proposal = first(searcher, 2)
    known = {definition(SIGMOID[0], BOX[0]).key}
    hopeful = Proposal("mutation", (), LossDefinition("t"), {"bbox": listed(BOX[1])})
    found, draws = find([proposal, hopeful], known, max_draws=10**9)
    assert found.origin == "mutation"
    assert draws.counts["crossover", "known"] == 1


def test_without_a_parent_named_losses_stand_in() -> None:
    settings = Searcher(population=2, parents=2, random=0, mutation=1, crossover=0)
    searcher = EvolutionSearcher(settings, problem())
    proposal = first(searcher, 9)
    assert proposal.origin == "mutation"
    assert proposal.parents == ()
    bare = EvolutionSearcher(settings, problem(named=()))
    assert first(bare, 9).origin == "random"


def test_alternate_takes_the_other_branch_from_the_best() -> None:
    settings = Searcher(population=2, parents=2, random=0.5, mutation=0.5, crossover=0.5)
    searcher = told(
        EvolutionSearcher(settings, problem(alternate=True)), seen(0, 0.2), seen(1, 0.5)
    )
    for index in range(3, 60):
        proposal = first(searcher, index)
        active = "cls" if (index - 1) // 2 % 2 == 0 else "bbox"
        assert set(proposal.draws) == {active}
        assert proposal.start == seen(1, 0.5).definition
        assert 1 in proposal.parents


def test_random_search_learns_nothing() -> None:
    told_much = RandomSearcher(Searcher(), problem())
    for index in range(10):
        told_much.tell(seen(index, index / 10))
    told_nothing = RandomSearcher(Searcher(), problem())
    for searcher in (told_much, told_nothing):
        assert first(searcher, 40).origin == "random"
    draws = [first(searcher, 40).draws["bbox"] for searcher in (told_much, told_nothing)]
    assert draws[0](generator(1, 1)) == draws[1](generator(1, 1))


def find(
    proposals: list[Proposal], known: set[str], max_draws: int = 50, stop: bool = False
) -> tuple[Any, Draws]:
    draws = Draws(keep=2)
    found = find_candidate(
        7, proposals, problem(), generator(0, 7), known, draws, max_draws, "simulate", lambda: stop
    )
    return found, draws


def listed(*texts: str) -> Any:
    """A draw that gives these box expressions in turn, the last one for ever."""
    left = [parse(text, "box") for text in texts]

    def draw(rng: Any) -> Expression:
        return left.pop(0) if len(left) > 1 else left[0]

    return draw


def test_known_and_rejected_draws_are_counted_and_drawn_again() -> None:
    start = definition(SIGMOID[0], None)
    twin = problem().filled(start, {"bbox": parse("Neg(Div(I,U))", "box")}, "x").key
    proposal = Proposal(
        "mutation",
        (3,),
        start,
        {"bbox": listed("Div(I,U)", "Neg(Div(I,U))", "Neg(I)", "Sub(1,Div(I,U))")},
    )
    found, draws = find([proposal], {twin})
    assert found.bbox_text is not None
    assert found.parents == (3,)
    assert found.definition["bbox"]["expression"] == "Sub(1,Div(I,U))"
    assert found.definition["bbox"]["loss_weight"] == 2.0
    assert draws.counts["mutation", "accepted"] == 1
    assert draws.counts["mutation", "known"] == 1
    assert draws.counts.total() == 4
    assert ("mutation", "Neg(Div(I,U))", "known") in draws.traced


def test_a_branch_that_passed_is_kept_while_the_other_is_drawn() -> None:
    calls: Counter[str] = Counter()

    def counted(branch: str, draw: Any) -> Any:
        def wrapped(rng: Any) -> Expression:
            calls[branch] += 1
            return draw(rng)

        return wrapped

    cls = parse(SIGMOID[1], "binary_cls")
    proposal = Proposal(
        "random",
        (),
        LossDefinition("template"),
        {
            "cls": counted("cls", lambda rng: cls),
            "bbox": counted("bbox", listed("I", "U", "Neg(I)", BOX[1])),
        },
    )
    found, draws = find([proposal], set())
    assert calls == {"cls": 1, "bbox": 4}
    assert draws.counts.total() == 4
    assert found.definition["cls"]["alpha"] == 0.25


def test_a_way_that_finds_nothing_gives_way_to_the_next() -> None:
    hopeless = Proposal("random", (), LossDefinition("t"), {"bbox": listed("I")})
    hopeful = Proposal("mutation", (2,), LossDefinition("t"), {"bbox": listed(BOX[0])})
    found, draws = find([hopeless, hopeful], set(), max_draws=30)
    assert found.origin == "mutation"
    assert sum(n for (origin, _), n in draws.counts.items() if origin == "random") == 30


def test_no_way_left_is_said_with_numbers() -> None:
    hopeless = Proposal("random", (), LossDefinition("t"), {"bbox": listed("I")})
    with pytest.raises(NothingNew, match=r"candidate 7 in 60 draws \(.* 60\)"):
        find([hopeless, hopeless], set(), max_draws=30)


def test_drawing_can_be_stopped() -> None:
    hopeless = Proposal("random", (), LossDefinition("t"), {"bbox": listed("I")})
    with pytest.raises(Stopped):
        find([hopeless], set(), max_draws=10**9, stop=True)


PROGRAM = """
import json
from search_server.candidates import Draws, find_candidate
from search_server.problem import problem_of
from search_server.searchers import generator, make_searcher
from search_server.spec import load_spec
from losses import configs_dir
spec = load_spec(configs_dir() / "search" / "demo.yaml")
problem = problem_of(spec)
searcher = make_searcher(spec.searcher, problem)
known, texts = set(), []
for index in (1, 2, 3, 4, 5, 17, 18, 19, 20):
    rng, draws = generator(3, index), Draws()
    found = find_candidate(index, searcher.ask(index, rng), problem, rng, known, draws, 300,
                           "simulate", lambda: False)
    known.add(found.key)
    texts.append([found.key, sorted(map(list, draws.counts.items()))])
print(json.dumps(texts))
"""


@pytest.mark.slow
def test_a_seed_gives_the_same_candidates_in_every_process() -> None:
    here = io.StringIO()
    with contextlib.redirect_stdout(here):
        exec(PROGRAM, {})
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"  # not this process's
    there = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    ).stdout
    assert here.getvalue() == there
    assert len(json.loads(there)) == 9
