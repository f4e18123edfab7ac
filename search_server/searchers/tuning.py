"""Tuning of hand-made losses: Optuna's samplers, by their ask and tell, behind ours."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from numpy.random import Generator

from losses import LossDefinition
from search_server.searchers.base import Observation, Problem, Proposal, Searcher
from search_server.spec import TuningSearcher as TuningSettings

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler

RESORTS = 16  # random candidates to fall back on, where the sampler's own is in the job already


class TuningSearcher(Searcher):
    """Hand-made losses with their numbers, weights and learning rate, chosen by a sampler.

    The published losses come first, then random ones, then the sampler's. The sampler lives
    through the same questions and answers in every run: question `k` is put right before the
    answer `k - window + 1` is given, by whoever comes first, `ask` or `tell`. So a resumed search
    only has to give the answers again, and the sampler is where it was.

    A candidate that was stopped at a rung is told as pruned there, one that the simulation dropped
    as pruned before the first step; one without any result is told as failed. A resort is not
    learned from: it was not what the sampler asked. Where it stands in for a published loss, that
    one is the baseline by another name, and gets its result.
    """

    def __init__(self, settings: TuningSettings, problem: Problem) -> None:
        super().__init__(problem)
        assert problem.handmade is not None
        self._settings = settings
        self._space = problem.handmade
        self._published = self._space.published()
        self._study = _study(settings, len(self._published), problem.seed)
        self._asked: list[tuple[Trial, LossDefinition]] = []
        self._baseline: float | None = None
        for choices in self._published:
            self._study.enqueue_trial(choices)

    def ask(self, index: int, rng: Generator) -> Iterator[Proposal]:
        """The sampler's candidate; as resorts, random ones."""
        self._put_questions(index)
        yield Proposal("tuned", (), self._asked[index - 1][1], {}, limit=1)
        for _ in range(RESORTS):
            definition = self._space.definition(self._space.draw(rng), f"candidate-{index}")
            yield Proposal("tuned", (), definition, {}, limit=1)

    def tell(self, observation: Observation) -> None:
        """Answers the sampler's question, if that is what the candidate was."""
        from optuna.trial import TrialState

        index, fitness = observation.index, observation.fitness
        if index < 1:
            self._baseline = fitness
            return
        self._put_questions(index + self.problem.window - 1)
        trial, definition = self._asked[index - 1]
        other = observation.definition.key != definition.key
        if other:
            fitness = self._baseline if index <= len(self._published) else None
        if fitness is not None:
            self._study.tell(trial, fitness)
        elif other:
            self._study.tell(trial, state=TrialState.FAIL)
        elif observation.rungs:
            step = max(observation.rungs)
            trial.report(observation.rungs[step], step)
            self._study.tell(trial, state=TrialState.PRUNED)
        elif observation.score is not None:
            trial.report(observation.score, 0)
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, state=TrialState.FAIL)

    def _put_questions(self, last: int) -> None:
        """Let the sampler choose every candidate up to `last` that it has not chosen yet."""
        for index in range(len(self._asked) + 1, last + 1):
            with _quiet():
                trial = self._study.ask()
                choices = self._space.choose(trial)
            definition = self._space.definition(choices, f"candidate-{index}")
            self._asked.append((trial, definition))


def _study(settings: TuningSettings, published: int, seed: int) -> Study:
    """A study in memory that maximises the AP and says nothing."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    samplers, first = optuna.samplers, published + settings.startup
    kinds: dict[str, Callable[[], BaseSampler]] = {
        "tpe": lambda: samplers.TPESampler(
            seed=seed, n_startup_trials=first, multivariate=True, group=True, constant_liar=True
        ),
        "random": lambda: samplers.RandomSampler(seed=seed),
        "cmaes": lambda: samplers.CmaEsSampler(seed=seed, n_startup_trials=first),
    }
    with _quiet():
        return optuna.create_study(direction="maximize", sampler=kinds[settings.sampler]())


def _quiet() -> warnings.catch_warnings:
    """No warnings: Optuna's are about options that are meant as they are."""
    return warnings.catch_warnings(action="ignore")
