"""mmengine's Runner as a trial uses it."""

from __future__ import annotations

from typing import Any

from mmengine.runner import Runner

from workers.hooks import ScoreKeeper
from workers.pausing import Resumption
from workers.trial_loop import TrialLoop


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
