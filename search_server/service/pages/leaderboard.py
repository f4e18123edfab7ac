"""The leaderboard as pages have it: filters and order by the query, a table, the rest by a link."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse
from pydantic import BeforeValidator, StringConstraints

from search_server.service.access import Reader
from search_server.service.api.jobs import Cursor
from search_server.service.api.leaderboard import place_of
from search_server.service.api.places import job_of, shown_detector
from search_server.service.board import Asked, BoardRow, board
from search_server.service.board_query import Shape, Sort
from search_server.service.cursors import encoded
from search_server.service.pages.rendering import page
from search_server.service.state import service_of
from search_server.store.records import CANDIDATE_STATES, STAGES, CandidateState, Stage

router = APIRouter()
A_PAGE = 25

BLANK = BeforeValidator(lambda value: value or None)
"""What a form sends of a field that nothing was chosen in."""
Word = Annotated[Annotated[str, StringConstraints(max_length=200)] | None, BLANK]


@dataclass(frozen=True)
class BoardFilter:
    """What of the leaderboard a page shows, as its form and its links say it."""

    stage: Stage
    state: CandidateState | None
    confirmed: bool
    pareto: bool
    sort: Sort
    cursor: str | None

    def words(self, **changes: Any) -> dict[str, str]:
        """The query of a link: what is not as usual, with changes, from the first page on."""
        now = {
            "stage": None if self.stage == "simulate" else self.stage,
            "state": self.state,
            "confirmed": "true" if self.confirmed else None,
            "pareto": "true" if self.pareto else None,
            "sort": None if self.sort == "standing" else self.sort,
        }
        merged = {**now, **changes}
        return {name: str(value) for name, value in merged.items() if value}


@dataclass(frozen=True)
class Board:
    """A page of the leaderboard, ready to be shown.

    Attributes:
        action: path of the page that it is on.
        more: filters that are fixed there, such as `detector`.
        one_job: whether all rows are of one job.
    """

    rows: tuple[BoardRow, ...]
    filter: BoardFilter
    next: str | None
    action: str
    more: Mapping[str, str]
    one_job: bool

    def link(self, **changes: Any) -> dict[str, str]:
        """The query of a link to this page with changes."""
        return {**self.more, **self.filter.words(**changes)}


async def board_filter(
    stage: Annotated[Stage | None, BLANK] = None,
    state: Annotated[CandidateState | None, BLANK] = None,
    confirmed: bool = False,
    pareto: bool = False,
    sort: Sort = "standing",
    cursor: Cursor = None,
) -> BoardFilter:
    """The filter in a page's query."""
    return BoardFilter(stage or "simulate", state, confirmed, pareto, sort, cursor)


Filter = Annotated[BoardFilter, Depends(board_filter)]


def board_of(
    request: Request,
    wanted: BoardFilter,
    action: str,
    job: str | None = None,
    detector: str | None = None,
    space: str | None = None,
) -> Board:
    """A page of the leaderboard, of one job or of all.

    Raises:
        Problem: 422, a cursor of another order.
    """
    pareto = wanted.pareto and job is not None
    shape = Shape(wanted.sort, wanted.stage, wanted.confirmed, wanted.state, pareto)
    place = tuple(place_of(wanted.sort, wanted.cursor))
    asked = Asked(job, detector, space, shape, A_PAGE, place)
    found = board(service_of(request).store, asked, shown_detector(request))
    following = None if found.next is None else encoded(wanted.sort, *found.next)
    more = {"job": None if action != "/leaderboard" else job, "detector": detector, "space": space}
    kept = {name: value for name, value in more.items() if value}
    return Board(found.rows, wanted, following, action, kept, job is not None)


@router.get("/leaderboard")
def leaderboard(
    request: Request,
    caller: Reader,
    wanted: Filter,
    job: Word = None,
    detector: Word = None,
    space: Word = None,
) -> HTMLResponse:
    """The candidates of all jobs, or of those that fit."""
    if job is not None:
        job_of(request, job)
    shown = board_of(request, wanted, "/leaderboard", job, detector, space)
    return page(
        request,
        caller,
        "leaderboard.html",
        board=shown,
        job=job,
        detector=detector,
        space=space,
        stages=STAGES,
        states=CANDIDATE_STATES,
    )
