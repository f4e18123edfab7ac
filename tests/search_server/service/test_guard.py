"""The layer around all requests: bodies that do not come, answers that break off."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from search_server.service import middleware
from search_server.service.api.jobs import HeldStream
from search_server.service.limits import Limits
from search_server.service.middleware import Guard
from search_server.service.problems import Problem
from search_server.service.settings import Bounds


def asked(app: Any, received: list[Message], headers: dict[str, str]) -> list[Message]:
    """What an application behind the guard sends to one request; it waits for ever after what was
    received."""
    sent: list[Message] = []
    left = list(received)

    async def receive() -> Message:
        if left:
            return left.pop(0)
        await asyncio.sleep(3600)
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": "/x",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
    }
    guard = Guard(app, Limits(Bounds()), 1000, https=False)
    asyncio.run(guard(scope, receive, send))
    return sent


def part(body: bytes, more: bool) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers what it was sent, and what came after it."""
    first = await receive()
    assert first["more_body"] is False
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": first["body"]})


def test_a_body_comes_as_a_whole() -> None:
    sent = asked(
        echo, [part(b"a" * 400, True), part(b"b" * 600, False)], {"transfer-encoding": "x"}
    )
    assert [each.get("status", each.get("body")) for each in sent] == [200, b"a" * 400 + b"b" * 600]


def test_a_body_that_grows_too_long_is_refused_before_it_ends() -> None:
    sent = asked(echo, [part(b"a" * 600, True)] * 2, {"transfer-encoding": "chunked"})
    assert sent[0]["status"] == 413


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "BODY_SECONDS", 0.05)
    sent = asked(echo, [part(b"a", True)], {"content-length": "5"})
    assert sent[0]["status"] == 408


def test_nobody_is_answered_who_has_gone() -> None:
    sent = asked(echo, [part(b"a", True), {"type": "http.disconnect"}], {"content-length": "5"})
    assert sent == []


def test_an_answer_that_breaks_off_is_not_taken_for_whole() -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("secret")

    with pytest.raises(RuntimeError):  # the server cuts the connection off
        asked(breaks, [], {})


def test_what_fails_before_it_has_begun_says_nothing_of_why() -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("secret")

    sent = asked(fails, [], {})
    assert sent[0]["status"] == 500
    assert b"secret" not in sent[1]["body"]


def test_open_streams_are_counted_until_they_end() -> None:
    limits = Limits(Bounds(streams=2, streams_each=1))

    async def beats() -> AsyncIterator[str]:
        while True:
            yield ": still here\n\n"
            await asyncio.sleep(0.01)

    def opened(caller: str) -> HeldStream:
        return HeldStream(limits.stream(caller), beats(), {})

    first = opened("ada")
    with pytest.raises(Problem) as refused:
        opened("ada")
    assert refused.value.status == 429
    second = opened("bob")
    with pytest.raises(Problem):
        opened("eve")

    async def gone() -> Message:  # before the stream has begun
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        pass

    asyncio.run(first({"type": "http", "asgi": {"spec_version": "2.3"}}, gone, send))
    third = opened("eve")
    assert {stream.status_code for stream in (second, third)} == {200}
