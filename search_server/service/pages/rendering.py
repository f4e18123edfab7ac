"""Templates, and what all of them are given."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from search_server.cli.output import age, duration, points
from search_server.service.access import COOKIE, Caller, csrf_word, new_cookie
from search_server.service.problems import Problem
from search_server.service.state import service_of

_environment = Environment(
    loader=FileSystemLoader(Path(__file__).parent.parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters |= {"points": points, "age": age, "duration": duration}
_environment.globals["version"] = version("lossforge")


def page(
    request: Request, caller: Caller | None, template: str, status: int = 200, **given: Any
) -> HTMLResponse:
    """A page from its template; a browser without a cookie gets one, for its forms."""
    service = service_of(request)
    cookie = request.cookies.get(COOKIE)
    fresh = cookie is None and not service.tokens_wanted
    word = cookie or (new_cookie() if fresh else "")
    text = _environment.get_template(template).render(
        caller=caller,
        tokens_wanted=service.tokens_wanted,
        csrf=csrf_word(word) if word else "",
        path=request.url.path,
        **given,
    )
    answer = HTMLResponse(text, status)
    if fresh:
        set_cookie(answer, word, https=service.settings.https)
    return answer


def set_cookie(answer: HTMLResponse, value: str, *, https: bool) -> None:
    """A cookie that no script reads and no other site has sent."""
    answer.set_cookie(
        COOKIE, value, max_age=7 * 24 * 3600, httponly=True, samesite="strict", secure=https
    )


def error_page(request: Request, problem: Problem) -> HTMLResponse:
    """A problem for people."""
    caller = getattr(request.state, "caller", None)
    body = problem.body()
    answer = page(request, caller, "error.html", problem.status, problem=body)
    answer.headers.update(problem.headers or {})
    return answer
