"""Jobs: submitted, cancelled, resumed; specs checked without submitting them."""

from __future__ import annotations

import email.message
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from search_server.service.access import Submitter
from search_server.service.admission import Kind, admitted
from search_server.service.api.jobs import JobId, seen
from search_server.service.api.responses import problems
from search_server.service.models import JobDetail, job_detail
from search_server.service.models.submitting import EXAMPLE, Checked, SpecBody
from search_server.service.orders import cancel, resume, submit
from search_server.service.problems import Problem
from search_server.service.specs import shown_spec
from search_server.service.state import service_of

router = APIRouter(tags=["jobs"])

KINDS: dict[str, Kind] = {
    "application/json": "json",
    "application/yaml": "yaml",
    "application/x-yaml": "yaml",
    "text/yaml": "yaml",
}
YAML_EXAMPLE = """name: digits-atss
detector: digits/atss
branches: {cls: {space: binary_cls}, bbox: {space: box}}
limits: {steps: 4800}
"""
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": SpecBody.model_json_schema(),
                "example": {"spec": EXAMPLE},
            },
            "application/yaml": {
                "schema": {"type": "string", "description": "a job spec, YAML"},
                "example": YAML_EXAMPLE,
            },
        },
    }
}
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="drawn by who submits: asked again with the same one, the same job is answered",
        examples=["5f0d9c0e-6a0f-4f8e-8a55-1d1f0a3c9b11"],
    ),
]


@dataclass(frozen=True)
class Sent:
    """The body of a request, and what it is."""

    content: bytes
    kind: Kind


async def sent(request: Request) -> Sent:
    """The spec that a request carries.

    Raises:
        Problem: 415, neither JSON nor YAML.
    """
    told = email.message.Message()
    told["content-type"] = request.headers.get("content-type", "")
    kind = KINDS.get(told.get_content_type() if request.headers.get("content-type") else "")
    if kind is None:
        raise Problem(415, "send a job spec as application/json or application/yaml")
    return Sent(await request.body(), kind)


# After the caller's: a body of nobody is not read.
SentSpec = Annotated[Sent, Depends(sent)]


@router.post("/specs/check", responses=problems(415), openapi_extra=BODY)
def check(request: Request, caller: Submitter, body: SentSpec) -> Checked:
    """Whether a spec could be submitted; all that is wrong with it otherwise."""
    service = service_of(request)
    job = service.checker.job(admitted(body.content, body.kind, service.settings, wrapped=True))
    shown = shown_spec(job.spec.to_json(), service.settings)
    return Checked(name=job.spec.name, candidates=job.spec.candidates, spec=shown)


@router.post(
    "/jobs",
    status_code=201,
    response_model=JobDetail,
    responses={
        200: {"model": JobDetail, "description": "this job was submitted with the same key before"},
        **problems(415),
    },
    openapi_extra=BODY,
)
def submit_job(
    request: Request,
    response: Response,
    caller: Submitter,
    body: SentSpec,
    idempotency_key: IdempotencyKey = None,
) -> JobDetail:
    """Submit a search. It waits for its turn where others run."""
    service = service_of(request)
    job_id, new = submit(
        service,
        caller,
        lambda: admitted(body.content, body.kind, service.settings, wrapped=True),
        idempotency_key,
    )
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"/api/v1/jobs/{job_id}"
    return _detail(request, job_id)


@router.post("/jobs/{job_id}/cancel", status_code=202, responses=problems(404, 409))
def cancel_job(request: Request, caller: Submitter, job_id: JobId) -> JobDetail:
    """End a job for good; what it found stays. It is `cancelling` until its controller obeys."""
    seen(request, job_id)
    cancel(service_of(request), caller, job_id)
    return _detail(request, job_id)


@router.post("/jobs/{job_id}/resume", status_code=202, responses=problems(404, 409))
def resume_job(
    request: Request,
    caller: Submitter,
    job_id: JobId,
    force: Annotated[
        bool, Query(description="although nobody can tell whether its controller lives: it is gone")
    ] = False,
) -> JobDetail:
    """Go on with a job that was interrupted, has failed, or whose controller was lost."""
    seen(request, job_id)
    resume(service_of(request), caller, job_id, force=force)
    return _detail(request, job_id)


def _detail(request: Request, job_id: str) -> JobDetail:
    view = seen(request, job_id)
    return job_detail(view, shown_spec(view.spec, service_of(request).settings))
