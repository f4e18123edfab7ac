"""Ways to search against each other on the sub-space, over many search seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_server.spec import Funnel
from search_server.spec import Searcher as Settings
from search_server.table.contents import Table
from search_server.table.proportions import Interval
from search_server.table.replay_policies import HalvingPolicy
from search_server.table.replay_searchers import Contestant, Time, Trace, replay_search
from search_server.table.subspace import subspace_of

RANDOM, VANILLA, DEFAULT, LIVE = "random", "vanilla evolution", "default", "as searched live"
POPULATION, PARENTS, KEEP = 12, 6, 3
POINTS = 60  # of a curve
ROUNDING = 1e-12
_RESAMPLES = 2000


@dataclass(frozen=True)
class SearcherRow:
    """One way to search.

    Attributes:
        gain: true AP of what it found at the end of the budget, less the baseline's; mean over the
            search seeds with its interval.
        difference: its true AP less that of random search, search seed by search seed; None for
            random search itself.
        p: of that difference, paired t test.
        time: to reach the final best of vanilla evolution, as a share of the time in which vanilla
            evolution did: geometric mean over the search seeds.
        time_of_all: the same as a share of all the time that vanilla evolution was given.
        missed: search seeds in which it was not reached in all the time that vanilla evolution was
            given, for which a search goes on where it has not; they count with that time.
        curve: mean true AP less the baseline's at the times of `Tournament.times`.
    """

    name: str
    gain: Interval
    difference: Interval | None
    p: float | None
    time: Interval
    time_of_all: Interval
    missed: int
    curve: tuple[float, ...]


@dataclass(frozen=True)
class Tournament:
    """All ways to search on the sub-space of one group.

    Attributes:
        pairs, of: pairs that have been trained, and all of the sub-space.
        seeds: how many searches each.
        budget: trial time of a search, in whole trials; that of vanilla evolution is `vanilla`.
        unbiased: whether what was found is valued on another seed than it was chosen by.
    """

    group: str
    pairs: int
    of: int
    seeds: int
    budget: float
    vanilla: float
    unbiased: bool
    times: tuple[float, ...]
    rows: tuple[SearcherRow, ...]


def contestants(rungs: Sequence[int], parts: bool) -> list[Contestant]:
    """The ways to search that are compared; all start with the same hand-made losses.

    `evolution` is that of CSE-AutoLoss, with verification and simulation; `default` has the
    settings that a spec has when it says nothing, and halving; the last one those that
    `configs/evidence` searches with.

    Args:
        parts: whether the default is taken apart: stages, selection, operators.
    """
    funnel = Funnel()
    halving = HalvingPolicy(tuple(rungs), funnel.proxy.reduction, funnel.proxy.hopeless)

    def tree(**given: object) -> Settings:
        return Settings.model_validate({"population": POPULATION, "parents": PARENTS, **given})

    evolution = tree(selection="truncation", objectives="fitness", tolerance=0.0, refine=0.0)
    found = [
        Contestant(RANDOM, tree(type="random")),
        Contestant(VANILLA, evolution, verified=False),
        Contestant("evolution", evolution, keep=KEEP),
        Contestant(DEFAULT, tree(), halving=halving),
        Contestant(
            LIVE,
            tree(selection="niches", tolerance=0.003, refine=0.3, random=0.1, mutation=0.6),
            halving=halving,
        ),
    ]
    if not parts:
        return found
    found += [
        Contestant(
            f"{VANILLA}, those without gradient left out", evolution, None, None, False, False
        ),
        Contestant("random, simulation", tree(type="random"), keep=KEEP),
        Contestant("random, halving", tree(type="random"), halving=halving),
        Contestant("default, no halving", tree()),
        Contestant("default, simulation", tree(), keep=KEEP, halving=halving),
    ]
    for selection in ("truncation", "ageing", "niches"):
        settings = tree(selection=selection)
        if settings != tree():
            found.append(Contestant(f"default, {selection}", settings, halving=halving))
    for name, given in (
        ("no crossover", {"crossover": 0.0}),
        ("no mutation", {"mutation": 0.0}),
        ("no random growth", {"random": 0.0}),
    ):
        found.append(Contestant(f"default, {name}", tree(**given), halving=halving))
    return found


def run_tournament(
    table: Table,
    group: str,
    searches: int = 20,
    budget: float = 24.0,
    vanilla: float = 72.0,
    parts: bool = False,
    say: Callable[[str], None] | None = None,
) -> Tournament | None:
    """Every contestant on the sub-space with the same search seeds; None where there is none.

    Args:
        searches: search seeds, at least 2.
        budget: trial time of each search, in whole trials.
        vanilla: the same of vanilla evolution.
        parts: whether the default is taken apart as well.
        say: told the name of each contestant when its turn comes.
    """
    space = subspace_of(table, group)
    if space is None:
        return None
    base = table.baseline(group)
    starts = [(base.readings[seed].ap, space.value(base, seed)) for seed in space.seeds]
    traces: dict[str, list[Trace]] = {}
    ways = contestants(table.rungs, parts)
    for each in sorted(ways, key=lambda way: way.name != VANILLA):  # it sets the others' goal
        if say is not None:
            say(each.name)
        given = [Time(vanilla)] * searches
        if each.name != VANILLA:
            goals = [trace.best[-1] for trace in traces[VANILLA]]
            given = [Time(budget, goal, vanilla) for goal in goals]
        traces[each.name] = [
            replay_search(space, each, seed, time) for seed, time in enumerate(given)
        ]
    own = np.array([starts[seed % len(starts)][1] for seed in range(searches)])
    times = tuple(float(t) for t in np.linspace(0, budget, POINTS))
    rows = []
    for name in (way.name for way in ways):
        found = traces[name]
        values = [
            np.array([trace.at(t, trace.true, own[s]) for s, trace in enumerate(found)]) - own
            for t in times
        ]
        difference, p = _against(name, traces, own, budget)
        needed, of_all, missed = _times(found, traces[VANILLA], vanilla)
        curve = tuple(float(value.mean()) for value in values)
        gain = _mean(values[-1])
        rows.append(SearcherRow(name, gain, difference, p, needed, of_all, missed, curve))
    whole = len(space.pool["cls"]) * len(space.pool["bbox"])
    return Tournament(
        group,
        len(space.losses),
        whole,
        searches,
        budget,
        vanilla,
        len(space.seeds) > 1,
        times,
        tuple(rows),
    )


def _mean(values: NDArray[np.float64]) -> Interval:
    """A mean with Student's interval."""
    from scipy.stats import t as student  # most of a second to import

    value = float(values.mean())
    error = float(values.std(ddof=1)) / len(values) ** 0.5
    reach = float(student.ppf(0.975, len(values) - 1)) * error
    return Interval(value, value - reach, value + reach)


def _against(
    name: str, traces: dict[str, list[Trace]], own: NDArray[np.float64], budget: float
) -> tuple[Interval | None, float | None]:
    """The difference to random search within a search seed, and its p."""
    if name == RANDOM:
        return None, None
    from scipy.stats import ttest_1samp  # most of a second to import

    ends = [
        np.array([trace.at(budget, trace.true, own[s]) for s, trace in enumerate(traces[who])])
        for who in (name, RANDOM)
    ]
    difference = ends[0] - ends[1]
    if np.ptp(difference) < ROUNDING:  # the test has no answer where nothing varies
        return _mean(difference), float(abs(difference.mean()) < ROUNDING)
    return _mean(difference), float(ttest_1samp(difference, 0.0).pvalue)


def _times(
    found: Sequence[Trace], others: Sequence[Trace], whole: float
) -> tuple[Interval, Interval, int]:
    """Times to vanilla evolution's final best, against its own and against all it was given."""
    ratios, shares, missed = [], [], 0
    for trace, vanilla in zip(found, others, strict=True):
        goal = vanilla.best[-1]
        own = vanilla.reaches(goal) or whole
        needed = trace.reaches(goal)
        missed += needed is None
        ratios.append((whole if needed is None else needed) / own)
        shares.append((whole if needed is None else needed) / whole)
    return _geometric(np.array(ratios)), _geometric(np.array(shares)), missed


def _geometric(ratios: NDArray[np.float64]) -> Interval:
    logs = np.log(ratios)
    rng = np.random.default_rng(0)
    drawn = logs[rng.integers(len(logs), size=(_RESAMPLES, len(logs)))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(np.exp(logs.mean())), float(np.exp(low)), float(np.exp(high)))
