"""Who asks, and whether they may: tokens, browsers' cookies, where what changes something is from.

Without tokens the service is open, to this machine alone (`settings.LOCAL_HOSTS`): then a page of
another site, opened in a browser here, is what has to be kept out. Hence the checks of the name
that a request was sent to, of where it comes from, and of a word that only our own forms have.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from search_server.service.problems import Problem
from search_server.service.settings import LOCAL_HOSTS
from search_server.service.state import service_of
from search_server.store.records import ROLES, Role

log = logging.getLogger(__name__)

COOKIE = "lossforge_session"
CSRF_FIELD, CSRF_HEADER = "csrf", "X-CSRF-Token"
SAFE = ("GET", "HEAD", "OPTIONS")

bearer = HTTPBearer(
    auto_error=False, description="A token of `lossforge token create`; not where there are none."
)
Bearer = Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]


@dataclass(frozen=True)
class Caller:
    """Who makes a request.

    Attributes:
        name: of the token; empty where there are none.
        role: what it may do.
        cookie: whether a browser sent it, by its session: what changes something needs the word
            that only our forms have.
        token_id: row of the token; None where there are none.
    """

    name: str
    role: Role
    cookie: bool = False
    token_id: int | None = None

    def may(self, role: Role) -> bool:
        """Whether it may do what this role may."""
        return ROLES.index(self.role) >= ROLES.index(role)


def csrf_word(cookie: str) -> str:
    """The word that the forms of a browser with this cookie carry: only we can tell it."""
    return hashlib.sha256(b"lossforge csrf " + cookie.encode()).hexdigest()


def new_cookie() -> str:
    """What a browser is told apart by."""
    return secrets.token_urlsafe(32)


async def identified(request: Request, given: Bearer = None) -> Caller | None:
    """Who asks; None: nobody that is known. Does not look whether they may.

    Raises:
        Problem: 401, a token that is none; 403, sent to another name than this machine's.
    """
    service = service_of(request)
    if not service.tokens_wanted:
        _check_host(request, service.settings.hosts)
        return Caller("", "admin", cookie=_from_browser(request))
    if given is not None:
        found = await run_in_threadpool(service.store.token_of, given.credentials)
        if found is None:
            raise refused(request, 401, "this token is not known, or was revoked")
        return Caller(found.name, found.role, token_id=found.id)
    if request.headers.get("authorization") is not None:
        raise refused(request, 401, "Authorization has to be `Bearer` and a token")
    cookie = request.cookies.get(COOKIE)
    if cookie is None:
        return None
    found = await run_in_threadpool(service.store.session_of, cookie)
    if found is None:
        return None
    return Caller(found.name, found.role, cookie=True, token_id=found.id)


Identified = Annotated[Caller | None, Depends(identified)]


def needs(role: Role) -> Callable[..., Awaitable[Caller]]:
    """A dependency that lets nobody through who may not do what `role` may."""

    async def check(request: Request, caller: Identified) -> Caller:
        if caller is None:
            raise refused(request, 401, "a token is needed: Authorization: Bearer TOKEN")
        if not caller.may(role):
            raise refused(
                request, 403, f"this needs the role {role}; the token has the role {caller.role}"
            )
        request.state.caller = caller
        if request.method not in SAFE:
            check_origin(request)
            if caller.cookie and not request.url.path.startswith("/api/"):
                return caller  # a form: its word is in the body, see `pages.forms`
            if caller.cookie and not _has_word(request, request.headers.get(CSRF_HEADER)):
                raise refused(request, 403, f"the header {CSRF_HEADER} is missing or wrong")
        return caller

    check.__name__ = f"needs_{role}"
    return check


Reader = Annotated[Caller, Depends(needs("read"))]
Submitter = Annotated[Caller, Depends(needs("submit"))]
Admin = Annotated[Caller, Depends(needs("admin"))]


def check_word(request: Request, given: str | None) -> None:
    """Refuse a form that is not ours.

    Raises:
        Problem: 403.
    """
    check_origin(request)
    if not _has_word(request, given):
        raise refused(
            request, 403, "this form has expired, or came from another site; load the page again"
        )


def check_origin(request: Request) -> None:
    """Refuse what a page of another site had a browser send.

    Raises:
        Problem: 403.
    """
    if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        raise refused(request, 403, "this came from a page of another site")
    origin = request.headers.get("origin")
    if origin is None:
        return
    try:
        host = urlsplit(origin).netloc
    except ValueError:
        host = ""
    if not host or host != request.headers.get("host"):
        raise refused(request, 403, "this came from a page of another site")


def refused(request: Request, status: int, why: str) -> Problem:
    """The problem of a request that may not be; it is logged."""
    caller = getattr(request.state, "caller", None)
    log.warning(
        "refused %d %s %a%s: %s",
        status,
        request.method,
        request.url.path[:200],
        f" token {caller.name!a}" if caller is not None else "",
        why,
    )
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return Problem(status, why, headers=headers)


def _has_word(request: Request, given: str | None) -> bool:
    cookie = request.cookies.get(COOKIE)
    if cookie is None or given is None:
        return False
    return hmac.compare_digest(csrf_word(cookie).encode(), given.encode("utf-8", "replace"))


def _from_browser(request: Request) -> bool:
    return COOKIE in request.cookies


def _check_host(request: Request, more: tuple[str, ...]) -> None:
    """A name that leads here although it is not ours is a trick to get around a browser's rules."""
    named = request.headers.get("host", "")
    host = named.rpartition(":")[0] if not named.endswith("]") and ":" in named else named
    if host.lower() not in (*LOCAL_HOSTS, *more):
        raise refused(
            request, 403, "this service is not reached by that name; see hosts in its file"
        )
