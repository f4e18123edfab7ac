"""The service as a process: a socket, an application over a store, a server around both."""

from __future__ import annotations

import errno
import gc
import ipaddress
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from search_server.errors import ServiceError
from search_server.service.app import make_app
from search_server.service.reconciler import Reconciler
from search_server.service.runner import make_runner
from search_server.service.settings import ServiceSettings
from search_server.service.state import Service
from search_server.store import Store
from search_server.store.url import absolute

STOP_SECONDS = 5  # that answers under way are given at the end
BACKLOG = 1024


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens.

    Raises:
        ServiceError: nothing can listen there.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        made = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no name"
        raise ServiceError(f"--host {host!a} is no address of this machine: {reason}") from None
    with made:
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
            made.listen(BACKLOG)
        except OSError as error:
            why = error.strerror
            if error.errno == errno.EADDRINUSE:
                why = "another program listens there, perhaps another `lossforge serve`"
            raise ServiceError(
                f"nothing can listen on {host}:{port} ({why}); give another --host or --port"
            ) from None
        yield made


def loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def prepared(
    store: Store, store_url: str, settings: ServiceSettings, host: str, *, tokens: bool
) -> FastAPI:
    """The application, with what runs the jobs that are submitted to it.

    Args:
        store_url: as it was given.
        tokens: whether tokens are wanted of this machine, too.

    Raises:
        ServiceError: tokens would be wanted, and there are none.
    """
    wanted = tokens or settings.https or not loopback(host)
    if wanted and all(each.revoked_at is not None for each in store.tokens()):
        why = "--tokens" if tokens else "`https: true`, by which others reach it,"
        if not loopback(host):
            why = f"--host {host}, which others can reach,"
        raise ServiceError(
            f"{why} wants a token of everybody, and the store has none; make one first: "
            "lossforge token create NAME --role submit"
        )
    runner = make_runner(settings.runs, absolute(store_url))
    reconciler = Reconciler(store, runner, settings.runs)
    return make_app(store, settings, tokens_wanted=wanted, reconciler=reconciler)


def run(app: FastAPI, listener: socket.socket, settings: ServiceSettings) -> None:
    """Answer until SIGTERM or Ctrl-C; answers under way are finished, event streams ended."""
    config = uvicorn.Config(
        app,
        access_log=False,  # the guard writes a line per request
        log_config=None,
        server_header=False,
        ws="none",
        lifespan="on",
        proxy_headers=settings.https,  # then a proxy stands before it, on this machine
        timeout_graceful_shutdown=STOP_SECONDS,
        h11_max_incomplete_event_size=64 * 1024,
    )
    # uvicorn raises a signal again once it has obeyed it; by then that has no meaning any more.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    gc.collect()
    gc.freeze()  # see `Checker._load`
    _Server(config, app.state.service).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends the event streams first: it would wait for them."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._service.streams.close()
        await super().shutdown(sockets)
