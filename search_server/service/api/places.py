"""What routes that read have in common: the names in their paths, and what is there."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

from fastapi import Path, Request

from search_server.errors import JobError
from search_server.service.problems import Problem
from search_server.service.specs import shown_spec
from search_server.service.state import service_of
from search_server.store import CandidateRecord, JobRecord

_NO_CONTROLS = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,200}")

Index = Annotated[int, Path(ge=0, description="of a candidate", examples=[12])]


def job_of(request: Request, job_id: str) -> JobRecord:
    """The job that a route names.

    Raises:
        Problem: 404, there is none.
    """
    try:
        if _NO_CONTROLS.fullmatch(job_id):
            return service_of(request).store.job(job_id)
    except JobError:
        pass
    raise Problem(404, "there is no such job")


def candidate_of(request: Request, job_id: str, index: int) -> CandidateRecord:
    """The candidate that a route names.

    Raises:
        Problem: 404, there is none.
    """
    job_of(request, job_id)
    try:
        return service_of(request).store.candidate(job_id, index)
    except JobError:
        raise Problem(404, "the job has no such candidate") from None


def shown_detector(request: Request) -> Callable[[str], str]:
    """What the service calls a detector that a spec of the store names."""
    settings = service_of(request).settings
    return lambda name: str(shown_spec({"detector": name}, settings)["detector"])
