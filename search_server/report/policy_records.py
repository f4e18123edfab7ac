"""A policy search for its report: rewards by round, the policy's mean after each, what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from losses import LossDefinition, LossesError, PapFunctions, RankingBranch
from search_server.rounds import Rounds
from search_server.seed_statistics import Spread, by_seed, paired_difference, spread

if TYPE_CHECKING:
    from search_server.store import CandidateRecord, JobRecord, TrialRecord

BRANCHES = ("cls", "rpn")


@dataclass(frozen=True)
class Sample:
    """One sampled candidate that has its reward.

    Attributes:
        round: from 1.
        fitness: AP in [0, 1].
        branches: its parameterized AP losses by branch.
    """

    index: int
    round: int
    fitness: float
    branches: Mapping[str, RankingBranch]


@dataclass(frozen=True)
class PolicySearch:
    """What the panels of a policy search draw.

    Attributes:
        samples: in the order of their indices.
        means: the policy's mean by round, 0 before the first one, as losses by branch; only the
            rounds that are complete.
        mean: the final mean, trained; None before it is.
        mean_spread, mean_difference: of the final mean, over its seeds, and minus the baseline.
    """

    rounds: Rounds
    samples: tuple[Sample, ...]
    means: tuple[Mapping[str, RankingBranch], ...]
    mean: CandidateRecord | None
    mean_spread: Spread
    mean_difference: Spread | None

    @property
    def by_round(self) -> dict[int, list[Sample]]:
        """The samples of each round that has any."""
        found: dict[int, list[Sample]] = {}
        for sample in self.samples:
            found.setdefault(sample.round, []).append(sample)
        return found

    @property
    def round_means(self) -> dict[int, float]:
        """Mean fitness of the rounds that have a trained candidate."""
        return {number: fmean(s.fitness for s in own) for number, own in self.by_round.items()}

    @property
    def complete(self) -> int:
        """The last round after which the policy was moved; 0 before the first."""
        return max(0, len(self.means) - 1)

    @property
    def found(self) -> Mapping[str, RankingBranch]:
        """What the search says now: the policy's newest mean; empty where it cannot be told."""
        if self.mean is not None:
            return ranking_branches(self.mean)
        return self.means[-1] if self.means else {}

    def newest_functions(self, branch: str) -> list[PapFunctions]:
        """The functions of the newest round's samples."""
        own = self.by_round.get(max(self.by_round, default=0), [])
        found = [sample.branches[branch].functions for sample in own if branch in sample.branches]
        return [functions for functions in found if functions is not None]


def policy_search(
    job: JobRecord,
    candidates: Sequence[CandidateRecord],
    trials: Sequence[TrialRecord],
    baseline: Mapping[int, float],
) -> PolicySearch | None:
    """A policy search from its rows, in whatever state it is; None for another search.

    Args:
        baseline: fitness of the baseline by seed.
    """
    rounds = Rounds.of_spec(job.spec)
    if rounds is None:
        return None
    trained = [c for c in candidates if c.state == "done" and c.fitness is not None]
    mean = next((c for c in trained if c.origin == "mean"), None)
    values = by_seed(trials, mean.index) if mean else {}
    samples = [
        Sample(c.index, number, c.fitness or 0.0, ranking_branches(c))
        for c in sorted(trained, key=lambda c: c.index)
        if (number := rounds.round(c.index)) is not None
    ]
    return PolicySearch(
        rounds=rounds,
        samples=tuple(samples),
        means=tuple(_means(job, candidates, rounds)),
        mean=mean,
        mean_spread=spread(values),
        mean_difference=paired_difference(values, baseline) if mean and baseline else None,
    )


def ranking_branches(candidate: CandidateRecord) -> dict[str, RankingBranch]:
    """A candidate's ranking losses by branch; none of a definition that cannot be read."""
    try:
        definition = LossDefinition.from_json(candidate.definition)
    except LossesError:
        return {}
    found = {branch: definition.branch(branch) for branch in BRANCHES}
    return {name: given for name, given in found.items() if isinstance(given, RankingBranch)}


def _means(
    job: JobRecord, candidates: Sequence[CandidateRecord], rounds: Rounds
) -> list[Mapping[str, RankingBranch]]:
    """The policy's means: a new searcher is told the results again, as when a job goes on."""
    from search_server.candidates import observation
    from search_server.errors import SearchError
    from search_server.problem import problem_of
    from search_server.searchers import PolicySearcher, make_searcher
    from search_server.spec import JobSpec

    try:
        spec = JobSpec.from_json(job.spec)
        problem = problem_of(spec)
        searcher = make_searcher(spec.searcher, problem)
    except (LossesError, SearchError, ValueError):
        return []  # a later version's spec: the rest of the report stands without it
    parameters = problem.parameters
    if not isinstance(searcher, PolicySearcher) or parameters is None:
        return []

    def mean() -> dict[str, RankingBranch]:
        definition = parameters.definition(searcher.mean, "mean")
        branches = {name: definition.branch(name) for name in parameters.branches}
        return {name: own for name, own in branches.items() if isinstance(own, RankingBranch)}

    means: list[Mapping[str, RankingBranch]] = [mean()]
    known = {candidate.index: candidate for candidate in candidates}
    for index in range(1, rounds.last + 1):
        candidate = known.get(index)
        if candidate is None or candidate.state == "open":
            break
        searcher.tell(observation(candidate, problem))
        if index % rounds.samples == 0:
            means.append(mean())
    return means
