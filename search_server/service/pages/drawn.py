"""Plots as pictures, at URLs of their own: only browsers without scripts ask for them."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response

from search_server.service import curve_plots, plots
from search_server.service.access import Reader
from search_server.service.api.jobs import JobId
from search_server.service.api.places import Index, candidate_of, job_of
from search_server.service.pages import candidate_drawing, job_drawing
from search_server.service.state import service_of

router = APIRouter()


@router.get("/jobs/{job_id}/plots/{kind}.svg")
def of_job(
    request: Request, caller: Reader, job_id: JobId, kind: Literal["progress", "front", "funnel"]
) -> Response:
    """A plot of a job."""
    job_of(request, job_id)
    store = service_of(request).store
    if kind == "progress":
        return _svg(job_drawing.draw_progress(plots.progress(store, job_id)))
    if kind == "front":
        return _svg(job_drawing.draw_front(plots.size_front(store, job_id)))
    return _svg(job_drawing.draw_funnel(plots.funnel(store, job_id)))


@router.get("/jobs/{job_id}/candidates/{index}/plots/{kind}.svg")
def of_candidate(
    request: Request,
    caller: Reader,
    job_id: JobId,
    index: Index,
    kind: Literal["curves", "surface"],
) -> Response:
    """A plot of a candidate."""
    record = candidate_of(request, job_id, index)
    if kind == "curves":
        found = curve_plots.curve_plot(service_of(request).store, job_id, index)
        return _svg(candidate_drawing.draw_curves(found))
    return _svg(candidate_drawing.draw_surfaces(curve_plots.surface_plot(record.definition)))


def _svg(content: bytes) -> Response:
    return Response(content, media_type="image/svg+xml")
