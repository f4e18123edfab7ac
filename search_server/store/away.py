"""A database that does not answer for the moment: which errors say so, and how long to wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

# What PostgreSQL says when the transaction is gone but may be repeated: connections that broke or
# were refused, a server that goes down or comes up, a deadlock, a transaction that was idle.
_PASSING = ("08", "40", "57P01", "57P02", "57P03", "53300", "25P03")
_LASTING = ("authentication failed", "does not exist", "no password", "no pg_hba.conf entry")
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0


@dataclass(frozen=True)
class Patience:
    """How a store that does not answer is waited for.

    Attributes:
        seconds: from the first question without an answer.
        stop: when set, nobody waits any longer.
        say: called at every further try, with what is waited for, for people.
    """

    seconds: float
    stop: threading.Event
    say: Callable[[str], None]


def is_away(error: SQLAlchemyError) -> bool:
    """Whether the same transaction may well succeed later. None of it was written, unless it was
    the answer to its commit that was lost."""
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    text = str(error.orig).lower()
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return str(state).startswith(_PASSING)
    if not isinstance(error, OperationalError):
        return False
    if type(error.orig).__module__.startswith("sqlite3"):
        return "locked" in text or "busy" in text
    return not any(words in text for words in _LASTING)


def pause(tries: int) -> float:
    """Seconds until the next try, after so many."""
    return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(tries, 10)))
