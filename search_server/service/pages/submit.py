"""Submitting a search, by a form or as YAML; ending one, going on with one."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

import yaml
from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from losses import configs_dir
from search_server.service.access import Caller, Submitter
from search_server.service.admission import admitted, admitted_fields
from search_server.service.api.jobs import JobId, seen
from search_server.service.form_spec import DEFAULTS, SEARCHES, spec_of_form
from search_server.service.orders import cancel, resume, submit
from search_server.service.pages.forms import Fields, OwnForm
from search_server.service.pages.rendering import page
from search_server.service.problems import Problem
from search_server.service.settings import ServiceSettings
from search_server.service.state import service_of
from search_server.spec import JobSpec

router = APIRouter()
AGAIN = (413, 422, 429, 503)  # after which the form is shown again, as it was filled in


@router.get("/submit")
def submit_page(
    request: Request,
    caller: Submitter,
    preset: Annotated[str | None, Query(max_length=100)] = None,
) -> HTMLResponse:
    """The form, empty or with a packaged spec as YAML."""
    known = presets(service_of(request).settings)
    if preset is not None and preset not in known:
        raise Problem(404, "there is no such spec to start from")
    fields = {**DEFAULTS, "yaml": known[preset] if preset else "", "nonce": _nonce()}
    return _form(request, caller, fields, 200, None)


@router.post("/submit")
def submitted(request: Request, caller: Submitter, fields: OwnForm) -> Response:
    """A job from a form; the form again, with what is wrong, where there is no job."""
    service = service_of(request)
    settings = service.settings

    def spec() -> JobSpec:
        if fields.get("form") == "yaml":
            return admitted(fields.get("yaml", "").encode("utf-8", "replace"), "yaml", settings)
        detectors = settings.allowed_detectors()
        space = lambda name: service.checker.cls_space(detectors.get(name))  # noqa: E731
        return admitted_fields(spec_of_form(fields, space), settings)

    try:
        job_id, _ = submit(service, caller, spec, fields.get("nonce", "")[:200] or None)
    except Problem as problem:
        if problem.status not in AGAIN:
            raise
        other = DEFAULTS if fields.get("form") == "yaml" else {}
        kept = {"nonce": _nonce(), **other, **fields}
        return _form(request, caller, kept, problem.status, problem)
    return RedirectResponse(f"/jobs/{job_id}", 303)


@router.post("/jobs/{job_id}/cancel")
def cancelled(request: Request, caller: Submitter, fields: OwnForm, job_id: JobId) -> Response:
    """The end of a job for good."""
    seen(request, job_id)
    cancel(service_of(request), caller, job_id)
    return RedirectResponse(f"/jobs/{job_id}", 303)


@router.post("/jobs/{job_id}/resume")
def resumed(request: Request, caller: Submitter, fields: OwnForm, job_id: JobId) -> Response:
    """Going on with a job."""
    seen(request, job_id)
    resume(service_of(request), caller, job_id, force=fields.get("force") == "true")
    return RedirectResponse(f"/jobs/{job_id}", 303)


@cache
def _packaged() -> Mapping[str, tuple[str, Any]]:
    """The packaged specs by name: text and fields."""
    folder = configs_dir() / "search"
    texts = {file.stem: file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.yaml"))}
    return {name: (text, yaml.safe_load(text)) for name, text in texts.items()}


def presets(settings: ServiceSettings) -> dict[str, str]:
    """The packaged specs that this service would take, as YAML, by name."""
    detectors = settings.allowed_detectors()
    return {
        name: text
        for name, (text, spec) in _packaged().items()
        if spec.get("detector") in detectors and spec.get("data", "digits") in settings.data
    }


def _nonce() -> str:
    """Drawn once for every form that is shown: sent twice, it submits once."""
    return secrets.token_urlsafe(16)


def _form(
    request: Request, caller: Caller, fields: Fields, status: int, problem: Problem | None
) -> HTMLResponse:
    settings = service_of(request).settings
    wrong = [] if problem is None else [(each.field, each.allowed) for each in problem.errors]
    by_yaml = fields.get("form") == "yaml"
    lines = [f"{field}: {allowed}" if field else allowed for field, allowed in wrong]
    answer = page(
        request,
        caller,
        "submit.html",
        status,
        fields=fields,
        detectors=list(settings.allowed_detectors()),
        data=list(settings.data),
        searches=list(SEARCHES.items()),
        presets=list(presets(settings)),
        by_yaml=by_yaml,
        yaml_errors="\n".join(lines) if by_yaml else "",
        trouble="" if problem is None else problem.detail if not wrong else "Not submitted yet.",
        wrong=wrong,
        errors=dict(reversed(wrong)),
    )
    if problem is not None:
        answer.headers.update(problem.headers or {})
    return answer
