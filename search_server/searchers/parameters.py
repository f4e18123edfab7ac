"""What a parameterized AP loss is searched by: numbers in [0, 1], and the loss they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from losses import LossDefinition
from losses.ranking.functions import FUNCTIONS, PapFunctions, gradient_scale, identity_theta
from losses.ranking_branch import RankingBranch
from search_server.searchers.truncated_normal import Vector


@dataclass(frozen=True)
class PapSpace:
    """What is searched of one branch's parameterized AP loss; the rest is fixed.

    Attributes:
        functions: those of `FUNCTIONS` that are searched; the others are the identity.
        points: inner control points of every function, two parameters each.
        scale: whether the gradient scale of the boxes is searched, by one parameter more; else 1.
        overlap, num_topk, loss_weight: as in `RankingBranch`.
    """

    functions: tuple[str, ...] = FUNCTIONS
    points: int = 4
    scale: bool = True
    overlap: str = "giou"
    num_topk: int = 100_000
    loss_weight: float | None = None

    @property
    def size(self) -> int:
        """Number of parameters."""
        return len(self.functions) * 2 * self.points + self.scale

    def start(self) -> Vector:
        """The parameters of the identity functions and of gradient scale 1."""
        own = identity_theta(self.points)[: 2 * self.points]
        return np.array([*own * len(self.functions), *[0.5] * self.scale])

    def branch(self, theta: Sequence[float]) -> RankingBranch:
        """The loss of `size` parameters in [0, 1]: the functions in the order of `FUNCTIONS`,
        `x_1, y_1, x_2, y_2, ...` of each, then the gradient scale."""
        numbers, count = [float(value) for value in theta], 2 * self.points
        assert len(numbers) == self.size
        whole = list(identity_theta(self.points))
        searched = [name for name in FUNCTIONS if name in self.functions]
        for position, name in enumerate(searched):
            place = FUNCTIONS.index(name) * count
            whole[place : place + count] = numbers[position * count : (position + 1) * count]
        given = PapFunctions.from_theta(whole, self.points).points
        # the identity by its parameters is the identity only up to rounding
        fixed = PapFunctions.identity(self.points).points
        return RankingBranch(
            "pap",
            loss_weight=self.loss_weight,
            functions=PapFunctions(
                {name: (given if name in searched else fixed)[name] for name in FUNCTIONS}
            ),
            overlap=self.overlap,
            num_topk=self.num_topk,
            box_gradient_scale=gradient_scale(numbers[-1]) if self.scale else 1.0,
        )


@dataclass(frozen=True)
class Parameters:
    """The parameterized branches of a search, `cls` first, and `rpn` where it is searched too."""

    branches: Mapping[str, PapSpace]

    @property
    def size(self) -> int:
        """Number of parameters of all branches: 41 for a dense head, 82 for two stages."""
        return sum(space.size for space in self.branches.values())

    def start(self) -> Vector:
        """The parameters that a search begins with; see `PapSpace.start`."""
        return np.concatenate([space.start() for space in self.branches.values()])

    def definition(self, theta: Vector, name: str) -> LossDefinition:
        """The loss that parameters stand for.

        Args:
            theta: shape (size,), each in [0, 1]: one branch after the other.
            name: of the definition.
        """
        found, first = LossDefinition(name), 0
        for branch, space in self.branches.items():
            own = theta[first : first + space.size]
            found = found.with_branch(branch, space.branch(own.tolist()))
            first += space.size
        return found
