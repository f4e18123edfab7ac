"""The training loop of a trial: mmengine's own, which measures at rungs, pauses and goes on."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from mmengine.runner import IterBasedTrainLoop

from workers.generators import kept_generators
from workers.hooks import ScoreKeeper
from workers.memory import memory_of
from workers.pausing import Resumption


class Paused(Exception):  # noqa: N818 - an event
    """The training has come to the rung where it is to pause."""


class BatchLog:
    """Remembers which samples a data set was asked for, and can answer with nothing instead.

    For loaders without data-loading processes: those have data sets of their own.

    Args:
        dataset: of a `torch.utils.data.DataLoader`.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._fetch = getattr(dataset, "__getitems__", None) or self._one_by_one
        self._digest = hashlib.sha256()
        self._skipping = False

    @property
    def digest(self) -> str:
        """Of all indices so far, in their order."""
        return self._digest.hexdigest()

    def _one_by_one(self, indices: Sequence[Any]) -> list[Any]:
        return [self._dataset[index] for index in indices]

    def __call__(self, indices: Sequence[Any]) -> Any:
        """What the data set has at `indices`."""
        self._digest.update(repr(indices).encode())
        return indices if self._skipping else self._fetch(indices)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Stands in front of the data set, as torch's protocol for batches has it."""
        self._dataset.__getitems__ = self
        try:
            yield
        finally:
            del self._dataset.__getitems__

    @contextlib.contextmanager
    def skipping(self) -> Iterator[None]:
        """Inside, a batch is its indices: nothing is read, and nothing drawn for augmentation."""
        self._skipping = True
        try:
            yield
        finally:
            self._skipping = False


class TrialLoop(IterBasedTrainLoop):
    """mmengine's loop, with evaluations at rungs and pauses.

    An evaluation at a rung leaves the training as it was: the generators (a data loader that
    starts draws from torch's) and the wish of a hook to stop early are put back.

    A training that goes on finds its place in the data by going through the batches of the steps
    before. Without data-loading processes only the indices are drawn, and checked to be those of
    the training that paused; then the generators are set. With data-loading processes, which draw
    augmentations from generators of their own, the batches are loaded again, so that these
    generators too come where they were; that costs the loading, not the training.

    Args:
        rungs: steps after which to evaluate, besides the last.
        pause_after: the rung to pause at; None: none.
        keeper: what keeps the scores; a hook of the same runner.
        resumption: where to go on; None: at the start.
        settings: of `IterBasedTrainLoop`.

    Raises:
        Paused: by `run`, at the pause.
        UnusableCheckpoint: by `run`, when the batches are not those of the training that paused.
    """

    def __init__(
        self,
        *,
        rungs: Collection[int],
        pause_after: int | None,
        keeper: ScoreKeeper,
        resumption: Resumption | None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.stop_training: bool = False
        self._rungs = frozenset(rungs)
        self._pause_after = pause_after
        self._keeper = keeper
        self._resumption = resumption
        self.batches = BatchLog(self.dataloader.dataset)
        self.memory: Mapping[str, Any] = {}
        if resumption is not None:
            self._iter = resumption.step

    def run(self) -> Any:
        """Trains to the end, or to the pause; the model."""
        self.runner.call_hook("before_train")
        self.runner.call_hook("before_train_epoch")
        self.memory = memory_of(self.runner)
        alone = self.dataloader.num_workers == 0
        with self.batches.listening() if alone else contextlib.nullcontext():
            if self._resumption is not None:
                self._go_there(self._resumption, alone)
            while self._iter < self._max_iters and not self.stop_training:
                if self._iter == self._pause_after:
                    raise Paused
                self.runner.model.train()
                self.run_iter(next(self.dataloader_iterator))
                if self._iter in self._rungs:
                    self._measure()
                elif self._iter == self._max_iters and self.runner.val_loop is not None:
                    self.runner.val_loop.run()
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model

    def _measure(self) -> None:
        stopping = self.stop_training
        with kept_generators():
            self.runner.val_loop.run()
        self.stop_training = stopping
        self._keeper.keep_rung(self._iter)

    def _go_there(self, resumption: Resumption, alone: bool) -> None:
        with resumption.usable():
            with self.batches.skipping() if alone else contextlib.nullcontext():
                for _ in range(resumption.step):
                    next(self.dataloader_iterator)
            resumption.set_generators(self.batches.digest)
