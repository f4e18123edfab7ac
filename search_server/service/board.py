"""The board: candidates of any jobs as the leaderboard shows them, filtered, sorted, in pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from search_server.leaderboard_front import front
from search_server.leaderboard_keys import STAGE, Key, candidates, trials
from search_server.leaderboard_making import NONE, made_row
from search_server.leaderboard_rows import LeaderboardRow
from search_server.service.board_jobs import JobLine, all_jobs, job_lines
from search_server.service.board_query import AT_ONCE, Place, Shape, statement

if TYPE_CHECKING:
    from search_server.store import Store

EVERYTHING = Shape()
A_FEW = 10  # jobs that are asked for the newest rows first


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


def board(store: Store, asked: Asked, shown: Callable[[str], str]) -> BoardPage:
    """A page of the board; empty where nothing fits.

    Args:
        shown: a detector as a spec names it -> as the service calls it.
    """
    with store.reading() as session:
        connection = session.connection()
        if asked.job is None:
            every = all_jobs(connection, store.url, shown)
        else:
            every = job_lines(connection, asked.job, shown)
        jobs = {
            job.id: job
            for job in every
            if asked.detector in (None, job.detector)
            and (asked.space is None or asked.space in job.spaces)
        }
        boards = {job.board for job in jobs.values()}
        whole = asked.job is None and len(jobs) == sum(job.board in boards for job in every)
        found = _keys(connection, asked, list(jobs.values()), whole=whole)
        # PostgreSQL may know of a job by now that was not there a moment ago.
        found = [row for row in found if row[0] in jobs]
        page = found[: asked.limit]
        keys = [(job, number) for job, number, *_ in page]
        rows = rows_of(connection, keys, jobs)
    end = list(page[-1][2:]) if len(found) > asked.limit else None
    return BoardPage(tuple(BoardRow(row, jobs[row.job].detector) for row in rows), end)


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


def _keys(
    connection: Connection, asked: Asked, jobs: Sequence[JobLine], *, whole: bool
) -> list[Any]:
    """Job, index and key of one row more than a page has, in order.

    Args:
        whole: whether the jobs are all of their boards.
    """
    shape = replace(asked.shape, after=bool(asked.after))
    ahead: list[int] = []
    if shape.front:
        serials = [job.serial for job in jobs]
        found = front(connection, serials, by_job=True)
        ahead = sorted(index for own in found.values() for _, index in own)
    if shape.sort == "newest":
        return _newest(connection, asked, shape, jobs, ahead)
    if whole and shape.on_boards:
        shape = replace(shape, boards=True)
        parts = [("", board) for board in sorted({job.board for job in jobs})]
    else:
        parts = [(job.id, job.serial) for job in jobs]
    rows: list[Any] = []
    for start in range(0, len(parts), AT_ONCE):
        some = parts[start : start + AT_ONCE]
        query, given = statement(shape, some, asked.limit + 1, list(asked.after), ahead)
        rows += connection.execute(query, given)
    if len(parts) > AT_ONCE:
        rows.sort(key=lambda row: tuple(row[2:]))
    return rows[: asked.limit + 1]


def _newest(
    connection: Connection,
    asked: Asked,
    shape: Shape,
    jobs: Sequence[JobLine],
    ahead: Sequence[int],
) -> list[Any]:
    """The same in the order `newest`, in which the rows of one job come after those of another: the
    newest jobs are asked first, and no more of them than it takes."""
    last = -asked.after[0] if asked.after else None
    left = [(job.id, job.serial) for job in jobs if last is None or job.serial <= last]
    rows: list[Any] = []
    few = A_FEW
    while left and len(rows) <= asked.limit:
        some, left = left[-few:], left[:-few]
        query, given = statement(shape, some, asked.limit + 1, list(asked.after), ahead)
        rows += connection.execute(query, given)
        few = min(2 * few, AT_ONCE)
    return rows[: asked.limit + 1]
