"""A candidate's plots as plain numbers: its training curves beside the baseline's, its surfaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from losses import RankingBranch
from search_server.service.candidate_view import curves_of
from search_server.service.formula_view import read_definition
from search_server.service.surfaces import Surface, surface

if TYPE_CHECKING:
    from search_server.store import Store, TrialRecord

MOST_POINTS = 300
MOST_TRIALS = 64
POSITION = "step"


@dataclass(frozen=True)
class Series:
    """The curves of one training run.

    Attributes:
        x: training steps.
        curves: name -> values at `x`; None: not finite.
        rungs: steps -> AP in [0, 1] that it had then, and at its end.
    """

    candidate: int
    baseline: bool
    stage: str
    seed: int
    x: Sequence[float | None]
    curves: Mapping[str, Sequence[float | None]]
    rungs: Mapping[int, float]


@dataclass(frozen=True)
class CurvePlot:
    """A candidate's runs, then the baseline's of the same stages and seeds.

    Attributes:
        names: of the curves, the whole loss first.
        trials: how many runs the candidate has; at most `MOST_TRIALS` are shown.
    """

    names: tuple[str, ...]
    series: tuple[Series, ...]
    trials: int


@dataclass(frozen=True)
class SurfacePlot:
    """What a loss looks like.

    Attributes:
        surfaces: of every branch that is an expression.
        functions: of a parameterized AP loss, by branch and function: points, the ends included.
    """

    surfaces: tuple[Surface, ...]
    functions: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]


def curve_plot(store: Store, job_id: str, index: int) -> CurvePlot:
    """Training curves. Raises JobError: there is no such candidate."""
    own = [trial for trial in store.trials(job_id, index) if trial.curves]
    shown = own[:MOST_TRIALS]
    places = {(trial.stage, trial.seed) for trial in shown}
    base = store.trials(job_id, 0) if index else []
    beside = [trial for trial in base if (trial.stage, trial.seed) in places]
    series = [
        _series(trial, dict(curves), baseline=trial.candidate == 0)
        for trial, curves in curves_of([*shown, *beside], MOST_POINTS)
    ]
    names = sorted({name for each in series for name in each.curves}, key=_whole_first)
    return CurvePlot(tuple(names), tuple(series), len(own))


def surface_plot(definition: Mapping[str, Any]) -> SurfacePlot:
    """Surfaces of a definition of the store. Raises Problem: 409, see `read_definition`."""
    given = read_definition(definition, stored=True)
    functions: dict[str, Mapping[str, Sequence[tuple[float, float]]]] = {}
    for name in ("cls", "rpn"):
        branch = given.branch(name)
        if isinstance(branch, RankingBranch) and branch.functions is not None:
            functions[name] = {
                each: ((0.0, 0.0), *points, (1.0, 1.0))
                for each, points in branch.functions.points.items()
            }
    drawn = tuple(surface(name, each) for name, each in given.expressions.items())
    return SurfacePlot(drawn, functions)


def _series(trial: TrialRecord, curves: dict[str, list[float | None]], *, baseline: bool) -> Series:
    longest = max(len(values) for values in curves.values())
    x = curves.pop(POSITION, [float(place) for place in range(longest)])
    rungs = dict(trial.rungs)
    if trial.fitness is not None and trial.steps is not None:
        rungs[trial.steps] = trial.fitness
    return Series(trial.candidate, baseline, trial.stage, trial.seed, x, curves, rungs)


def _whole_first(name: str) -> tuple[bool, str]:
    return name != "loss", name
