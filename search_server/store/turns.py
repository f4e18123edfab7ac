"""Threads that read a store: a few at a time, for all of them at once take longer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from search_server.errors import StoreAway

# SQLite lets go of the interpreter at every row, and threads that read at once hand it to each
# other all the time. PostgreSQL works by itself meanwhile.
AT_ONCE = {"sqlite": 1, "postgresql": 4}
LONGEST = 30.0  # seconds; then those who are in wait for a database that does not answer


class Turns:
    """Lets so many threads in at once, in no order; a thread that is in may enter again.

    Args:
        longest: seconds that a thread waits.
    """

    def __init__(self, most: int, longest: float = LONGEST) -> None:
        self._room = threading.BoundedSemaphore(most)
        self._longest = longest
        self._own = threading.local()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """The block waits until there is room.

        Raises:
            StoreAway: there was none for too long.
        """
        if getattr(self._own, "inside", False):
            yield
            return
        if not self._room.acquire(timeout=self._longest):
            raise StoreAway(
                f"the store has not answered those who asked before for {self._longest:g} s"
            )
        self._own.inside = True
        try:
            yield
        finally:
            self._own.inside = False
            self._room.release()
