"""The service as an ASGI application: its routes, its guard, its errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from search_server.errors import SearchError
from search_server.service import api, pages
from search_server.service.checking import Checker
from search_server.service.heads import Heads, allowed
from search_server.service.job_view import job_view
from search_server.service.limits import Limits
from search_server.service.middleware import Guard
from search_server.service.models import progress_of
from search_server.service.problems import FieldProblem, Problem, answer, of_search, told
from search_server.service.reconciler import Reconciler
from search_server.service.settings import ServiceSettings
from search_server.service.state import Service
from search_server.service.streams import Streams
from search_server.store import Store

STATIC = Path(__file__).with_name("static")


def make_app(
    store: Store,
    settings: ServiceSettings,
    *,
    tokens_wanted: bool,
    reconciler: Reconciler | None = None,
) -> FastAPI:
    """The application over an open store.

    Args:
        tokens_wanted: whether every request has to show a token.
        reconciler: runs what is submitted, while the application lives; None: somebody else does.
    """
    limits, checker = Limits(settings.bounds), Checker(settings.data)
    streams = Streams(lambda job_id: progress_of(job_view(store, job_id)).model_dump(mode="json"))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if reconciler is not None:
            checker.start()
            reconciler.start()
        yield
        await streams.close()
        if reconciler is not None:
            await run_in_threadpool(reconciler.stop)

    app = FastAPI(
        title="Lossforge",
        version=version("lossforge"),
        summary="Searches for the loss functions of object detectors.",
        lifespan=lifespan,
        docs_url=None,  # it loads scripts from elsewhere
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    wake = (lambda: None) if reconciler is None else reconciler.wake
    app.state.service = Service(store, settings, limits, streams, tokens_wanted, checker, wake)
    app.include_router(api.router)
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    _handle_errors(app)
    app.add_middleware(Heads)
    app.add_middleware(
        Guard, limits=limits, body_bytes=1024 * settings.bounds.body_kib, https=settings.https
    )
    return app


def _handle_errors(app: FastAPI) -> None:
    """Errors become problem details for programs, and pages for people."""

    def shown(request: Request, problem: Problem) -> Response:
        if request.url.path.startswith("/api/") or "text/html" not in request.headers.get(
            "accept", ""
        ):
            return answer(problem)
        if problem.status == 401:
            return pages.asked_to_log_in(request, problem)
        return pages.error_page(request, problem)

    async def of_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return shown(request, error)

    async def of_ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, SearchError)
        return shown(request, of_search(error))

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        detail = "there is nothing here" if error.status_code == 404 else str(error.detail)
        headers = dict(error.headers or {})
        if "Allow" in headers:
            headers["Allow"] = allowed(headers["Allow"])
        return shown(request, Problem(error.status_code, detail, headers=headers))

    async def of_input(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        found = [
            FieldProblem(
                field=".".join(str(part) for part in each["loc"][1:]),
                value=told(each.get("input")),
                allowed=told(each["msg"], 1000),
            )
            for each in error.errors()
        ]
        first = f"{found[0].field}: {found[0].allowed}" if found else "it cannot be read"
        return shown(request, Problem(422, first, found))

    app.add_exception_handler(Problem, of_problem)
    app.add_exception_handler(SearchError, of_ours)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(RequestValidationError, of_input)
