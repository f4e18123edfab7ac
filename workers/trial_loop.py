"""The training loop of a trial: mmengine's own, which measures at rungs without steering."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from mmengine.runner import IterBasedTrainLoop

from workers.generators import kept_generators
from workers.hooks import ScoreKeeper


class TrialLoop(IterBasedTrainLoop):
    """mmengine's loop, with evaluations at rungs.

    An evaluation at a rung leaves the training as it was: the generators (a data loader that
    starts draws from torch's) and the wish of a hook to stop early are put back.

    Args:
        rungs: steps after which to evaluate, besides the last.
        keeper: what keeps the scores; a hook of the same runner.
        settings: of `IterBasedTrainLoop`.
    """

    def __init__(self, *, rungs: Collection[int], keeper: ScoreKeeper, **settings: Any) -> None:
        super().__init__(**settings)
        self._rungs = frozenset(rungs)
        self._keeper = keeper

    def run_iter(self, data_batch: Any) -> None:
        """One step, and the evaluation when it is a rung."""
        super().run_iter(data_batch)
        if self._iter in self._rungs:
            self._measure()

    def _measure(self) -> None:
        stopping = self.stop_training
        with kept_generators():
            self.runner.val_loop.run()
        self.stop_training = stopping
        self._keeper.keep_rung(self._iter)
