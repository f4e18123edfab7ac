"""One candidate as people look at it: its row, its trials, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, bindparam, select

from search_server.candidate_names import index_named
from search_server.errors import JobError
from search_server.service.board import BoardRow, job_lines, rows_of
from search_server.store.models import Candidate

if TYPE_CHECKING:
    from search_server.store import CandidateRecord, Store, TrialRecord

MOST_ANCESTORS = 200
MOST_GENERATIONS = 30

_C = Candidate.__table__.c
_SHOWN = ("origin", "parents", "name", "fitness", "cls_text", "bbox_text")
_GENERATION = select(_C["index"].label("number"), *(_C[name] for name in _SHOWN)).where(
    _C.job_id == bindparam("job"), _C["index"].in_(bindparam("wanted", expanding=True))
)


@dataclass(frozen=True)
class Ancestor:
    """A candidate that another one was made from, or made from what it was made from.

    Attributes:
        generation: 1 for a parent, 2 for a parent's parent; the smallest of several.
        fitness: AP in [0, 1].
        cls, bbox: the loss of each branch for people; None: the detector's own.
    """

    index: int
    generation: int
    origin: str
    parents: tuple[int, ...]
    name: str | None
    fitness: float | None
    cls: str | None
    bbox: str | None


@dataclass(frozen=True)
class Lineage:
    """All ancestors, breadth first; `whole` is False where there are more than are shown."""

    ancestors: tuple[Ancestor, ...]
    whole: bool


@dataclass(frozen=True)
class CandidateView:
    """One candidate now."""

    row: BoardRow
    record: CandidateRecord
    trials: Sequence[TrialRecord]
    lineage: Lineage


def candidate_view(
    store: Store, job_id: str, index: int, shown: Callable[[str], str]
) -> CandidateView:
    """What is known of a candidate; curves are left in the store.

    Args:
        shown: see `board`.

    Raises:
        JobError: no such job, or it has no such candidate.
    """
    record = store.candidate(job_id, index)
    trials = store.trials(job_id, index, curves=False)
    with store.reading() as session:
        connection = session.connection()
        jobs = {job.id: job for job in job_lines(connection, job_id, shown)}
        (row,) = rows_of(connection, [(job_id, index)], jobs)
        ancestors = lineage(connection, job_id, record.parents)
    return CandidateView(BoardRow(row, jobs[job_id].detector), record, trials, ancestors)


def lineage(connection: Connection, job_id: str, parents: Sequence[int]) -> Lineage:
    """The ancestors of a candidate with these parents, at most `MOST_ANCESTORS` of at most
    `MOST_GENERATIONS`."""
    found: dict[int, Ancestor] = {}
    wanted = list(dict.fromkeys(parents))
    for generation in range(1, MOST_GENERATIONS + 1):
        room = MOST_ANCESTORS - len(found)
        if not wanted or not room:
            break
        given = {"job": job_id, "wanted": wanted[:room]}
        lines = {line.number: line for line in connection.execute(_GENERATION, given)}
        following: dict[int, None] = dict.fromkeys(wanted[room:])
        for index in wanted[:room]:
            if (line := lines.get(index)) is None:
                continue
            found[index] = Ancestor(
                index, generation, line.origin, tuple(line.parents), line.name, line.fitness,
                line.cls_text, line.bbox_text,
            )  # fmt: skip
            following |= dict.fromkeys(line.parents)
        wanted = [each for each in following if each not in found]
    return Lineage(tuple(found.values()), not wanted)


def candidate_keys(candidates: Sequence[str]) -> list[tuple[str, int]]:
    """Jobs and indices of texts `JOB:INDEX`.

    Raises:
        JobError: one is no candidate.
    """
    found = []
    for text in candidates:
        job, _, digits = text.rpartition(":")
        index = index_named(digits)
        if not job or index is None:
            raise JobError(f"{text[:100]!r} is no candidate; give JOB:INDEX")
        found.append((job, index))
    return found


def curves_of(
    trials: Sequence[TrialRecord], most: int
) -> list[tuple[TrialRecord, Mapping[str, list[float | None]]]]:
    """The trials that have curves, with at most `most` of the points of each."""
    found: list[tuple[TrialRecord, Mapping[str, list[float | None]]]] = []
    for trial in trials:
        if not trial.curves:
            continue
        longest = max(len(values) for values in trial.curves.values())
        every = max(1, -(-longest // most))
        found.append((trial, {name: each[::every] for name, each in trial.curves.items()}))
    return found
