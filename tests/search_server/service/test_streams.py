"""What an event stream tells: news, and no more."""

import asyncio
import json
from typing import Any

from search_server.service import streams


def heard(looks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a listener is told of a job that is found so, look after look."""
    found = iter(looks)

    async def listen() -> list[dict[str, Any]]:
        watched = streams.Streams(lambda _: next(found))
        async with asyncio.timeout(20 * streams.LOOK_SECONDS):
            told = [event async for event in watched.events("job")]
        await watched.close()
        return [json.loads(event.partition("data: ")[2]) for event in told]

    return asyncio.run(listen())


def test_waiting_alone_is_told_now_and_then(monkeypatch):
    monkeypatch.setattr(streams, "AGAIN_SECONDS", 0.0)
    running = {"state": "running", "seconds_left": 60.0}
    longer = {**running, "seconds_left": 62.0}
    done = {"state": "done", "seconds_left": None}
    assert heard([running, longer, done]) == [running, longer, done]


def test_waiting_alone_is_no_news():
    running = {"state": "running", "trained": 3, "seconds_left": 60.0}
    more = {**running, "trained": 4, "seconds_left": 50.0}
    done = {**more, "state": "done", "seconds_left": None}
    longer = [{**running, "seconds_left": seconds} for seconds in (61.0, 62.0)]
    told = heard([running, running, *longer, more, done])
    shown = [each for n, each in enumerate(told) if n == 0 or each != told[n - 1]]
    assert shown == [running, more, done]
