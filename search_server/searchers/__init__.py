"""The searchers: who proposes candidates, all behind one `ask`."""

from __future__ import annotations

from search_server.searchers.base import (
    Observation,
    Problem,
    Proposal,
    Searcher,
    generator,
)
from search_server.searchers.evolution import EvolutionSearcher
from search_server.searchers.handmade import Handmade, HandmadeBranch
from search_server.searchers.parameters import PapSpace, Parameters
from search_server.searchers.policy import PolicySearcher
from search_server.searchers.random import RandomSearcher
from search_server.searchers.tuning import TuningSearcher
from search_server.spec import PolicySearcher as PolicySettings
from search_server.spec import Searcher as TreeSettings
from search_server.spec import TuningSearcher as TuningSettings

__all__ = [
    "EvolutionSearcher",
    "Handmade",
    "HandmadeBranch",
    "Observation",
    "PapSpace",
    "Parameters",
    "PolicySearcher",
    "Problem",
    "Proposal",
    "RandomSearcher",
    "Searcher",
    "TuningSearcher",
    "generator",
    "make_searcher",
]


def make_searcher(
    settings: TreeSettings | PolicySettings | TuningSettings, problem: Problem
) -> Searcher:
    """The searcher that a job spec names."""
    if isinstance(settings, TuningSettings):
        return TuningSearcher(settings, problem)
    if isinstance(settings, PolicySettings):
        return PolicySearcher(settings, problem)
    kinds = {"evolution": EvolutionSearcher, "random": RandomSearcher}
    return kinds[settings.type](settings, problem)
