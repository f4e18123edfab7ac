"""A page of the leaderboard, put together: a fixed number of queries, whatever the store holds.

They are the jobs, the front of AP and size, the rows, the groups' baselines, the trials of all of
these and of their jobs' baselines, and the specs of the groups' baselines.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from search_server.confirmation import CONFIRM, TEST, Confirmation, reading
from search_server.leaderboard_front import front
from search_server.leaderboard_query import (
    AT_ONCE,
    STAGE,
    Key,
    Page,
    first_query,
    jobs_query,
    page_query,
    place_query,
    trials_query,
)
from search_server.leaderboard_rows import LeaderboardGroup, LeaderboardRow, Paired
from search_server.ranking_text import is_joint, ranking_text
from search_server.rounds import Rounds
from search_server.seed_statistics import deviation
from search_server.store.models import Job

if TYPE_CHECKING:
    from search_server.store import Store

T = TypeVar("T")
Line = Row[*tuple[Any, ...]]


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


Values = Mapping[int, float]
"""AP in [0, 1] by seed."""


@dataclass(frozen=True)
class _Trials:
    """The trials of one candidate.

    Attributes:
        stages: AP by seed of each stage.
        sources: stage and source of the results that were taken over, the proxy's first.
    """

    stages: Mapping[str, Values]
    sources: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, lines: Sequence[Line]) -> _Trials:
        stages: dict[str, dict[int, float]] = defaultdict(dict)
        for line in lines:
            if line.value is not None:
                stages[line.stage][line.seed] = line.value
        taken = [(line.stage, line.reused_from) for line in lines if line.reused_from is not None]
        return cls(stages, tuple(sorted(taken, key=lambda each: each[0] != STAGE)))

    def values(self, stage: str) -> Values:
        return self.stages.get(stage, {})


_NONE = _Trials({}, ())


@dataclass(frozen=True)
class _Known:
    """What the queries know of the rows of a page.

    Attributes:
        trials: by job and index, of the rows and of their jobs' and groups' baselines.
        specs: of the groups' baselines, by job.
        front: serial and index, by group.
    """

    jobs: Mapping[str, Line]
    trials: Mapping[Key, _Trials]
    specs: Mapping[str, Mapping[str, Any]]
    front: Mapping[int, set[tuple[int, int]]]

    def of(self, line: Line) -> _Trials:
        return self.trials.get((line.job_id, line.number), _NONE)

    def judged(self, line: Line) -> Confirmation | None:
        """What the stages that judge say of a row; None where it has no trial of them."""
        own = self.of(line)
        if not own.values(CONFIRM) and not own.values(TEST):
            return None
        base = self.trials.get((line.job_id, 0), _NONE) if line.number else _NONE
        return Confirmation(
            confirm=reading(own.values(CONFIRM), base.values(CONFIRM)),
            test=reading(own.values(TEST), base.values(TEST)),
            gain=line.gain,
            p=line.p,
            family=line.family or 0,
            shrunken=line.shrunken,
            reused=tuple(source for stage, source in own.sources if stage != STAGE),
        )


def groups(store: Store, page: Page) -> list[LeaderboardGroup]:
    """The groups that have a row on the page or a baseline, that of the newest job first."""
    with store.reading() as session:
        jobs = session.execute(jobs_query(page.job_id)).all()
        found = _grouped(jobs, page)
        numbers = [group.number for group in found]
        on_front = front(session, numbers, by_job=page.job_id is not None)
        rows = _rows(session, page, numbers, on_front)
        bases = [group.base.id for group in found if group.base is not None]
        first = {line.job_id: line for line in session.execute(first_query(bases))}
        shown = [*(line for own in rows.values() for line in own), *first.values()]
        known = _known(session, jobs, shown, bases, on_front)
        places = dict.fromkeys(numbers, page.offset + 1)
        if page.index is not None and rows:
            ((number, (line,)),) = rows.items()
            places[number] = 1 + (session.scalar(place_query(page, line)) or 0)
    made = [_group(group, rows.get(group.number, []), places, first, known) for group in found]
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


def _rows(
    session: Session,
    page: Page,
    numbers: Sequence[int],
    on_front: Mapping[int, set[tuple[int, int]]],
) -> dict[int, list[Line]]:
    """The rows of the page by group, in order."""
    rows: dict[int, list[Line]] = defaultdict(list)
    for some in _batches(numbers, AT_ONCE):
        only = sorted({key for number in some for key in on_front[number]}) if page.pareto else None
        if only is not None and not only:
            continue
        for line in session.execute(page_query(page, some, only)):
            rows[line.group].append(line)
    for own in rows.values():
        own.sort(key=lambda line: (line.standing, line.behind, line.serial, line.number))
    return rows


def _known(
    session: Session,
    jobs: Sequence[Line],
    shown: Sequence[Line],
    bases: Sequence[str],
    on_front: Mapping[int, set[tuple[int, int]]],
) -> _Known:
    by_id = {job.id: job for job in jobs}
    keys = {(line.job_id, line.number) for line in shown}
    keys |= {(line.job_id, 0) for line in shown if by_id[line.job_id].judged}
    lines: dict[Key, list[Line]] = defaultdict(list)
    for some in _batches(sorted(keys), 50 * AT_ONCE):
        for line in session.execute(trials_query(some)):
            if line.seed is not None:
                lines[line.job_id, line.candidate].append(line)
    specs = session.execute(select(Job.id, Job.spec).where(Job.id.in_(bases)))
    trials = {key: _Trials.of(own) for key, own in lines.items()}
    return _Known(by_id, trials, {line.id: line.spec for line in specs}, on_front)


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _group(
    group: _Group,
    lines: Sequence[Line],
    places: Mapping[int, int],
    first: Mapping[str, Line],
    known: _Known,
) -> LeaderboardGroup:
    base = None if group.base is None else first[group.base.id]
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
    job, trials = known.jobs[line.job_id], known.of(line)
    values = trials.values(STAGE)
    rounds = None if job.rounds is None else Rounds(job.rounds, job.samples)
    ranked = line.state != "failed" and (line.fitness is not None or line.gain is not None)
    branch = line.definition.get("rpn")
    return LeaderboardRow(
        rank=place if ranked else None,
        job=line.job_id,
        index=line.number,
        name=line.name,
        origin=line.origin,
        cls=line.cls_text,
        bbox=line.bbox_text,
        size=line.size,
        stage=line.stage,
        state=line.state,
        reason=line.reason,
        simulate_score=line.simulate_score,
        fitness=line.fitness,
        deviation=deviation([*values.values()]),
        seeds=len(values),
        difference=None if base is None else _paired(values, base),
        baseline=base is None,
        rpn=ranking_text(branch) if isinstance(branch, Mapping) else None,
        joint=is_joint(line.definition.get("cls")),
        round=None if rounds is None else rounds.round(line.number),
        judged=known.judged(line),
        front=(line.serial, line.number) in known.front[group],
        reused=tuple(source for _, source in trials.sources),
    )


def _paired(values: Values, base: Values) -> Paired | None:
    both = [value - base[seed] for seed, value in values.items() if seed in base]
    if not both:
        return None
    return Paired(fmean(both), deviation(both), len(both))
