"""The update of a truncated-normal policy after a round: PPO, as in Parameterized AP Loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from search_server.searchers.truncated_normal import Vector, log_density


@dataclass(frozen=True)
class PPO:
    """How a policy's mean is moved after a round.

    Attributes:
        learning_rate: of Adam, in logits of the mean; the peak of its schedule.
        updates: steps of Adam.
        warmup: steps in which the learning rate rises from 0; after them it falls to 0.
        clip: each dimension's probability ratio is held in [1 - clip, 1 + clip].
    """

    learning_rate: float
    updates: int
    warmup: int
    clip: float

    def factor(self, step: int) -> float:
        """The share of the learning rate that a step gets: linear up, then linear down."""
        if step < self.warmup:
            return step / self.warmup
        return (self.updates - step) / (self.updates - self.warmup)


def updated(
    mu: Vector, sigma: float, new_sigma: float, thetas: Vector, rewards: Vector, settings: PPO
) -> Vector:
    """The policy's mean after one round.

    The samples are weighed by reward minus the round's mean, without a division by the spread.
    The old probabilities are those of the old sigma, the new ones those of the new sigma, as in
    the release. Adam starts afresh in every round.

    Args:
        mu: logits of the mean that the round was sampled with; shape (n,).
        sigma: that the round was sampled with.
        new_sigma: of the round to come.
        thetas: the samples; shape (samples, n).
        rewards: shape (samples,).

    Returns:
        Shape (n,). `mu` itself where the rewards do not tell the samples apart.
    """
    if len(rewards) == 0 or np.ptp(rewards) == 0:
        return mu
    drawn = torch.from_numpy(thetas)
    advantage = torch.from_numpy(rewards - rewards.mean())
    before = log_density(drawn, torch.from_numpy(mu).sigmoid(), sigma)
    moved = torch.from_numpy(mu).clone().requires_grad_()
    adam = torch.optim.Adam([moved], lr=settings.learning_rate)
    with torch.enable_grad():
        for step in range(settings.updates):
            adam.param_groups[0]["lr"] = settings.learning_rate * settings.factor(step)
            adam.zero_grad()
            log_ratio = log_density(drawn, moved.sigmoid(), new_sigma) - before
            (-objective(log_ratio, advantage, settings.clip)).backward()
            adam.step()
    return moved.detach().numpy()


def objective(log_ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """PPO's objective, clipped in every dimension before the dimensions are multiplied.

    Args:
        log_ratio: new minus old log density; shape (samples, n).
        advantage: shape (samples,).

    Returns:
        A scalar: the mean over the samples.
    """
    clipped = log_ratio.clamp(math.log(1 - clip), math.log(1 + clip))
    ratios = (each.sum(dim=-1).exp() for each in (log_ratio, clipped))
    plain, held = (ratio * advantage for ratio in ratios)
    return torch.minimum(plain, held).mean()
