"""Logging in by a token, which a browser shows once, and out."""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from search_server.service.access import COOKIE, Reader, new_cookie, refused
from search_server.service.pages.forms import FirstForm, OwnForm
from search_server.service.pages.rendering import page, set_cookie
from search_server.service.problems import Problem
from search_server.service.state import service_of

router = APIRouter()
HOME = "/jobs"
LONGEST_TOKEN = 200


@router.get("/login")
def login(request: Request, next: str = HOME) -> Response:
    """Where a token is shown."""
    if not service_of(request).tokens_wanted:
        return RedirectResponse(HOME, 303)
    return login_page(request, 200, "", next)


@router.post("/login")
def log_in(request: Request, fields: FirstForm) -> Response:
    """A token becomes the session of a browser."""
    service, goal = service_of(request), own_path(fields.get("next", HOME))
    if not service.tokens_wanted:
        return RedirectResponse(goal, 303)
    found = service.store.token_of(fields.get("token", "").strip()[:LONGEST_TOKEN])
    if found is None:
        problem = refused(request, 401, "this token is not known, or was revoked")
        return login_page(request, 401, problem.detail, goal)
    cookie = new_cookie()  # never the one that was there: somebody else may know it
    service.store.open_session(found.id, cookie)
    answer = RedirectResponse(goal, 303)
    set_cookie(answer, cookie, https=service.settings.https)
    return answer


@router.post("/logout")
def log_out(request: Request, caller: Reader, fields: OwnForm) -> Response:
    """The end of a session."""
    service_of(request).store.close_session(request.cookies.get(COOKIE, ""))
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer


def login_page(request: Request, status: int, error: str, goal: str) -> HTMLResponse:
    """The form for a token, whatever led to it."""
    return page(request, None, "login.html", status, error=error, goal=own_path(goal))


def asked_to_log_in(request: Request, problem: Problem) -> HTMLResponse:
    """The answer to a browser that has asked for a page without being known."""
    query = f"?{request.url.query}" if request.url.query else ""
    goal = f"{request.url.path}{query}" if request.method == "GET" else HOME
    return login_page(request, problem.status, "", goal)


def own_path(given: str) -> str:
    """A path of this service; the list of jobs for anything that leads elsewhere."""
    try:
        parts = urlsplit(given)
    except ValueError:
        return HOME
    leads_away = parts.scheme or parts.netloc or not given.startswith("/")
    odd = given.startswith("//") or "\\" in given or not given.isprintable()
    return HOME if leads_away or odd or len(given) > 2000 else given
