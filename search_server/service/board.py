"""The board: candidates of any jobs as the leaderboard shows them, filtered, sorted, in pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select

from search_server.leaderboard_front import front
from search_server.leaderboard_keys import STAGE, Key, candidates, trials
from search_server.leaderboard_making import NONE, made_row
from search_server.leaderboard_rows import LeaderboardRow
from search_server.rounds import Rounds
from search_server.service.board_query import AT_ONCE, Place, Shape, statement
from search_server.store.models import Job

if TYPE_CHECKING:
    from search_server.store import Store

EVERYTHING = Shape()


@dataclass(frozen=True)
class Asked:
    """What part of the board is asked for.

    Attributes:
        job, detector, space: only of this job; of jobs of this detector, as the service calls it;
            of jobs that search this space in a branch.
        shape: the other filters, and the order.
        after: the place that the page before ended at; empty for the first.
    """

    job: str | None = None
    detector: str | None = None
    space: str | None = None
    shape: Shape = EVERYTHING
    limit: int = 50
    after: tuple[int | float, ...] = ()


@dataclass(frozen=True)
class BoardRow:
    """A row of the leaderboard, without its rank, and the detector it is of."""

    row: LeaderboardRow
    detector: str


@dataclass(frozen=True)
class BoardPage:
    """A page; `next` is the place where it ends, None on the last."""

    rows: tuple[BoardRow, ...]
    next: Place | None


@dataclass(frozen=True)
class JobLine:
    """What the board knows of a job."""

    id: str
    serial: int
    detector: str
    spaces: tuple[str, ...]
    rounds: Rounds | None


def board(store: Store, asked: Asked, shown: Callable[[str], str]) -> BoardPage:
    """A page of the board; empty where nothing fits.

    Args:
        shown: a detector as a spec names it -> as the service calls it.
    """
    with store.reading() as session:
        connection = session.connection()
        jobs = {
            job.id: job
            for job in job_lines(connection, asked.job, shown)
            if asked.detector in (None, job.detector)
            and (asked.space is None or asked.space in job.spaces)
        }
        found = _keys(connection, asked, list(jobs.values()))
        page = found[: asked.limit]
        keys = [(job, number) for job, number, *_ in page]
        rows = rows_of(connection, keys, jobs)
    end = list(page[-1][2:]) if len(found) > asked.limit else None
    return BoardPage(tuple(BoardRow(row, jobs[row.job].detector) for row in rows), end)


def job_lines(
    connection: Connection, job: str | None, shown: Callable[[str], str]
) -> list[JobLine]:
    """The jobs, or the one, the oldest first."""
    query = select(
        Job.id, Job.serial, Job.spec["detector"].as_string(), Job.spec["branches"],
        Job.rounds, Job.samples,
    ).order_by(Job.serial)  # fmt: skip
    if job is not None:
        query = query.where(Job.id == job)
    names: dict[str, str] = {}
    found = []
    for job_id, serial, detector, branches, rounds, samples in connection.execute(query):
        name = str(detector or "")
        if name not in names:
            names[name] = shown(name)
        policy = None if rounds is None else Rounds(rounds, samples)
        found.append(JobLine(job_id, serial, names[name], _spaces(branches), policy))
    return found


def rows_of(
    connection: Connection, keys: Sequence[Key], jobs: Mapping[str, JobLine]
) -> list[LeaderboardRow]:
    """The rows of candidates, in the order of their keys, each beside the baseline of its job."""
    if not keys:
        return []
    by_key = candidates(connection, set(keys))
    lines = [*by_key.values()]
    tried = trials(connection, {*keys, *((job, 0) for job, _ in keys)})
    serials = sorted({line.serial for line in lines})
    on_front = front(connection, serials, by_job=True)
    made = []
    for key in keys:
        line = by_key[key]
        ahead = (line.serial, line.number) in on_front[line.serial]
        base = tried.get((line.job_id, 0), NONE) if line.number else NONE
        row = made_row(
            line,
            tried.get(key, NONE),
            base,
            base.values(STAGE),
            baseline=line.origin == "baseline",
            rank=None,
            rounds=jobs[line.job_id].rounds,
            front=ahead,
        )
        made.append(row)
    return made


def _keys(connection: Connection, asked: Asked, jobs: Sequence[JobLine]) -> list[Any]:
    """Job, index and key of one row more than a page has, in order."""
    shape = replace(asked.shape, after=bool(asked.after))
    ahead: list[int] = []
    if shape.front:
        serials = [job.serial for job in jobs]
        found = front(connection, serials, by_job=True)
        ahead = sorted(index for own in found.values() for _, index in own)
    rows: list[Any] = []
    for start in range(0, len(jobs), AT_ONCE):
        some = [(job.id, job.serial) for job in jobs[start : start + AT_ONCE]]
        query, given = statement(shape, some, asked.limit + 1, list(asked.after), ahead)
        rows += connection.execute(query, given)
    if len(jobs) > AT_ONCE:
        rows.sort(key=lambda row: tuple(row[2:]))
    return rows[: asked.limit + 1]


def _spaces(branches: object) -> tuple[str, ...]:
    """The names of the spaces that a spec's branches are searched in."""
    found = []
    for branch in branches.values() if isinstance(branches, Mapping) else ():
        space = branch.get("space") if isinstance(branch, Mapping) else None
        found.append(space.get("name") if isinstance(space, Mapping) else space)
    return tuple(str(each) for each in found if each is not None)
