"""The searchers: who proposes candidates, all behind one `ask`."""

from __future__ import annotations

from search_server.searchers.base import Observation, Problem, Proposal, Searcher
from search_server.searchers.evolution import EvolutionSearcher
from search_server.searchers.random import RandomSearcher
from search_server.spec import Searcher as SearcherSpec

__all__ = [
    "EvolutionSearcher",
    "Observation",
    "Problem",
    "Proposal",
    "RandomSearcher",
    "Searcher",
    "make_searcher",
]


def make_searcher(settings: SearcherSpec, problem: Problem) -> Searcher:
    """The searcher that a job spec names."""
    kinds = {"evolution": EvolutionSearcher, "random": RandomSearcher}
    return kinds[settings.type](settings, problem)
