"""One candidate: what it is, how it was trained, what it computes, and its files."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from search_server.service.access import Reader
from search_server.service.api.jobs import JobId
from search_server.service.api.places import Index, candidate_of, shown_detector
from search_server.service.api.responses import problems
from search_server.service.candidate_view import candidate_view
from search_server.service.exports import FORMATS, Format, exported
from search_server.service.formula_view import formula_view
from search_server.service.models.candidates import (
    CandidateCurves,
    CandidateDetail,
    candidate_curves,
    candidate_detail,
)
from search_server.service.models.formulas import Formula, formula_answer
from search_server.service.state import service_of

router = APIRouter(prefix="/jobs/{job_id}/candidates/{index}", tags=["candidates"])


@router.get("", responses=problems(404))
def candidate(request: Request, caller: Reader, job_id: JobId, index: Index) -> CandidateDetail:
    """One candidate: its loss, what is known of it, its trials and its ancestors."""
    candidate_of(request, job_id, index)
    store = service_of(request).store
    return candidate_detail(candidate_view(store, job_id, index, shown_detector(request)))


@router.get("/curves", responses=problems(404))
def curves(request: Request, caller: Reader, job_id: JobId, index: Index) -> CandidateCurves:
    """The training curves of all trials of a candidate."""
    candidate_of(request, job_id, index)
    trials = service_of(request).store.trials(job_id, index)
    return candidate_curves(job_id, index, trials)


@router.get("/formula", responses=problems(404, 409))
def formula(request: Request, caller: Reader, job_id: JobId, index: Index) -> Formula:
    """What a candidate computes, as LaTeX, as MathML and as a tree."""
    record = candidate_of(request, job_id, index)
    return formula_answer(formula_view(record.definition, stored=True))


@router.get(
    "/export",
    response_class=Response,
    responses={
        200: {
            "description": "the file, as an attachment",
            "content": {each.media_type: {"schema": each.schema} for each in FORMATS.values()},
        },
        **problems(404, 409),
    },
)
def export(
    request: Request,
    caller: Reader,
    job_id: JobId,
    index: Index,
    format: Annotated[
        Format,
        Query(
            description="config: an mmdet config for where Lossforge is installed; standalone: a "
            "zip of a config and the one module that it needs; json: the loss definition"
        ),
    ] = "config",
) -> Response:
    """A candidate as a file that trains anywhere, its data meant to lie in a folder `data`."""
    candidate_of(request, job_id, index)
    found = exported(service_of(request), job_id, index, format)
    headers = {"Content-Disposition": f'attachment; filename="{found.name}"'}
    return Response(found.content, media_type=FORMATS[format].media_type, headers=headers)
