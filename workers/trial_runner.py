"""mmengine's Runner as a trial uses it."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config
from mmengine.runner import BaseLoop, Runner

from workers.assignments import keep_assignments
from workers.hooks import ScoreKeeper
from workers.pausing import Resumption
from workers.trial_loop import TrialLoop


class _UnformattedConfig(Config):
    """A config that is not formatted as text, a quarter of a second, for a message nobody reads."""

    @property
    def pretty_text(self) -> str:
        """Nothing."""
        return ""


class TrialRunner(Runner):
    """mmengine's Runner without its paper work, with a loop that measures at rungs and pauses.

    Collecting the environment and formatting the config take a second or more per run, and nobody
    reads what they write; neither touches the training.

    Attributes:
        rungs, pause_after, keeper, resumption: of `TrialLoop`; to be set before `train`.
    """

    rungs: tuple[int, ...] = ()
    pause_after: int | None = None
    keeper: ScoreKeeper
    resumption: Resumption | None = None

    def __init__(self, *parts: Any, cfg: Config, **others: Any) -> None:
        super().__init__(*parts, cfg=_UnformattedConfig(cfg.to_dict()), **others)
        keep_assignments(self.model)

    def train(self) -> Any:
        """Trains; data-loading processes have ended when it returns."""
        try:
            return super().train()
        finally:
            self._end_loading()

    def _end_loading(self) -> None:
        """Ends the loaders' processes in the order that torch means for it.

        Left to the garbage collector, which may take their queues first, they would not hear that
        they are to end, and torch would wait 5 s for each.
        """
        iterators = []
        if isinstance(self._train_loop, TrialLoop):
            iterators.append(self._train_loop.dataloader_iterator._iterator)
        if isinstance(self._val_loop, BaseLoop):
            iterators.append(getattr(self._val_loop.dataloader, "_iterator", None))
        for iterator in iterators:
            if hasattr(iterator, "_shutdown_workers"):
                iterator._shutdown_workers()

    def build_train_loop(self, loop: Any) -> TrialLoop:
        """The loop that the config of a trial asks for (`build_config`), as a `TrialLoop`."""
        if isinstance(loop, TrialLoop):
            return loop
        return TrialLoop(
            rungs=self.rungs,
            pause_after=self.pause_after,
            keeper=self.keeper,
            resumption=self.resumption,
            runner=self,
            dataloader=self._train_dataloader,
            **{name: value for name, value in loop.items() if name != "type"},
        )

    def load_or_resume(self) -> None:
        """Loads the weights that the config names, then those of the training that goes on."""
        super().load_or_resume()
        if self.resumption is not None:
            self._resume = True  # hooks look at it
            self.resumption.restore(self)
            self._resume = False

    def _log_env(self, env_cfg: dict[str, Any]) -> None:
        pass

    def dump_config(self) -> None:
        """Writes nothing."""
