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
from search_server.searchers.parameters import PapSpace, Parameters
from search_server.searchers.policy import PolicySearcher
from search_server.searchers.random import RandomSearcher
from search_server.spec import PolicySearcher as PolicySettings
from search_server.spec import Searcher as TreeSettings

__all__ = [
    "EvolutionSearcher",
    "Observation",
    "PapSpace",
    "Parameters",
    "PolicySearcher",
    "Problem",
    "Proposal",
    "RandomSearcher",
    "Searcher",
    "generator",
    "make_searcher",
]


def make_searcher(settings: TreeSettings | PolicySettings, problem: Problem) -> Searcher:
    """The searcher that a job spec names."""
    if isinstance(settings, PolicySettings):
        return PolicySearcher(settings, problem)
    kinds = {"evolution": EvolutionSearcher, "random": RandomSearcher}
    return kinds[settings.type](settings, problem)
