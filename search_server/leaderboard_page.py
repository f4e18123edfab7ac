"""A page of the leaderboard, put together: a fixed number of queries, whatever the store holds.

They are the jobs, the front of AP and size, the places of the page, what stands on them and the
groups' baselines, the trials of all of these and of their jobs' baselines, and the specs of the
groups' baselines.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection

from search_server.leaderboard_front import front
from search_server.leaderboard_keys import STAGE, Key, Trials, Values, candidates, trials
from search_server.leaderboard_making import NONE, made_row
from search_server.leaderboard_query import (
    AT_ONCE,
    SPECS,
    Line,
    Page,
    jobs_query,
    place_query,
    places_query,
)
from search_server.leaderboard_rows import LeaderboardGroup, LeaderboardRow
from search_server.rounds import Rounds

if TYPE_CHECKING:
    from search_server.store import Store

T = TypeVar("T")


@dataclass(frozen=True)
class _Group:
    """The jobs that are ranked together, the oldest first, and the one whose first candidate is the
    baseline of all."""

    number: int
    jobs: tuple[Line, ...]
    base: Line | None

    @property
    def key(self) -> str:
        return self.jobs[0].trial_group or str(self.jobs[0].id)


_IN_ORDER = attrgetter("standing", "behind", "serial", "number")


@dataclass(frozen=True)
class _Known:
    """What the queries know of the rows of a page.

    Attributes:
        trials: by job and index, of the rows and of their jobs' and groups' baselines.
        specs: of the groups' baselines, by job.
        front: serial and index, by group.
    """

    jobs: Mapping[str, Line]
    trials: Mapping[Key, Trials]
    specs: Mapping[str, Mapping[str, Any]]
    front: Mapping[int, set[tuple[int, int]]]

    def of(self, line: Line) -> Trials:
        return self.trials.get((line.job_id, line.number), NONE)

    def beside(self, line: Line) -> Trials:
        """The trials of a row's own baseline; none for that one itself."""
        return self.trials.get((line.job_id, 0), NONE) if line.number else NONE


def groups(store: Store, page: Page) -> list[LeaderboardGroup]:
    """The groups that have a row on the page or a baseline, that of the newest job first."""
    with store.reading() as session:
        connection = session.connection()
        one = page.job_id is not None
        jobs = connection.execute(jobs_query(one=one), {"job": page.job_id} if one else {}).all()
        found = _grouped(jobs, page)
        numbers = [group.number for group in found]
        on_front = front(connection, numbers, by_job=one)
        ids = {job.serial: job.id for job in jobs}
        keys = [(ids[serial], index) for serial, index in _places(connection, page, on_front)]
        bases = [(group.base.id, 0) for group in found if group.base is not None]
        by_key = candidates(connection, {*keys, *bases})
        rows = _rows([by_key[key] for key in keys], page)
        shown = [*(line for own in rows.values() for line in own), *(by_key[key] for key in bases)]
        known = _known(connection, jobs, shown, [job for job, _ in bases], on_front)
        places = dict.fromkeys(numbers, page.offset + 1)
        if page.index is not None and rows:
            ((number, (line,)),) = rows.items()
            places[number] = 1 + (connection.scalar(place_query(), dict(line._mapping)) or 0)
    made = [_group(group, rows.get(group.number, []), places, by_key, known) for group in found]
    return [group for group in made if group.rows or group.baseline is not None]


def _grouped(jobs: Sequence[Line], page: Page) -> list[_Group]:
    by_number: dict[int, list[Line]] = defaultdict(list)
    for job in jobs:
        by_number[job.board if page.job_id is None else job.serial].append(job)
    newest_first = sorted(by_number.items(), key=lambda item: -item[1][-1].serial)
    return [_Group(number, tuple(own), _base(own)) for number, own in newest_first]


def _base(jobs: Sequence[Line]) -> Line | None:
    """The first job whose baseline was trained, else the first that has one."""
    having = [job for job in jobs if job.origin == "baseline"]
    return min(having, key=lambda job: (job.fitness is None, job.serial), default=None)


def _places(
    connection: Connection, page: Page, on_front: Mapping[int, set[tuple[int, int]]]
) -> Iterator[tuple[int, int]]:
    """Serial and index of what is on the page, in no order; of a front all that is on it."""
    if page.index is not None:
        for serial in on_front:
            yield serial, page.index
    elif page.pareto:
        for front in on_front.values():
            yield from front
    else:
        for some in _batches([*on_front], AT_ONCE):
            yield from connection.execute(*places_query(page, some))


def _rows(lines: Sequence[Line], page: Page) -> dict[int, list[Line]]:
    """The rows of the page by group, in order."""
    rows: dict[int, list[Line]] = defaultdict(list)
    for line in lines:
        if page.state is None or line.state == page.state or page.index is not None:
            rows[line.board if page.job_id is None else line.serial].append(line)
    for number, own in rows.items():
        own.sort(key=_IN_ORDER)
        if page.pareto and page.index is None:
            rows[number] = own[page.offset : page.offset + page.limit]
    return rows


def _known(
    connection: Connection,
    jobs: Sequence[Line],
    shown: Sequence[Line],
    bases: Sequence[str],
    on_front: Mapping[int, set[tuple[int, int]]],
) -> _Known:
    by_id = {job.id: job for job in jobs}
    keys = {(line.job_id, line.number) for line in shown}
    keys |= {(line.job_id, 0) for line in shown if by_id[line.job_id].judged}
    specs = connection.execute(SPECS, {"jobs": bases})
    found = trials(connection, keys)
    return _Known(by_id, found, {line.id: line.spec for line in specs}, on_front)


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _group(
    group: _Group,
    lines: Sequence[Line],
    places: Mapping[int, int],
    by_key: Mapping[Key, Line],
    known: _Known,
) -> LeaderboardGroup:
    base = None if group.base is None else by_key[group.base.id, 0]
    by_seed: Values = {} if base is None else known.of(base).values(STAGE)

    def row(line: Line, place: int | None) -> LeaderboardRow:
        is_base = base is not None and (line.job_id, line.number) == (base.job_id, 0)
        return _row(line, group.number, place, None if is_base else by_seed, known)

    start = places[group.number]
    rows = tuple(row(line, start + number) for number, line in enumerate(lines))
    baseline = None
    if base is not None:
        baseline = next((each for each in rows if each.baseline), None) or row(base, None)
    spec = {} if base is None else known.specs[base.job_id]
    total = sum(job.candidates for job in group.jobs)
    return LeaderboardGroup(group.key, spec, total, rows, baseline)


def _row(
    line: Line, group: int, place: int | None, base: Values | None, known: _Known
) -> LeaderboardRow:
    """One candidate; `base` is the baseline's AP by seed, None for the baseline itself."""
    job = known.jobs[line.job_id]
    ranked = line.state != "failed" and (line.fitness is not None or line.gain is not None)
    return made_row(
        line,
        known.of(line),
        known.beside(line),
        base or {},
        baseline=base is None,
        rank=place if ranked else None,
        rounds=None if job.rounds is None else Rounds(job.rounds, job.samples),
        front=(line.serial, line.number) in known.front[group],
    )
