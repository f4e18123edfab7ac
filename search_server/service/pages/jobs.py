"""The list of jobs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from search_server.overview import job_page
from search_server.service.access import Reader
from search_server.service.api.jobs import Cursor
from search_server.service.api.places import shown_detector
from search_server.service.cursors import decoded, encoded
from search_server.service.job_glances import glances
from search_server.service.pages.leaderboard import BLANK
from search_server.service.pages.rendering import page
from search_server.service.state import service_of
from search_server.store.records import JOB_STATES, JobState

router = APIRouter()
A_PAGE = 50


@router.get("/")
def root(caller: Reader) -> RedirectResponse:
    """The list of jobs is where one begins."""
    return RedirectResponse("/jobs", 303)


@router.get("/jobs")
def jobs(
    request: Request,
    caller: Reader,
    state: Annotated[JobState | None, BLANK] = None,
    cursor: Cursor = None,
) -> HTMLResponse:
    """The jobs, the newest first."""
    after = decoded(cursor, int)
    store = service_of(request).store
    found = job_page(store, state=state, before=after[0] if after else None, limit=A_PAGE + 1)
    more = encoded(found[A_PAGE - 1].serial) if len(found) > A_PAGE else None
    return page(
        request,
        caller,
        "jobs.html",
        jobs=glances(store, found[:A_PAGE]),
        detector=shown_detector(request),
        next=more,
        first=cursor is None,
        state=state,
        states=JOB_STATES,
    )
