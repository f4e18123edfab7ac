"""Random search: every candidate after the named ones is grown at random."""

from __future__ import annotations

from collections.abc import Iterator

from numpy.random import Generator

from search_server.searchers.base import Observation, Proposal, TreeSearcher


class RandomSearcher(TreeSearcher):
    """The searcher to beat: it learns nothing, whatever it sees."""

    def tell(self, observation: Observation) -> None:
        """Learns nothing."""

    def ask(self, index: int, rng: Generator) -> Iterator[Proposal]:
        """The named losses first, then random growth."""
        yield from self.named(index)
        yield from self.random(index, None)
