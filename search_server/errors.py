"""The errors of the search server: one base class, and children that carry what went wrong."""

from __future__ import annotations


class SearchError(Exception):
    """Base of all errors of this package; its text says what is wrong and what to do about it."""


class SpecError(SearchError):
    """A job spec that cannot be used.

    Attributes:
        file: the spec's file, or a name for where it came from.
        field: dotted path of the field, `funnel.proxy.steps`; empty for the file as a whole.
        value: the offending value as it was read.
        allowed: what would be allowed there, as a sentence for people.
    """

    def __init__(self, file: object, field: str, value: object, allowed: str) -> None:
        self.file = str(file)
        self.field = field
        self.value = value
        self.allowed = allowed
        if field:
            found = f"{self.file}: {field}: {_shown(value)} is not allowed here"
        else:
            found = f"{self.file}: {value if isinstance(value, str) else _shown(value)}"
        super().__init__(f"{found}; {allowed}")


class StoreError(SearchError):
    """The store cannot be opened, read or written."""


class StoreAway(StoreError):  # noqa: N818 - a state, which may pass
    """The store does not answer for the moment. Nothing of the transaction was written."""


class SchemaError(StoreError):
    """The store's schema is not the one that this version reads.

    Attributes:
        found: the revision found, None where there is none.
        wanted: the revision that this version reads.
    """

    def __init__(self, message: str, found: str | None, wanted: str) -> None:
        self.found = found
        self.wanted = wanted
        super().__init__(message)


class IllegalMove(StoreError):  # noqa: N818 - "illegal move" is what it is called
    """A change of state that the table of legal moves does not have.

    Attributes:
        what: the thing that was to move, `job digits-1`.
        old: its state before.
        new: the state asked for.
    """

    def __init__(self, what: str, old: str, new: str, allowed: tuple[str, ...]) -> None:
        self.what = what
        self.old = old
        self.new = new
        moves = f"can become {', '.join(allowed)}" if allowed else "is final"
        super().__init__(f"{what} is {old} and cannot become {new}; {old} {moves}")


class JobError(SearchError):
    """A job that does not exist, or cannot do what was asked of it."""


class TakenOver(JobError):  # noqa: N818 - an event
    """Another process runs the job now, so this one must write no more of it."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"job {job_id} was taken over by another process, which goes on with it; this one has "
            "stopped and has written nothing since"
        )


class ClusterGone(JobError):  # noqa: N818 - a state
    """The Ray that ran the trials of a job is not there any more. Nothing is known of those that
    were under way, so nothing is written of them.

    Attributes:
        why: what tells that it is gone, a clause.
    """

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(
            f"Ray is gone: {why}. What was finished is kept; once there is a Ray again, "
            "`lossforge resume JOB` goes on with the rest"
        )


class CalibrationError(JobError):
    """The baseline of a job cannot be run, so its losses cannot be matched to it."""


class ServiceError(SearchError):
    """The service cannot be started or asked as was wanted."""


class ExportError(SearchError):
    """A candidate that cannot be exported, or an export that does not build."""


def _shown(value: object, limit: int = 200) -> str:
    """`repr` of an untrusted value, cut to a length that fits a message."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
