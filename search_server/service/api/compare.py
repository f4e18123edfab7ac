"""Candidates beside each other."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from search_server.errors import JobError
from search_server.service.access import Reader
from search_server.service.api.responses import problems
from search_server.service.candidate_view import candidate_keys
from search_server.service.comparing import compared
from search_server.service.models.comparing import ComparisonAnswer
from search_server.service.problems import Problem
from search_server.service.state import service_of

router = APIRouter(tags=["candidates"])

MOST = 12


@router.get("/compare", responses=problems(404, 409))
def compare(
    request: Request,
    caller: Reader,
    candidate: Annotated[
        list[Annotated[str, Query(max_length=220)]],
        Query(
            min_length=1,
            max_length=MOST,
            description="JOB:INDEX; may be repeated. The jobs must train alike.",
            examples=[["digits-atss-1:0", "digits-atss-1:12"]],
        ),
    ],
    baseline: Annotated[
        str | None, Query(max_length=220, description="JOB:INDEX; default: the first candidate")
    ] = None,
) -> ComparisonAnswer:
    """Candidates against one of them, from what has been trained: paired by seed, by stage."""
    try:
        keys = candidate_keys(candidate)
        base = keys[0] if baseline is None else candidate_keys([baseline])[0]
    except JobError as error:
        raise Problem(422, f"candidate: {error}") from None
    wanted = list(dict.fromkeys([*([] if base in keys else [base]), *keys]))
    found = compared(service_of(request).store, wanted, base)
    return ComparisonAnswer.model_validate(found)
