"""Policy search as in Parameterized AP Loss: rounds of samples, and PPO between them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.random import Generator
from scipy.special import expit, logit

from search_server.searchers.base import Observation, Problem, Proposal, Searcher, generator
from search_server.searchers.parameters import Parameters
from search_server.searchers.ppo import PPO, updated
from search_server.searchers.truncated_normal import Vector, sample
from search_server.spec import PolicySearcher as PolicySettings


class PolicySearcher(Searcher):
    """A truncated-normal policy on [0, 1]^n, its mean moved by PPO after every round.

    Candidates 1 .. rounds * samples are drawn from the policy, each round from the same one, so
    the trials of a round can run side by side; the last candidate is the final mean itself. The
    spread falls linearly over the rounds. The reward is the fitness, 0 for a training that
    diverged; a candidate that failed for another reason is left out of its round.

    A sample is a function of the policy in its round and of the candidate's own generator. So
    `tell` draws it again, bit for bit, and nothing of the policy needs to be stored.
    """

    def __init__(self, settings: PolicySettings, problem: Problem) -> None:
        super().__init__(problem)
        assert problem.parameters is not None
        self._settings = settings
        self._parameters: Parameters = problem.parameters
        self._mu: Vector = logit(self._parameters.start())
        self._rewards: list[tuple[Vector, float]] = []

    @property
    def mean(self) -> Vector:
        """The policy's mean before it is cut, in [0, 1]; shape (n,)."""
        return expit(self._mu)

    def round_of(self, index: int) -> int:
        """The round, from 0, of a sampled candidate; that of the last candidate is `rounds`."""
        return (index - 1) // self._settings.samples

    def sigma(self, number: int) -> float:
        """The spread in a round, from 0 to `rounds`; the update after the last round keeps it."""
        rounds = self._settings.rounds
        return self._settings.sigma * (rounds - min(number, rounds - 1)) / rounds

    def sees(self, index: int) -> int:
        """All of the earlier rounds, none of its own; the first round does not even wait for the
        baseline."""
        return self.round_of(index) * self._settings.samples or -1

    def ask(self, index: int, rng: Generator) -> Iterator[Proposal]:
        """One proposal, complete: a sample, or the mean at the end."""
        last = index > self._settings.rounds * self._settings.samples
        theta = self.mean if last else self._sampled(index)
        definition = self._parameters.definition(theta, f"candidate-{index}")
        yield Proposal("mean" if last else "policy", (), definition, {}, limit=1)

    def tell(self, observation: Observation) -> None:
        """Keeps the reward of a sample; the last one of a round moves the mean."""
        index, settings = observation.index, self._settings
        if not 1 <= index <= settings.rounds * settings.samples:
            return
        if observation.fitness is not None:
            self._rewards.append((self._sampled(index), observation.fitness))
        if index % settings.samples == 0:
            self._update(self.round_of(index))

    def _sampled(self, index: int) -> Vector:
        """The parameters of a candidate of the present round."""
        own = generator(self.problem.seed, index)
        return sample(self.mean, self.sigma(self.round_of(index)), own)

    def _update(self, number: int) -> None:
        settings = self._settings
        if self._rewards:
            self._mu = updated(
                self._mu,
                self.sigma(number),
                self.sigma(number + 1),
                np.array([theta for theta, _ in self._rewards]),
                np.array([reward for _, reward in self._rewards]),
                PPO(settings.learning_rate, settings.updates, settings.warmup, settings.clip),
            )
        self._rewards.clear()
