"""Templates, and what all of them are given."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from search_server.cli.leaderboard import difference, interval, p_value
from search_server.cli.output import age, duration, points
from search_server.service.access import COOKIE, Caller, csrf_word, new_cookie
from search_server.service.problems import Problem
from search_server.service.state import service_of
from search_server.service.texts import placeless

_environment = Environment(
    loader=FileSystemLoader(Path(__file__).parent.parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,  # it would look at every file at every page
)
_environment.filters |= {
    "age": age,
    "difference": difference,
    "duration": duration,
    "gain": lambda value: "" if value is None else f"{100 * value:+.1f}",
    "interval": interval,
    "number": lambda value: f"{value:,}",
    "p_value": p_value,
    "placeless": placeless,
    "points": points,
    "pretty": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    "query": lambda value: urlencode(value, doseq=True),
    "segment": lambda value: quote(str(value), safe=""),
    "when": lambda value: "-" if value is None else f"{value:%Y-%m-%d %H:%M} UTC",
}


def path_of(*parts: str | int) -> str:
    """The path of a page whose parts may be any text."""
    return "/" + "/".join(quote(str(part), safe="") for part in parts)


_environment.globals |= {"version": version("lossforge"), "path_of": path_of}


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


def set_cookie(answer: Response, value: str, *, https: bool) -> None:
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
