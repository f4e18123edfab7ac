"""What every request goes through: bounds on its size and rate, headers, errors without insides."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search_server.service.limits import Limits
from search_server.service.problems import Problem, answer

log = logging.getLogger(__name__)

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""plotly writes style elements of its own, hence inline styles; scripts are files of ours only."""
LONGEST_QUERY = 8192
BODY_SECONDS = 20.0
PROBED = ("/healthz", "/readyz")  # by who looks after processes, as often as it likes


class Guard:
    """The outermost layer of the service."""

    def __init__(self, app: ASGIApp, limits: Limits, body_bytes: int, *, https: bool) -> None:
        self._app, self._limits, self._most, self._https = app, limits, body_bytes, https

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        told: dict[str, Any] = {"status": 0}

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                told["status"] = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if self._https:
                    headers["Strict-Transport-Security"] = "max-age=31536000"
                if not scope["path"].startswith("/static/"):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            self._check(scope)
            body = await self._body(scope, receive)
            if body is not None:
                await self._app(scope, _replayed(body, receive), sending)
        except Problem as problem:
            await self._refuse(scope, told, problem, sending)
        except Exception:
            log.exception("an answer to %s %a failed", scope["method"], scope["path"][:200])
            if told["status"]:
                raise  # it has begun: the server cuts it off, so that nobody takes it for whole
            inside = Problem(500, "something failed inside; the service's log says what")
            await self._refuse(scope, told, inside, sending)
        finally:
            took, status = 1000 * (time.monotonic() - began), told["status"]
            level = logging.INFO if status < 400 else logging.WARNING
            log.log(level, "%s %a %d %.0f ms", scope["method"], scope["path"][:200], status, took)

    async def _refuse(
        self, scope: Scope, told: MutableMapping[str, Any], problem: Problem, send: Send
    ) -> None:
        if told["status"]:
            raise problem  # an answer has begun, see above
        log.warning(
            "refused %d %s %a: %s",
            problem.status, scope["method"], scope["path"][:200], problem.detail,
        )  # fmt: skip

        async def nothing() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        await answer(problem)(scope, nothing, send)

    def _check(self, scope: Scope) -> None:
        """Raises: Problem, for what needs no look at the body."""
        if len(scope.get("query_string", b"")) > LONGEST_QUERY:
            raise Problem(414, f"the query is longer than {LONGEST_QUERY} bytes")
        if scope["path"] not in PROBED:
            change = scope["method"] not in ("GET", "HEAD", "OPTIONS")
            self._limits.count(*_sender(scope), change=change)
        length = Headers(scope=scope).get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length[:20]) > self._most:
            raise self._too_large()

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body, which is small; None: whoever sent it is gone.

        It is read here, so that one that is too long, or does not come, is refused as such whatever
        would have read it.

        Raises:
            Problem: 413, 408.
        """
        headers = Headers(scope=scope)
        if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
            return b""
        parts, size = [], 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > self._most:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise Problem(408, f"the body did not come within {BODY_SECONDS:g} s") from None

    def _too_large(self) -> Problem:
        return Problem(413, f"the body is larger than {self._most} bytes")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """What an application receives: the body, and after it whatever comes."""
    given = False

    async def receiving() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receiving


def _sender(scope: Scope) -> tuple[str, str]:
    """Whom a request is counted for: by what it shows, and by the machine that it comes from."""
    headers = Headers(scope=scope)
    client = scope.get("client")
    machine = f"from {client[0] if client else '-'}"
    shown = headers.get("authorization") or headers.get("cookie")
    if shown is None:
        return machine, machine
    return hashlib.sha256(shown.encode()).hexdigest()[:16], machine
