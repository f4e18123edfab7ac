"""What people call a candidate: `JOB:INDEX`, or `INDEX` where the job is known."""

from __future__ import annotations

from search_server.errors import JobError

MOST_DIGITS = 100


def index_named(text: str) -> int | None:
    """The index that a text of digits is, however large; None: it is none."""
    if text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS:
        return int(text)
    return None


def split_name(text: str, job: str | None = None) -> tuple[str | None, int]:
    """Job and index of `JOB:INDEX`, or of `INDEX` and the job; whether there is one, the store
    knows.

    Args:
        job: of which it has to be, or is; None: any, or the newest.

    Raises:
        JobError: it names another job, or the index is no number.
    """
    named, colon, digits = text.rpartition(":")
    if colon and job is not None and named != job:
        raise JobError(f"{text} names another job than --job {job}; give one of the two")
    index = index_named(digits)
    if index is None:
        raise JobError(f"{text[:200]!r} is no candidate; give JOB:INDEX, or INDEX with --job JOB")
    return (named if colon else job), index
