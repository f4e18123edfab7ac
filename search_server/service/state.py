"""What all requests of a service share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import Request

from search_server.service.settings import ServiceSettings

if TYPE_CHECKING:
    from search_server.service.checking import Checker
    from search_server.service.limits import Limits
    from search_server.service.streams import Streams
    from search_server.store import Store


@dataclass(frozen=True)
class Service:
    """A service over one store.

    Attributes:
        tokens_wanted: whether requests have to show one.
        wake: has the reconciler look at once; nothing where none runs.
    """

    store: Store
    settings: ServiceSettings
    limits: Limits
    streams: Streams
    tokens_wanted: bool
    checker: Checker
    wake: Callable[[], None]


def service_of(request: Request) -> Service:
    """The service that a request was made to."""
    found: Service = request.app.state.service
    return found
