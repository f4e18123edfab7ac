"""Errors as answers: problem details (RFC 9457) for programs, with no word of the inside."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from search_server.errors import IllegalMove, JobError, SearchError, SpecError, StoreAway
from search_server.service.texts import placeless

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class FieldProblem(BaseModel):
    """What is wrong with one field of what was sent."""

    field: str = Field(description="dotted path; empty: the whole", examples=["funnel.proxy.steps"])
    value: str = Field(description="what was found there, cut", examples=["-3"])
    allowed: str = Field(description="what would be allowed", examples=["at least 1"])


class ProblemBody(BaseModel):
    """The body of every answer that is an error."""

    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["there is no job digits-9"])
    errors: list[FieldProblem] = Field(default=[], description="where fields are to blame")


class Problem(Exception):  # noqa: N818 - what RFC 9457 calls it
    """An answer that is an error; raised anywhere below a route.

    Attributes:
        status: of HTTP, 400 or above.
        detail: for whoever asked: names nothing that is inside.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[FieldProblem] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        self.status, self.detail, self.errors = status, told(detail, 2000), tuple(errors)
        self.headers = headers
        super().__init__(detail)

    def body(self) -> ProblemBody:
        """What is sent."""
        title = HTTPStatus(self.status).phrase
        return ProblemBody(
            title=title, status=self.status, detail=self.detail, errors=list(self.errors)
        )


def of_specs(found: Sequence[SpecError]) -> Problem:
    """A spec that cannot be used: says which fields, without the source's name."""
    fields = [
        FieldProblem(field=each.field, value=told(each.value), allowed=told(each.allowed, 1000))
        for each in found
    ]
    first = fields[0]
    place = f"{first.field}: " if first.field else ""
    more = f" (and {len(fields) - 1} more)" if len(fields) > 1 else ""
    return Problem(422, f"{place}{first.value} is not allowed here; {first.allowed}{more}", fields)


def of_search(error: SearchError) -> Problem:
    """Any other error of this package, in so far as it is the caller's business."""
    if isinstance(error, SpecError):
        return of_specs([error])
    if isinstance(error, StoreAway):
        return Problem(
            503, "the store does not answer for the moment", headers={"Retry-After": "5"}
        )
    if isinstance(error, JobError | IllegalMove):
        return Problem(409, told(str(error), 1000))
    log.error("the store or a part of it failed: %s", error)
    return Problem(500, "something failed inside; the service's log says what")


def told(value: object, limit: int = 120) -> str:
    """Text of a value that may be anybody's: cut, without half characters, which no answer can
    carry, and without places of this machine's files."""
    text = value if isinstance(value, str) else repr(value)
    text = text[: 4 * limit].encode("utf-8", "backslashreplace").decode()
    text = placeless(text)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def answer(problem: Problem) -> JSONResponse:
    """The problem as JSON."""
    body: dict[str, Any] = problem.body().model_dump(mode="json")
    return JSONResponse(body, problem.status, headers=problem.headers, media_type=MEDIA_TYPE)
