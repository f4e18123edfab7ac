"""Jobs: listed, read, watched."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool as in_thread
from starlette.types import Receive, Scope, Send

from search_server.errors import JobError
from search_server.overview import job_page
from search_server.service.access import Reader
from search_server.service.api.responses import problems
from search_server.service.cursors import decoded, encoded
from search_server.service.heads import only_headers
from search_server.service.job_view import JobView, job_view
from search_server.service.models import JobDetail, JobList, job_detail, job_item
from search_server.service.problems import Problem
from search_server.service.specs import shown_spec
from search_server.service.state import service_of
from search_server.store.records import JobState

router = APIRouter(tags=["jobs"])

JobId = Annotated[str, Path(max_length=200, examples=["digits-atss-1"])]
Limit = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[str | None, Query(max_length=500, description="`next` of the page before")]


@router.get("/jobs", responses=problems())
def jobs(
    request: Request,
    caller: Reader,
    state: JobState | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> JobList:
    """The jobs, the newest first."""
    after = decoded(cursor, int)
    store = service_of(request).store
    found = job_page(store, state=state, before=after[0] if after else None, limit=limit + 1)
    more = len(found) > limit
    return JobList(
        jobs=[job_item(each) for each in found[:limit]],
        next=encoded(found[limit - 1].serial) if more else None,
    )


@router.get("/jobs/{job_id}", responses=problems(404))
def job(request: Request, caller: Reader, job_id: JobId) -> JobDetail:
    """One job: its spec, and where it stands."""
    view = seen(request, job_id)
    return job_detail(view, shown_spec(view.spec, service_of(request).settings))


@router.get(
    "/jobs/{job_id}/events",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "`event: progress` with a `Progress` as JSON, now and as it changes",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **problems(404),
    },
)
async def events(request: Request, caller: Reader, job_id: JobId) -> StreamingResponse:
    """Progress as server-sent events; the stream ends with the job."""
    service = service_of(request)
    await in_thread(seen, request, job_id)
    held = service.limits.stream(caller.name or (request.client.host if request.client else "-"))
    headers = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
    return HeldStream(held, service.streams.events(job_id), headers=headers)


class HeldStream(StreamingResponse):
    """An event stream that counts as open until it has ended, even if nobody was there to hear its
    beginning.

    Args:
        held: what it holds meanwhile.

    Raises:
        Problem: 429, too many are open.
    """

    def __init__(
        self,
        held: AbstractContextManager[None],
        events: AsyncIterator[str],
        headers: dict[str, str],
    ) -> None:
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._held = held
        held.__enter__()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        try:
            if only_headers(scope):
                headers = self.raw_headers
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await super().__call__(scope, receive, send)
        finally:
            self._held.__exit__(None, None, None)


def seen(request: Request, job_id: str) -> JobView:
    """The job that a route names.

    Raises:
        Problem: 404, there is none.
    """
    try:
        return job_view(service_of(request).store, job_id)
    except JobError:
        raise Problem(404, f"there is no job {job_id}") from None
