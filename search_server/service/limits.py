"""How often and how much: requests a minute of one caller, the size of a body, open streams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from search_server.service.problems import Problem
from search_server.service.settings import Bounds

MANY = 20


class Limits:
    """Counts requests and streams of this process; tells who is over a bound when to come back."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._window = FixedWindowRateLimiter(MemoryStorage())
        self._requests = RateLimitItemPerMinute(bounds.requests)
        self._changes = RateLimitItemPerMinute(bounds.changes)
        self._machine = RateLimitItemPerMinute(MANY * bounds.requests)
        self._open: Counter[str] = Counter()

    def count(self, caller: str, machine: str, *, change: bool) -> None:
        """Count a request.

        Args:
            caller: by what it shows.
            machine: that it comes from. All its callers together may ask `MANY` times as often as
                one, for who shows something else each time is nobody else.

        Raises:
            Problem: 429, too many in this minute.
        """
        fits = self._window.hit(self._requests, "requests", caller)
        if fits and change:
            fits = self._window.hit(self._changes, "changes", caller)
        if fits and machine != caller:
            fits = self._window.hit(self._machine, "machine", machine)
        if not fits:
            most = self._bounds.changes if change else self._bounds.requests
            raise Problem(
                429,
                f"more than {most} requests of this kind in a minute; wait a little",
                headers={"Retry-After": "30"},
            )

    @contextmanager
    def stream(self, caller: str) -> Iterator[None]:
        """A stream is open while the block lasts.

        Raises:
            Problem: 429, of one caller or in all too many are.
        """
        full = self._open.total() >= self._bounds.streams
        if full or self._open[caller] >= self._bounds.streams_each:
            raise Problem(
                429, "too many event streams are open; close some", headers={"Retry-After": "30"}
            )
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]
