"""Replays on tables whose answers are planted, or computed by somebody else."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from search_server.cli import run
from search_server.rank_correlation import rank_correlation, spearman
from search_server.table.files import write_table
from search_server.table.log import TableTrial
from search_server.table.plan import DrawCount, TablePlan
from search_server.table.proportions import share
from search_server.table.replay_filters import WITHOUT_GRADIENT, replay_filters
from search_server.table.replay_policies import (
    HalvingPolicy,
    replay_confirm,
    replay_halving,
    shrunken,
    stops,
)
from search_server.table.replay_ranking import replay_ranking
from search_server.table.replay_searchers import Contestant, Time, Trace, replay_search
from search_server.table.subspace import subspace_of
from search_server.table.tournament import DEFAULT, RANDOM, VANILLA, contestants, run_tournament
from search_server.table.unverified import Unverified

_spec = importlib.util.spec_from_file_location(
    "made_table", Path(__file__).with_name("made_table.py")
)
assert _spec is not None
assert _spec.loader is not None
planted: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(planted)
BOX, CLS, GROUP, RUNGS, STEPS = (
    getattr(planted, name) for name in ("BOX", "CLS", "GROUP", "RUNGS", "STEPS")
)
by_key, loss, made, plan_of = planted.by_key, planted.loss, planted.made, planted.plan_of
score, sub_space, trial = planted.score, planted.sub_space, planted.trial


def test_spearman_is_scipys() -> None:
    rng = np.random.default_rng(3)
    for count in (3, 10, 57):
        a = rng.integers(0, 8, count) / 8  # with ties
        b = a + rng.normal(0, 0.4, count)
        assert spearman(list(a), list(b)) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert spearman([1, 2], [1, 2]) is None
    assert spearman([1, 1, 1], [1, 2, 3]) is None
    with pytest.raises(ValueError, match="pairs"):
        spearman([1.0], [1.0, 2.0])


def test_the_interval_of_a_correlation_holds_it_and_shrinks_with_more_pairs() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for count in (20, 400):
        a = rng.normal(size=count)
        found = rank_correlation(list(a), list(a + rng.normal(size=count)), resamples=300)
        assert found is not None
        assert found.low < found.value < found.high
        assert found.count == count
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2


@pytest.mark.parametrize(("hits", "count"), [(0, 4), (1, 4), (7, 9), (50, 50), (123, 400)])
def test_a_share_has_wilsons_interval(hits: int, count: int) -> None:
    wanted = stats.binomtest(hits, count).proportion_ci(method="wilson")
    found = share(hits, count)
    assert found.value == pytest.approx(hits / count)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-6)


def test_a_share_of_nothing_may_be_anything() -> None:
    found = share(0, 0)
    assert (found.value, found.low, found.high) == (None, 0.0, 1.0)
    with pytest.raises(ValueError, match="no share"):
        share(3, 2)


def test_the_filters_count_what_they_throw_away() -> None:
    """Baseline 0.40 in both seeds, so the mark is 0.40 less the noise, which is planted as 0."""
    good = [loss(f"good-{i}", way="mutation") for i in range(6)]
    bad = [loss(f"bad-{i}", way="mutation") for i in range(2)]
    rejects = [
        loss(f"reject-{i}", accepted=False, condition="no gradient", branch="cls", way="mutation")
        for i in range(4)
    ]
    losses = [loss("base", kind="named", way="catalogue"), *good, *bad, *rejects]
    counts = DrawCount(GROUP, "cls", "mutation", 100, 40, {"no gradient": 60})
    aps = {each.id: 0.45 for each in good} | {each.id: 0.1 for each in bad} | {"base": 0.40}
    aps |= {each.id: 0.0 for each in rejects} | {"reject-0": 0.41}
    trials = [trial(name, seed, ap) for name, ap in aps.items() for seed in (0, 1)]
    # the simulation ranks two bad ones first, then the good ones, the baseline last
    order = ["bad-0", "bad-1", *(each.id for each in good), "base"]
    trials += [score(name, 0.9 - 0.1 * rank) for rank, name in enumerate(order)]
    found = replay_filters(made(plan_of(losses, [counts]), trials), GROUP)
    assert found is not None
    assert found.mark == pytest.approx(0.40)
    (condition,) = found.conditions
    assert (condition.good.hits, condition.good.count, condition.best) == (1, 4, 0.41)
    (way,) = found.ways
    assert (way.good.hits, way.good.count) == (6, 8)
    # plugged in: 60 * 1/4 of 60 * 1/4 + 40 * 6/8 = 1/3
    assert way.false_rejection is not None
    assert way.false_rejection.low < 1 / 3 < way.false_rejection.high
    assert way.false_rejection.value == pytest.approx(1 / 3, abs=0.08)
    half = next(row for row in found.simulation if row.keep == 0.5)
    # 5 of 9 go on: the two bad ones and three of the seven good ones
    assert (half.lost.hits, half.lost.count) == (4, 7)


def test_losses_without_a_gradient_count_as_bad_however_many_there_are() -> None:
    rejects = [
        loss(f"r{i}", accepted=False, condition="no gradient", branch="cls", way="mutation")
        for i in range(30)
    ]
    losses = [loss("base", kind="named"), *(loss(f"g{i}", way="mutation") for i in range(30))]
    counts = {"no gradient": 10, "ignores the prediction": 10**6}
    plan = plan_of([*losses, *rejects], [DrawCount(GROUP, "cls", "mutation", 0, 10, counts)])
    trials = [trial(each.id, seed, 0.4) for each in losses for seed in (0, 1)]
    trials += [trial(each.id, seed, 0.0) for each in rejects for seed in (0, 1)]
    found = replay_filters(made(plan, trials), GROUP)
    assert found is not None
    assert found.ways[0].false_rejection is not None
    assert found.ways[0].false_rejection.high < 0.2


def test_an_expression_counts_once_with_the_partner_that_the_rejects_have() -> None:
    """One good expression, in a pair with the rejects' partner and in nine with bad ones; one that
    was trained with other partners alone; one that is bad. That is 2 of 3, not 2 of 12."""

    def of(name: str, cls: str, bbox: str, **more: Any) -> Any:
        definition = {
            "cls": {"type": "expression", "space": "binary_cls", "expression": cls},
            "bbox": {"type": "expression", "space": "box", "expression": bbox},
        }
        made = loss(name, **{"way": "mutation + random", **more})
        return replace(made, definition={**made.definition, **definition})

    rejects = [
        of(f"r{i}", f"Mul({i},X)", BOX[0], accepted=False, condition="c", branch="cls")
        for i in range(4)
    ]
    good = [of("good", CLS[0], BOX[0]), *(of(f"g{i}", CLS[0], f"Mul({i},U)") for i in range(9))]
    alone = [of("alone", CLS[1], BOX[1])]
    bad = [of("bad", CLS[2], BOX[0])]
    losses = [loss("base", kind="named", way="catalogue"), *rejects, *good, *alone, *bad]
    aps = dict.fromkeys((each.id for each in losses), 0.1) | {
        "base": 0.4,
        "good": 0.41,
        "alone": 0.4,
    }
    trials = [trial(name, seed, ap) for name, ap in aps.items() for seed in (0, 1)]
    counts = DrawCount(GROUP, "cls", "mutation", 100, 40, {"c": 60})
    found = replay_filters(made(plan_of(losses, [counts]), trials), GROUP)
    assert found is not None
    assert (found.ways[0].good.hits, found.ways[0].good.count) == (2, 3)


def _noisy(count: int = 40, seed: int = 5) -> tuple[TablePlan, list[TableTrial]]:
    """Losses whose first rung is noise, whose second one is the final AP of both seeds."""
    rng = np.random.default_rng(seed)
    true = rng.uniform(0.3, 0.5, count)
    losses = [loss(f"l{i}") for i in range(count)]
    trials = []
    for each, ap in zip(losses, true, strict=True):
        trials.append(score(each.id, float(1 - ap)))
        trials += [
            trial(each.id, number, float(ap), (float(rng.uniform()), float(ap)))
            for number in (0, 1)
        ]
    return plan_of(losses), trials


def test_ranking_finds_the_planted_correlations() -> None:
    plan, trials = _noisy()
    rows = {row.reading: row for row in replay_ranking(made(plan, trials), GROUP)}
    assert set(rows) == {"simulate", f"rung {RUNGS[0]}", f"rung {RUNGS[1]}", "final"}
    for name, wanted in (("simulate", -1.0), (f"rung {RUNGS[1]}", 1.0), ("final", 1.0)):
        every = rows[name].every
        assert every is not None
        assert every.value == pytest.approx(wanted)
    noise = rows[f"rung {RUNGS[0]}"].every
    assert noise is not None
    assert abs(noise.value) < 0.4
    assert rows["simulate"].cost == pytest.approx(80 * 4 / (200 * 8))
    assert rows[f"rung {RUNGS[0]}"].cost == pytest.approx(RUNGS[0] / STEPS)


def test_a_reading_is_compared_with_other_seeds_only() -> None:
    """Final APs that are pure noise do not rank, though each equals the final of its own seed."""
    rng = np.random.default_rng(1)
    losses = [loss(f"l{i}") for i in range(60)]
    trials = [
        trial(each.id, seed, float(rng.uniform(0.3, 0.5))) for each in losses for seed in (0, 1)
    ]
    rows = replay_ranking(made(plan_of(losses), trials), GROUP)
    every = rows[-1].every
    assert every is not None
    a = [each.ap for each in trials[0::2]]
    b = [each.ap for each in trials[1::2]]
    assert every.value == pytest.approx(stats.spearmanr(a, b).statistic)
    assert abs(every.value) < 0.4


def test_the_simulation_is_compared_with_seeds_that_are_not_its_own() -> None:
    """It agrees with the final AP of its own seed, 0, by nothing but that seed."""
    rng = np.random.default_rng(6)
    losses = [loss(f"l{i}") for i in range(40)]
    first, second = rng.uniform(0.3, 0.5, (2, 40))
    trials = []
    for each, a, b in zip(losses, first, second, strict=True):
        trials += [
            score(each.id, float(a)),
            trial(each.id, 0, float(a)),
            trial(each.id, 1, float(b)),
        ]
    every = replay_ranking(made(plan_of(losses), trials), GROUP)[0].every
    assert every is not None
    assert every.value == pytest.approx(stats.spearmanr(first, second).statistic)


def test_one_seed_ranks_nothing_but_the_simulation() -> None:
    plan, trials = _noisy()
    rows = replay_ranking(made(plan, [each for each in trials if each.seed == 0]), GROUP)
    assert [row.every is None for row in rows] == [False, True, True, True]


def test_halving_stops_whom_the_rules_stop() -> None:
    """Window 2, reduction 2, worked out by hand."""
    losses = [loss("base"), *(loss(f"l{i}") for i in range(5))]
    first = {"base": 0.2, "l0": 0.05, "l1": 0.3, "l2": 0.25, "l3": 0.28, "l4": 0.31}
    trials = [trial(name, 0, 0.5, (ap, 0.4)) for name, ap in first.items()]
    table = made(plan_of(losses), trials)
    found = {each.id: each for each in table.losses}
    order = [found[f"l{i}"] for i in range(5)]
    # l0 is below half of the baseline. From l3 on two older ones (up to two places before) count:
    # l3 sees l0 0.05 and l1 0.3: the best one is the mark, 0.28 < 0.3; l4 sees l2 too: 0.31 >= 0.3
    policy = HalvingPolicy((RUNGS[0],), 2, 0.5)
    assert stops(policy, found["base"], 0, order, window=2) == [50, None, None, 50, None]
    lenient = HalvingPolicy((RUNGS[0],), 2, 0.0)
    assert stops(lenient, found["base"], 0, order, window=2) == [None, None, None, 50, None]
    assert stops(HalvingPolicy((), 2, 0.5), found["base"], 0, order, window=2) == [None] * 5


def test_halving_by_a_perfect_rung_loses_nothing_and_by_noise_it_does() -> None:
    plan, trials = _noisy()
    table = made(plan, trials)
    policies = [
        HalvingPolicy((), 3, 0.0),
        HalvingPolicy((100,), 2, 0.0),
        HalvingPolicy((50,), 2, 0),
    ]
    none, perfect, blind = replay_halving(table, GROUP, policies)
    assert (none.cost, none.finished, none.survives, none.regret) == (1.0, 1.0, 1.0, 0.0)
    assert (perfect.survives, perfect.best, perfect.regret) == (1.0, 1.0, 0.0)
    assert 0.5 < perfect.cost < 0.95
    # finished + (1 - finished) * rung / steps is what a search costs where nothing diverges
    for row, rung in ((perfect, 100), (blind, 50)):
        assert row.cost == pytest.approx(row.finished + (1 - row.finished) * rung / STEPS)
    assert blind.survives < 0.9
    assert blind.regret > 0


def test_confirmation_without_noise_chooses_the_best_and_with_it_more_seeds_choose_better() -> None:
    plan, trials = _noisy()
    exact = replay_confirm(made(plan, trials), GROUP, tops=(1, 3), seeds=(1,))
    assert [row.trials for row in exact] == [2, 4]
    for row in exact:
        assert (row.regret, row.luck) == pytest.approx((0.0, 0.0), abs=1e-12)
    rng = np.random.default_rng(2)
    noisy = [
        replace(each, ap=float(np.clip((each.ap or 0) + rng.normal(0, 0.03), 0, 1)))
        if each.stage == "proxy"
        else each
        for each in trials
    ]
    one, many = replay_confirm(made(plan, noisy), GROUP, tops=(5,), seeds=(1, 16))
    assert many.regret < one.regret
    assert 0 < many.luck < one.luck
    assert many.gain > one.gain


def test_shrinking_keeps_the_share_of_the_variance_that_is_not_error() -> None:
    values = np.array([0.1, 0.2, 0.3])  # variance 0.01
    assert shrunken(values, 0.0) == pytest.approx(values)
    assert shrunken(values, 0.05) == pytest.approx([0.125, 0.2, 0.275])
    assert shrunken(values, 0.2) == pytest.approx([0.2, 0.2, 0.2])


def test_the_noise_of_a_table_is_that_of_an_analysis_of_variance() -> None:
    rng = np.random.default_rng(4)
    values = 0.4 + rng.normal(0, 0.02, (12, 2)) + np.array([0.0, 0.05])
    losses = [loss(f"l{i}") for i in range(12)]
    table = made(
        plan_of(losses), [trial(f"l{i}", s, float(values[i, s])) for i in range(12) for s in (0, 1)]
    )
    difference = values[:, 0] - values[:, 1]
    assert table.own_noise(GROUP) == pytest.approx(difference.std(ddof=1) / 2**0.5)
    assert table.noise(GROUP) == pytest.approx(np.sqrt((difference**2).mean() / 2))


def _searches(plan: TablePlan, trials: list[TableTrial], name: str, **more: Any) -> Trace:
    space = subspace_of(made(plan, trials), GROUP)
    assert space is not None
    ways = {each.name: each for each in contestants(RUNGS, parts=True)}
    return replay_search(space, replace(ways[name], **more), seed=0, time=Time(50))


@pytest.mark.parametrize("name", [RANDOM, "evolution", DEFAULT, "default, ageing"])
def test_a_search_of_a_whole_sub_space_finds_its_best_pair(name: str) -> None:
    trace = _searches(*sub_space(), name, halving=None)
    best = 0.3 + 0.01 * (len(CLS) - 1) + 0.001 * (len(BOX) - 1)
    if name == "evolution":  # of a cohort of 12 pairs, three are trained
        assert trace.time[-1] == pytest.approx(12 * 0.2 + 3)
        assert trace.time[0] >= 12 * 0.2  # all of a population are simulated first
    else:
        assert len(trace.time) == len(CLS) * len(BOX)  # then there is nothing new
        assert trace.time[-1] == len(trace.time)
    assert trace.best[-1] == trace.true[-1] == pytest.approx(best)


def test_pairs_that_are_not_trained_yet_are_not_proposed() -> None:
    plan, trials = sub_space()
    left = [each for each in trials if each.loss not in ("pair-3-2", "pair-0-1")]
    trace = _searches(plan, left, RANDOM)
    assert len(trace.time) == len(CLS) * len(BOX) - 2
    assert trace.best[-1] == pytest.approx(0.331)


def test_without_verification_all_accepted_is_plain_evolution_and_none_finds_nothing() -> None:
    plan, trials = sub_space()

    def rates(accepted: int) -> TablePlan:
        counts = [
            DrawCount(GROUP, branch, way, 100, accepted, {"no gradient": 100 - accepted})
            for branch in ("cls", "bbox")
            for way in ("random", "mutation", "crossover")
        ]
        return replace(plan, draws=tuple(counts))

    plain = _searches(rates(100), trials, VANILLA, verified=True)
    every = _searches(rates(100), trials, VANILLA)
    assert every.best[-1] == plain.best[-1]
    some = _searches(rates(95), trials, VANILLA)  # as it has found 12 pairs, it ends
    assert len(some.time) < 24  # what is known already is drawn again, and no reject for that
    none = _searches(rates(0), trials, VANILLA)
    base = 0.3  # pair 0 + 0
    assert none.best[-1] == base
    assert len(none.time) >= 50  # every draw is trained, to no avail


def test_losses_without_gradient_cost_a_search_nothing_where_they_are_left_out() -> None:
    plan, trials = sub_space()
    counts = [
        DrawCount(GROUP, branch, way, 100, 10, {WITHOUT_GRADIENT: 80, "wrong direction": 10})
        for branch in ("cls", "bbox")
        for way in ("random", "mutation", "crossover")
    ]
    rejecting = replace(plan, draws=tuple(counts))
    space = subspace_of(made(rejecting, trials), GROUP)
    assert space is not None
    with_all, without = (Unverified.of(space.table, GROUP, inert) for inert in (True, False))
    assert with_all.outcomes["cls", "random"].accepted == pytest.approx(0.1)
    assert without.outcomes["cls", "random"].accepted == pytest.approx(0.5)
    assert without.outcomes["cls", "random"].conditions == ("wrong direction",)
    every = _searches(rejecting, trials, VANILLA)  # one candidate in a hundred is accepted in both
    fewer = _searches(rejecting, trials, VANILLA, inert=False)
    assert every.time[-1] == fewer.time[-1] == 50
    assert fewer.best[-1] > every.best[-1]


def test_a_search_goes_on_past_its_budget_until_it_has_what_it_is_compared_by() -> None:
    assert not Time(4).over(3.9, 1.0)
    assert Time(4).over(4.0, 0.0)
    assert not Time(4, 0.5, 9).over(4.0, 0.4)
    assert Time(4, 0.5, 9).over(4.0, 0.5)
    assert Time(4, 0.5, 9).over(9.0, 0.4)
    plan, trials = sub_space()
    space = subspace_of(made(plan, trials), GROUP)
    assert space is not None
    way = contestants(RUNGS, parts=False)[0]
    best = 0.3 + 0.01 * (len(CLS) - 1) + 0.001 * (len(BOX) - 1)
    short = replay_search(space, way, 0, Time(2))
    longer = replay_search(space, way, 0, Time(2, best, 50))
    assert short.reaches(best) is None
    assert longer.reaches(best) == longer.time[-1] > 2
    assert longer.time[: len(short.time)] == short.time


def test_a_trace_tells_time_and_value() -> None:
    trace = Trace((1.0, 2.0, 4.0), (0.1, 0.1, 0.3), (0.2, 0.2, 0.25))
    assert [trace.at(t, trace.true, 0.0) for t in (0.5, 1.0, 3.9, 4.0, 9)] == [
        0,
        0.2,
        0.2,
        0.25,
        0.25,
    ]
    assert (trace.reaches(0.1), trace.reaches(0.2), trace.reaches(0.31)) == (1.0, 4.0, None)


def test_searches_that_are_alike_do_not_differ() -> None:
    """Every pair the same AP: no gain, no difference to random search, p = 1."""
    plan, trials = sub_space(lambda i, j: 0.4)
    counts = [
        DrawCount(GROUP, branch, way, 100, 50, {"no gradient": 50})
        for branch in ("cls", "bbox")
        for way in ("random", "mutation", "crossover")
    ]
    table = made(replace(plan, draws=tuple(counts)), trials)
    found = run_tournament(table, GROUP, searches=2, budget=5, vanilla=5)
    assert found is not None
    assert (found.pairs, found.of, found.unbiased) == (12, 12, True)
    for row in found.rows:
        assert row.gain.value == pytest.approx(0.0)
        assert row.name == RANDOM or (row.difference is not None and row.p == 1.0)


def test_the_command_answers_from_any_part_of_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, trials = sub_space()
    few = ["--searches", "2", "--budget", "4", "--vanilla", "6"]
    for number, part in enumerate((trials[:1], trials)):
        folder = tmp_path / str(number)
        write_table(folder, plan, by_key(part))
        assert run(["bench", str(folder), "--json", *few]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["counted"]["ended"] == len(part)
    (group,) = found["groups"]
    assert group["ranking"][-1]["every"]["value"] == pytest.approx(1.0)
    assert {row["name"] for row in group["searchers"]["rows"]} >= {RANDOM, VANILLA, DEFAULT}


def test_the_command_prints_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, trials = sub_space()
    write_table(tmp_path / "made", plan, by_key(trials))
    figure = tmp_path / "figures" / "bench.png"
    few = ["--searches", "2", "--budget", "4", "--vanilla", "6"]
    assert run(["bench", str(tmp_path / "made"), *few, "--plot", str(figure)]) == 0
    assert figure.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "12 of 12 losses, 36 of 36 trials" in printed
    assert "12 of 12 pairs" in printed
    assert run(["bench", "made", "--plot", "x.gif"]) == 2
    assert ".png" in capsys.readouterr().err
    assert run(["bench", "--job", "nobody", "--store", str(tmp_path / "none.db")]) == 2
    assert "none.db" in capsys.readouterr().err
    assert run(["bench", "no-such-table"]) == 2
    assert "no-such-table" in capsys.readouterr().err


def test_contestants_differ() -> None:
    ways = contestants(RUNGS, parts=True)
    assert len({each.name for each in ways}) == len(ways)
    told = {
        (each.settings, each.keep, each.halving, each.verified, each.inert)
        for each in map(_plain, ways)
    }
    assert len(told) == len(ways)


def _plain(way: Contestant) -> Any:
    return replace(way, settings=way.settings.model_dump_json())  # type: ignore[arg-type]
