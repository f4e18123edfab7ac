"""Live progress: one look at the store a second for all who watch, and none where nobody does; less
often where so many jobs are watched that looking would take up the time."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool

from search_server.errors import SearchError

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
REST = 4.0  # times as long as the last look took, at least, until the next
BEAT_SECONDS = 15.0  # a sign of life, so that proxies keep a quiet stream open
_FINAL = ("done", "failed", "cancelled")
_NO_NEWS = ("seconds_left",)  # it grows by waiting alone
AGAIN_SECONDS = 30.0  # that such an estimate waits until it is told without news

Look = Callable[[str], dict[str, Any]]


class Streams:
    """Passes what changes about jobs on to whoever listens.

    Args:
        look: what is told of a job, plain JSON with its `state`; called in a thread.
    """

    def __init__(self, look: Look) -> None:
        self._look = look
        self._listeners: dict[str, set[asyncio.Queue[str | None]]] = {}
        self._last: dict[str, tuple[dict[str, Any], float]] = {}
        self._task: asyncio.Task[None] | None = None

    async def events(self, job_id: str) -> AsyncIterator[str]:
        """The events of a job as text of `text/event-stream`: its state now, then every change, one
        of an estimate alone some time later; ends when the job is at its end."""
        queue: asyncio.Queue[str | None] = asyncio.Queue(maxsize=4)
        self._listeners.setdefault(job_id, set()).add(queue)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())
        try:  # it listens already: what changes from here on is not missed
            first = _event(await run_in_threadpool(self._look, job_id))
            yield first
            shown: str | None = first
            while shown is not None and not _at_end(shown):
                try:
                    shown = await asyncio.wait_for(queue.get(), BEAT_SECONDS)
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                if shown is not None:
                    yield shown
        finally:
            self._listeners[job_id].discard(queue)
            if not self._listeners[job_id]:
                del self._listeners[job_id]
                self._last.pop(job_id, None)

    async def close(self) -> None:
        """End all streams: the service goes down."""
        if self._task is not None:
            self._task.cancel()
        for queues in self._listeners.values():
            for queue in queues:
                _offer(queue, None)

    async def _watch(self) -> None:
        took = 0.0
        while self._listeners:
            await asyncio.sleep(max(LOOK_SECONDS, REST * took))
            began = time.monotonic()
            for job_id in list(self._listeners):
                try:
                    told = await run_in_threadpool(self._look, job_id)
                except SearchError as error:
                    log.warning("job %s cannot be watched: %s", job_id, error)
                    continue
                news = {name: each for name, each in told.items() if name not in _NO_NEWS}
                last, since = self._last.get(job_id, (None, 0.0))
                if last != news or began - since > AGAIN_SECONDS:
                    self._last[job_id] = news, began
                    for queue in list(self._listeners.get(job_id, ())):
                        _offer(queue, _event(told))
            took = time.monotonic() - began


def _offer(queue: asyncio.Queue[str | None], told: str | None) -> None:
    """Who does not keep up gets the newest, not all."""
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(told)


def _event(told: dict[str, Any]) -> str:
    return f"event: progress\ndata: {json.dumps(told, separators=(',', ':'), sort_keys=True)}\n\n"


def _at_end(event: str) -> bool:
    return any(f'"state":"{state}"' in event for state in _FINAL)
