"""Threads that read a store take turns: all of them at once take longer than a few at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

# SQLite lets go of the interpreter at every row, and threads that read at once hand it to each
# other all the time. PostgreSQL works by itself meanwhile.
AT_ONCE = {"sqlite": 1, "postgresql": 4}


class Turns:
    """Lets so many threads in at once; a thread that is in may enter again."""

    def __init__(self, most: int) -> None:
        self._room = threading.BoundedSemaphore(most)
        self._own = threading.local()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """The block waits for its turn."""
        if getattr(self._own, "inside", False):
            yield
            return
        with self._room:
            self._own.inside = True
            try:
                yield
            finally:
                self._own.inside = False
