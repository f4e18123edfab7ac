"""The leaderboard: candidates of any jobs, filtered and sorted."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from search_server.service.access import Reader
from search_server.service.api.jobs import Cursor, Limit
from search_server.service.api.places import job_of, shown_detector
from search_server.service.api.responses import problems
from search_server.service.board import Asked, board
from search_server.service.board_query import KINDS, Place, Shape, Sort
from search_server.service.cursors import decoded
from search_server.service.models.rows import LeaderboardPage, leaderboard_page
from search_server.service.problems import Problem
from search_server.service.state import service_of
from search_server.store.records import CandidateState, Stage

router = APIRouter(tags=["candidates"])

JobFilter = Annotated[
    str | None, Query(max_length=200, description="only of this job", examples=["digits-atss-1"])
]
Word = Annotated[str | None, Query(max_length=200)]


@router.get("/leaderboard", responses=problems(404))
def leaderboard(
    request: Request,
    caller: Reader,
    job: JobFilter = None,
    detector: Annotated[Word, Query(description="only of jobs of this detector")] = None,
    space: Annotated[Word, Query(description="only of jobs that search this space")] = None,
    stage: Annotated[Stage, Query(description="only those that came this far")] = "simulate",
    confirmed: Annotated[
        bool, Query(description="only those that confirm has compared with the baseline")
    ] = False,
    state: CandidateState | None = None,
    pareto: Annotated[
        bool, Query(description="only the front of AP and size, of the job that is given")
    ] = False,
    sort: Annotated[
        Sort,
        Query(
            description="standing: confirmed first, by gain, then by fitness, failed last. The "
            "others have those alone that have the number: fitness (failed left out), gain "
            "(confirmed), size (trained to the end, the smallest first); newest: all."
        ),
    ] = "standing",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> LeaderboardPage:
    """Candidates, the best first; of all jobs, or of those that fit."""
    if pareto and job is None:
        raise Problem(422, "pareto: every job has a front of its own; give job too")
    if job is not None:
        job_of(request, job)
    asked = Asked(
        job, detector, space, Shape(sort, stage, confirmed, state, pareto), limit,
        tuple(place_of(sort, cursor)),
    )  # fmt: skip
    found = board(service_of(request).store, asked, shown_detector(request))
    return leaderboard_page(found, sort)


def place_of(sort: Sort, cursor: str | None) -> Place:
    """Where the page before ended; empty without a cursor.

    Raises:
        Problem: 422, it is none of this order.
    """
    kinds: tuple[Any, ...] = (str, *KINDS[sort])
    found = decoded(cursor, *kinds)
    if found is None:
        return []
    order, *place = found
    whole = [each for each in place if isinstance(each, int)]
    if order != sort or any(abs(each) >= 2**31 for each in whole):
        raise Problem(422, "cursor: it is of another order")
    return place
