"""What a searcher is asked, what it sees, and what it proposes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.random import Generator

from losses import ExpressionBranch, LossDefinition, space_role
from primitives import Expression, PrimitivesError, SearchSpace, grow, parse
from search_server.searchers.handmade import Handmade
from search_server.searchers.parameters import Parameters
from search_server.spec import Searcher as SearcherSpec

Draw = Callable[[Generator], Expression]
UNBORN = -1  # index of a named loss that stands in as a parent without being a candidate


@dataclass(frozen=True)
class Problem:
    """What is searched: the same for every searcher, and for the whole of a job.

    Attributes:
        spaces: search space by searched branch, `cls` first.
        template: the loss definition whose searched branches are to be filled.
        weights: by searched branch, the `loss_weight` of the spec; None: the head's default.
        alpha: class balance of sigmoid losses; None: no weighting.
        named: loss definitions that open the first generation.
        alternate: one branch a generation, in turn, instead of all at once.
        window: W of `Searcher.sees`.
        seed: of the job.
        parameters: what a policy search searches; `spaces` is empty then.
        handmade: what a tuning searches; `spaces` is empty then.
        inherit: whether the offspring keep the weight and the alpha of their parent's branch,
            instead of those above.
        total: how many candidates the job makes, the baseline not counted; None: unknown.
        pool: by searched branch, the only expressions there are: whatever is drawn is one of them.
            So a searcher can be replayed on a table of losses that were trained before.
    """

    spaces: Mapping[str, SearchSpace]
    template: LossDefinition
    weights: Mapping[str, float | None]
    alpha: float | None = None
    named: tuple[LossDefinition, ...] = ()
    alternate: bool = False
    window: int = 16
    seed: int = 0
    parameters: Parameters | None = None
    handmade: Handmade | None = None
    inherit: bool = False
    total: int | None = None
    pool: Mapping[str, tuple[Expression, ...]] | None = None

    def expression(self, definition: LossDefinition, branch: str) -> Expression | None:
        """A definition's expression of a branch, in the branch's space; None if it has none."""
        found = definition.expressions.get(branch)
        if found is None:
            return None
        try:
            return parse(str(found), self.spaces[branch])
        except PrimitivesError:
            return None

    def expressions(self, definition: LossDefinition) -> dict[str, Expression]:
        """A definition's expressions in the searched branches, in the branches' spaces."""
        found = {branch: self.expression(definition, branch) for branch in self.spaces}
        return {branch: value for branch, value in found.items() if value is not None}

    def filled(
        self, start: LossDefinition, expressions: Mapping[str, Expression], name: str
    ) -> LossDefinition:
        """`start` with the given expressions, weighted as the spec says or as what they replace."""
        for branch, expression in expressions.items():
            role = space_role(expression.space)
            alpha = self.alpha if role == "binary_cls" else None
            weight, replaced = self.weights[branch], start.branch(branch)
            if self.inherit and isinstance(replaced, ExpressionBranch):
                weight, alpha = replaced.loss_weight, replaced.alpha
            start = start.with_branch(branch, ExpressionBranch(expression, weight, alpha))
        if self.handmade is None:
            start = replace(start, iou_centerness=self.template.iou_centerness)
        return replace(start, name=name)


@dataclass(frozen=True)
class Observation:
    """A candidate whose fate is known.

    Attributes:
        expressions: its expressions in the searched branches and spaces.
        fitness: AP in [0, 1]; 0 where the training diverged; None where there was none.
        score: AP of the simulation, in [0, 1]; None where there was none.
        rungs: by training step, the mean AP over the seeds at every rung that was reached. A
            candidate that was stopped at a rung has no fitness.
        spent: share of the job's budget of training steps that was spent on the candidates up to
            this one; None where there is no such budget.
    """

    index: int
    definition: LossDefinition
    expressions: Mapping[str, Expression]
    fitness: float | None
    score: float | None
    rungs: Mapping[int, float] = field(default_factory=dict, hash=False)
    spent: float | None = None

    @property
    def size(self) -> int:
        """Nodes of all its expressions."""
        return sum(expression.size for expression in self.definition.expressions.values())

    @property
    def branches(self) -> tuple[str, ...]:
        """The searched branches in which it has an expression."""
        return tuple(self.expressions)


class Parent(Protocol):
    """A candidate that others can be made from; what is what, `Observation` says."""

    @property
    def index(self) -> int: ...
    @property
    def definition(self) -> LossDefinition: ...
    @property
    def expressions(self) -> Mapping[str, Expression]: ...
    @property
    def fitness(self) -> float | None: ...
    @property
    def score(self) -> float | None: ...
    @property
    def rungs(self) -> Mapping[int, float]: ...
    @property
    def size(self) -> int: ...
    @property
    def branches(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Proposal:
    """One way to make a candidate; it can be drawn from again and again.

    Attributes:
        origin: named, random, mutation, crossover, refined, policy, mean or tuned.
        parents: indices of the candidates it is made from.
        start: the definition whose branches in `draws` are replaced.
        draws: by branch, gives a new expression at every call; empty where `start` is the
            candidate itself, which is then not verified.
        limit: at most so many draws, 1 where they are not random; None: as many as the spec allows.
    """

    origin: str
    parents: tuple[int, ...]
    start: LossDefinition
    draws: Mapping[str, Draw] = field(hash=False)
    limit: int | None = None


class Searcher(ABC):
    """Proposes candidates and learns from their results.

    **Contract.** Before `ask(k)`, `tell` was called with the results of candidates 0 .. `sees(k)`,
    each once, in that order, and with no other. What `ask` proposes is a function of these, of the
    index and of `rng`; nothing else may enter (no clock, no global generator). A resumed search
    tells a new searcher all of them again, in the same order, so it goes on as if nothing had
    happened.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def sees(self, index: int) -> int:
        """The last candidate whose result `ask(index)` depends on, below `index`; negative: it
        depends on none. Never falls as `index` rises."""
        return index - self.problem.window

    @abstractmethod
    def ask(self, index: int, rng: Generator) -> Iterator[Proposal]:
        """Ways to make candidate `index` (>= 1), the preferred first; later ones are resorts.

        `rng` is the candidate's own generator; the draws of a proposal continue it.
        """

    @abstractmethod
    def tell(self, observation: Observation) -> None:
        """The result of the next candidate."""


class TreeSearcher(Searcher):
    """What the searchers of expressions have in common: generations, named losses and growth."""

    def __init__(self, settings: SearcherSpec, problem: Problem) -> None:
        super().__init__(problem)
        self.settings = settings

    def active(self, index: int) -> tuple[str, ...]:
        """The branches that candidate `index` searches."""
        branches = tuple(self.problem.spaces)
        if not self.problem.alternate:
            return branches
        return (branches[self.generation(index) % len(branches)],)

    def generation(self, index: int) -> int:
        """0 for the first `population` candidates, and so on."""
        return (index - 1) // self.settings.population

    def named(self, index: int) -> Iterator[Proposal]:
        """The named loss that candidate `index` is to be, if there is one."""
        if index <= len(self.problem.named):
            chosen = self.problem.named[index - 1]
            found = self.problem.expressions(chosen)
            draws = {branch: always(expression) for branch, expression in found.items()}
            yield Proposal("named", (), chosen, draws, limit=1)

    def random(self, index: int, others: Parent | None) -> Iterator[Proposal]:
        """Random growth of every active branch, or, as a resort, of one of them.

        The branches that are not grown are those of `others`, or else the template's. Measured: of
        grown box losses one in 1,000 is verified, of classification losses one in 10,000, at some
        7,000 draws a second. So growing all branches is affordable, and the resort takes the box
        branch first.
        """
        active = self.active(index)
        subsets = [active] if len(active) == 1 else [active, *((b,) for b in reversed(active))]
        for branches in subsets:
            draws = {branch: self._growth(branch) for branch in branches}
            if len(branches) == len(self.problem.spaces) or others is None:
                yield Proposal("random", (), self.problem.template, draws)
            else:
                yield Proposal("random", indices(others), others.definition, draws)

    def _growth(self, branch: str) -> Draw:
        space, depth = self.problem.spaces[branch], self.settings.depth
        if self.problem.pool is not None:
            members = self.problem.pool[branch]
            return lambda rng: members[int(rng.integers(len(members)))]
        return lambda rng: grow(space, rng, min_depth=depth.min, max_depth=depth.max)


def generator(seed: int, index: int) -> Generator:
    """The generator of candidate `index`: its own, so that it depends on nothing drawn before."""
    return np.random.default_rng([seed, index])


def always(expression: Expression) -> Draw:
    """A draw that gives the same expression every time."""
    return lambda rng: expression


def indices(*parents: Parent) -> tuple[int, ...]:
    """The candidates among the parents, each once."""
    found = dict.fromkeys(parent.index for parent in parents)
    return tuple(index for index in found if index != UNBORN)
