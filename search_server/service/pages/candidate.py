"""One candidate: its formula, what it looks like, how it trained, what is known, its ancestors."""

from __future__ import annotations

from itertools import groupby

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from search_server.service.access import Reader
from search_server.service.api.jobs import JobId
from search_server.service.api.places import Index, candidate_of, shown_detector
from search_server.service.candidate_view import candidate_view
from search_server.service.formula_view import FormulaView, formula_view
from search_server.service.pages.rendering import page, path_of
from search_server.service.problems import Problem
from search_server.service.state import service_of

router = APIRouter()


@router.get("/jobs/{job_id}/candidates/{index}")
def candidate(request: Request, caller: Reader, job_id: JobId, index: Index) -> HTMLResponse:
    """One candidate."""
    record = candidate_of(request, job_id, index)
    view = candidate_view(service_of(request).store, job_id, index, shown_detector(request))
    formula: FormulaView | None = None
    unread = ""
    try:
        formula = formula_view(record.definition, stored=True)
    except Problem as problem:  # of another version: all but the formula can be shown
        unread = problem.detail
    ancestors = view.lineage.ancestors
    return page(
        request,
        caller,
        "candidate.html",
        row=view.row.row,
        detector=view.row.detector,
        record=record,
        trials=view.trials,
        formula=formula,
        unread=unread,
        generations=[
            (number, list(group)) for number, group in groupby(ancestors, lambda a: a.generation)
        ],
        whole=view.lineage.whole,
        home=path_of("jobs", job_id, "candidates", index),
        job_home=path_of("jobs", job_id),
    )
