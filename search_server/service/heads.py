"""HEAD: whatever answers GET answers it, too, without a body."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ONLY_HEADERS = "lossforge.only_headers"


class Heads:
    """A layer of the service: routes are asked by GET, and what they answer loses its body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] != "http.response.body":
                await send(message)
            elif not message.get("more_body", False):
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app({**scope, "method": "GET", _ONLY_HEADERS: True}, receive, sending)


def only_headers(scope: Scope) -> bool:
    """Whether nobody will read the body: what would never end must not begin."""
    return bool(scope.get(_ONLY_HEADERS, False))


def allowed(methods: str) -> str:
    """The value of `Allow`, with HEAD wherever there is GET."""
    named = [each.strip() for each in methods.split(",")]
    return ", ".join([*named, "HEAD"] if "GET" in named and "HEAD" not in named else named)
