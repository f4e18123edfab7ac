"""What the controller asks of whatever runs its trials."""

from __future__ import annotations

from typing import Protocol

from search_server.funnel.stages import TrialKey
from workers import TrialResult, TrialSpec


class Executor(Protocol):
    """Runs trials, many at a time.

    A trial that is paused has come back and holds nothing: it is submitted again to go on.

    **Contract.** Every submitted trial comes back from `wait` once, in order of completion, unless
    it was cancelled; what goes wrong with one is a `TrialResult` of status `failed`. All methods
    are called from one thread.
    """

    def submit(self, key: TrialKey, spec: TrialSpec) -> None:
        """Hand out a trial; returns at once."""
        ...

    def wait(self, timeout: float) -> list[tuple[TrialKey, TrialResult]]:
        """Trials that ended since the last call; waits at most `timeout` seconds for the first."""
        ...

    def slots(self) -> int:
        """How many trials can run at once, at least 1; may change while a job runs."""
        ...

    def lacks(self) -> str:
        """What has to come before any trial can run, for people; empty while there is room."""
        ...

    def cancel_all(self) -> None:
        """End all trials, those that run included; none of them comes back."""
        ...

    def close(self) -> None:
        """Cancel all, and give back processes and connections."""
        ...
