"""Candidates beside each other: ticked on a leaderboard, or named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from search_server.errors import JobError
from search_server.service.access import Reader
from search_server.service.api.compare import MOST
from search_server.service.candidate_view import candidate_keys
from search_server.service.comparing import ComparedStage, Comparison, compared
from search_server.service.formula_view import FormulaView, formula_view
from search_server.service.pages.rendering import page
from search_server.service.problems import Problem
from search_server.service.state import service_of

router = APIRouter()
EDGE = 3.0  # percent of a scale's width within which a number would be cut off
Id = Annotated[str, Query(max_length=220)]


@dataclass(frozen=True)
class Mark:
    """A difference and its interval as places on a line, in percent of its width."""

    id: str
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Forest:
    """The differences of a stage on one scale; `zero` is the baseline's place on it.

    Attributes:
        ticks: place in percent, and AP in points.
    """

    marks: tuple[Mark, ...]
    zero: float
    ticks: tuple[tuple[float, str], ...]


@router.get("/compare")
def compare(
    request: Request,
    caller: Reader,
    candidate: Annotated[list[Id], Query(max_length=MOST + 1)] = [],  # noqa: B006 - FastAPI copies
    baseline: Annotated[str, Query(max_length=220)] = "",
) -> HTMLResponse:
    """Candidates of the query against one of them, or a form to name some."""
    wanted = [text.strip() for text in candidate if text.strip()]
    found: Comparison | None = None
    trouble, status = "", 200
    formulas: dict[str, FormulaView] = {}
    if wanted:
        try:
            found = _compared(request, wanted, baseline.strip())
            formulas = _formulas(request, found)
        except Problem as problem:
            trouble, status = problem.detail, problem.status
    return page(
        request,
        caller,
        "compare.html",
        status,
        wanted=[loss.id for loss in found.losses] if found else wanted,
        comparison=found,
        formulas=formulas,
        forests={stage.stage: forest(stage) for stage in found.stages} if found else {},
        losses={loss.id: loss for loss in found.losses} if found else {},
        trouble=trouble,
        most=MOST,
    )


def forest(stage: ComparedStage) -> Forest | None:
    """The differences of a stage on a scale that holds them all; None where there are none."""
    given = [(row.id, row.difference) for row in stage.rows if row.difference is not None]
    if not given:
        return None
    ends = [
        end for _, each in given for end in (each.mean, each.low, each.high, 0.0) if end is not None
    ]
    low, high = min(ends), max(ends)
    room = max(0.004, 0.06 * (high - low))
    low, high = low - room, high + room

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    marks = [
        Mark(
            name,
            place(each.mean),
            None if each.low is None else place(each.low),
            None if each.high is None else place(each.high),
        )
        for name, each in given
    ]
    ticks = [
        (place(value), f"{100 * value:+.3g}" if value else "0")
        for value in _ticks(low, high)
        if EDGE <= place(value) <= 100 - EDGE
    ]
    return Forest(tuple(marks), place(0.0), tuple(ticks))


def _ticks(low: float, high: float) -> Sequence[float]:
    """Round values of AP within a range, at most seven."""
    for step in (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
        count = int(high / step) - int(low / step) + 1
        if count <= 7:
            return [step * n for n in range(int(low / step) - 1, int(high / step) + 2)
                    if low < step * n < high]  # fmt: skip
    return [0.0]


def _compared(request: Request, wanted: Sequence[str], baseline: str) -> Comparison:
    """Against the baseline that is named, else that of the first one's job.

    Raises:
        Problem: 422, something is no candidate, or too many are; 404 and 409, see `compared`.
    """
    try:
        keys = candidate_keys(wanted)
        base = candidate_keys([baseline])[0] if baseline else (keys[0][0], 0)
        if not all(job.isprintable() for job, _ in (base, *keys)):
            raise JobError("no job has a control character in its name")
    except JobError as error:
        raise Problem(422, str(error)) from None
    every = list(dict.fromkeys([base, *keys]))
    if len(every) > MOST:
        raise Problem(422, f"at most {MOST} candidates can be compared at a time")
    return compared(service_of(request).store, every, base)


def _formulas(request: Request, found: Comparison) -> dict[str, FormulaView]:
    """Of those that this version can read, by id."""
    store = service_of(request).store
    formulas = {}
    for loss in found.losses:
        try:
            definition = store.candidate(loss.job, loss.index).definition
            formulas[loss.id] = formula_view(definition, stored=True)
        except Problem:
            continue
    return formulas
