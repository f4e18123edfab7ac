"""What can go wrong around a trial; every error of this package is a WorkersError."""

from __future__ import annotations


class WorkersError(Exception):
    """Base class of this package's errors."""


class TrialSpecError(WorkersError):
    """A trial spec with an impossible value.

    Attributes:
        field: name of the field of `TrialSpec`.
        value: what was given.
    """

    def __init__(self, field: str, value: object, allowed: str) -> None:
        self.field, self.value = field, value
        super().__init__(f"trial spec: {field} = {value!r}; allowed: {allowed}")


class DetectorError(WorkersError):
    """A file, or a config text, from which no detector can be trained.

    Attributes:
        source: the file, or what stands for it.
        problem: what is wrong with it, and what to do.
    """

    def __init__(self, source: str, problem: str) -> None:
        self.source, self.problem = source, problem
        super().__init__(f"{source}: {problem}")


class TrialCancelled(WorkersError):  # noqa: N818 - an event, as asyncio.CancelledError
    """`TrialWorker.cancel` or `.close` ended the trial; there is no result."""
