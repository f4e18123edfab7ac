"""One job: where it stands, what it found, and what it is."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from search_server.leaderboard_rows import LeaderboardRow
from search_server.overview import round_summaries
from search_server.service.access import Reader
from search_server.service.api.jobs import JobId, seen
from search_server.service.api.places import shown_detector
from search_server.service.board import Asked, board
from search_server.service.board_query import Shape
from search_server.service.pages.leaderboard import Board, Filter, board_of
from search_server.service.pages.rendering import page, path_of
from search_server.service.specs import shown_spec
from search_server.service.state import service_of
from search_server.store.records import CANDIDATE_STATES, STAGES

router = APIRouter()
A_FEW = 20  # of which some may be rivals


@router.get("/jobs/{job_id}")
def job(request: Request, caller: Reader, job_id: JobId, wanted: Filter) -> HTMLResponse:
    """One job; its leaderboard as the query says."""
    view = seen(request, job_id)
    service = service_of(request)
    spec = shown_spec(view.spec, service.settings)
    shown = board_of(request, wanted, path_of("jobs", job_id), job_id)
    judged = view.summary.confirmed > 0
    return page(
        request,
        caller,
        "job.html",
        job=view,
        told=view.summary,
        spec=spec,
        board=shown,
        confirmed=best_confirmed(request, job_id, shown) if judged else None,
        rounds=[] if view.summary.rounds is None else round_summaries(service.store, job_id),
        stages=STAGES,
        states=CANDIDATE_STATES,
    )


def best_confirmed(request: Request, job_id: str, shown: Board) -> LeaderboardRow | None:
    """The found loss of the largest gain on confirm; a rival is no find.

    Args:
        shown: the page's leaderboard, where it mostly stands at the head.
    """
    rows = shown.rows
    if shown.filter.words() or shown.filter.cursor:
        asked = Asked(job_id, shape=Shape("gain", confirmed=True), limit=A_FEW)
        rows = board(service_of(request).store, asked, shown_detector(request)).rows
    found = (each.row for each in rows if each.row.confirmed)
    return next((row for row in found if not row.rival), None)
