"""What the pages' plots show, as numbers."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from search_server.service import curve_plots, plots
from search_server.service.access import Reader
from search_server.service.api.jobs import JobId
from search_server.service.api.places import Index, candidate_of, job_of
from search_server.service.api.responses import problems
from search_server.service.models.plots import (
    CurvePlotAnswer,
    FrontPlotAnswer,
    FunnelPlotAnswer,
    ProgressPlotAnswer,
    SurfacePlotAnswer,
)
from search_server.service.recent import Recent
from search_server.service.state import service_of

router = APIRouter(prefix="/jobs/{job_id}", tags=["plots"])

# Thousands of points as JSON take longer than all else: some 100 KiB are kept of each plot.
_answers: Recent[bytes] = Recent(most=400)


@router.get("/plots/progress", responses=problems(404), response_model=ProgressPlotAnswer)
def progress(request: Request, caller: Reader, job_id: JobId) -> Response:
    """AP over the candidates of a search, the best so far, and the baseline with its band."""
    job_of(request, job_id)
    store = service_of(request).store
    return _kept(
        (store.url, "progress", job_id),
        plots.progress_state(store, job_id),
        lambda: ProgressPlotAnswer.model_validate(plots.progress(store, job_id)),
    )


@router.get("/plots/funnel", responses=problems(404))
def funnel(request: Request, caller: Reader, job_id: JobId) -> FunnelPlotAnswer:
    """How far how many came, by origin, and why draws were rejected."""
    job_of(request, job_id)
    return FunnelPlotAnswer.model_validate(plots.funnel(service_of(request).store, job_id))


@router.get("/plots/front", responses=problems(404), response_model=FrontPlotAnswer)
def front(request: Request, caller: Reader, job_id: JobId) -> Response:
    """AP against size, the front, and what was confirmed."""
    job_of(request, job_id)
    store = service_of(request).store
    return _kept(
        (store.url, "front", job_id),
        plots.front_state(store, job_id),
        lambda: FrontPlotAnswer.model_validate(plots.size_front(store, job_id)),
    )


@router.get("/candidates/{index}/plots/curves", responses=problems(404))
def curves(request: Request, caller: Reader, job_id: JobId, index: Index) -> CurvePlotAnswer:
    """Training curves of a candidate beside the baseline's of the same stages and seeds."""
    candidate_of(request, job_id, index)
    found = curve_plots.curve_plot(service_of(request).store, job_id, index)
    return CurvePlotAnswer.model_validate(found)


@router.get("/candidates/{index}/plots/surface", responses=problems(404, 409))
def surface(request: Request, caller: Reader, job_id: JobId, index: Index) -> SurfacePlotAnswer:
    """Loss and gradient of a candidate's expressions over a grid."""
    record = candidate_of(request, job_id, index)
    return SurfacePlotAnswer.model_validate(curve_plots.surface_plot(record.definition))


def _kept(key: Hashable, state: Hashable, make: Callable[[], BaseModel]) -> Response:
    """The answer that was made before, unless it may be another by now."""
    content = _answers.get(key, state, lambda: make().model_dump_json().encode())
    return Response(content, media_type="application/json")
