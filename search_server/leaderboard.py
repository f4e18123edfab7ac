"""The leaderboard: the candidates of a job, or of all jobs by trial spec, best first.

One query a page. A row's difference to the baseline is paired: the mean, over the seeds that both
have, of candidate minus baseline, because one seed's luck is as large as what a loss can gain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Row,
    Select,
    Subquery,
    and_,
    case,
    desc,
    func,
    literal,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.orm import aliased

from search_server.store.models import Candidate, Job, Trial

if TYPE_CHECKING:
    from search_server.store import Store
    from workers import TrialSpec

STAGE = "proxy"  # the stage whose trials make the fitness
_SHOWN = (
    *("job_id", "index", "name", "origin", "cls_text", "bbox_text", "size", "stage", "state"),
    *("reason", "simulate_score", "fitness"),
)


@dataclass(frozen=True)
class Paired:
    """Candidate minus baseline over the seeds both have.

    Attributes:
        mean: mean difference in AP, in [-1, 1].
        deviation: sample standard deviation of the differences, None with one seed.
        seeds: how many seeds both have, at least 1.
    """

    mean: float
    deviation: float | None
    seeds: int


@dataclass(frozen=True)
class LeaderboardRow:
    """One candidate on the leaderboard.

    Attributes:
        rank: 1 for the best; None without a fitness, or failed.
        cls, bbox: the loss of each branch for people; None where the detector keeps its own.
        fitness: mean AP over the proxy seeds, in [0, 1]; a diverged seed counts as 0.
        deviation: sample standard deviation over the seeds, None with fewer than two.
        seeds: how many proxy trials the fitness comes from so far.
        difference: to the group's baseline; None for the baseline, and without a common seed.
        baseline: whether it is the row that the others are compared with.
    """

    rank: int | None
    job: str
    index: int
    name: str | None
    origin: str
    cls: str | None
    bbox: str | None
    size: int
    stage: str
    state: str
    reason: str
    simulate_score: float | None
    fitness: float | None
    deviation: float | None
    seeds: int
    difference: Paired | None
    baseline: bool

    @property
    def id(self) -> str:
        """`JOB:INDEX`, as `show` and `export` take it."""
        return f"{self.job}:{self.index}"


@dataclass(frozen=True)
class LeaderboardGroup:
    """Candidates whose trials differ only in loss and seed, so that they can be compared.

    Attributes:
        key: the trial group (see `trial_group`), or a job's id where that is not known.
        spec: the job spec of the group's baseline, to say what was trained on what.
        total: how many candidates the group has.
        rows: the page, best first.
        baseline: the group's baseline, which may be on another page; None before it exists.
    """

    key: str
    spec: Mapping[str, Any]
    total: int
    rows: tuple[LeaderboardRow, ...]
    baseline: LeaderboardRow | None


def trial_group(spec: TrialSpec) -> str:
    """Identity of a trial spec without loss definition and seed: SHA-256, hex.

    Two trials of one group differ in nothing but these, so their APs can be compared.
    """
    return replace(spec, definition={}, seed=0).key


def leaderboard(
    store: Store,
    job_id: str | None = None,
    *,
    limit: int = 20,
    offset: int = 0,
    state: str | None = None,
) -> list[LeaderboardGroup]:
    """The candidates of one job (one group), or of all jobs, the group of the newest job first.

    Args:
        limit: rows per group, after `offset`.
        state: only candidates in this state.

    Raises:
        JobError: no such job.
    """
    if job_id is not None:
        store.job(job_id)
    with store.reading() as session:
        found = session.execute(_page(job_id, limit, offset, state)).all()
    return [_group(key, list(rows)) for key, rows in groupby(found, key=lambda row: row.group)]


def _order() -> list[ColumnElement[Any]]:
    """Fitness downwards, then what has none by its simulation, failed ones last; ties by age."""
    c = Candidate
    rank = case(
        (c.state == "failed", 3),
        (c.fitness.is_not(None), 0),
        (c.simulate_score.is_not(None), 1),
        else_=2,
    )
    best_first = desc(func.coalesce(c.fitness, c.simulate_score, 0.0))
    return [rank, best_first, type_coerce(Job.serial, Integer), type_coerce(c.index, Integer)]


def _heads(job_id: str | None, group: ColumnElement[Any]) -> Subquery:
    """One line per group: its candidates' number, its newest job."""
    count = func.count().label("count")
    counted = select(Candidate.job_id, count).group_by(Candidate.job_id).subquery("counted")
    query = select(
        group.label("group"),
        func.sum(counted.c.count).label("total"),
        func.max(Job.serial).label("newest"),
    ).join(counted, counted.c.job_id == Job.id)
    if job_id is not None:
        query = query.where(Job.id == job_id)
    return query.group_by(group).subquery("heads")


def _bases(job_id: str | None, group: ColumnElement[Any]) -> Subquery:
    """Where `n` is 1: a group's baseline, that of its first job whose baseline was trained."""
    trained = case((Candidate.fitness.is_(None), 1), else_=0)
    place = func.row_number().over(partition_by=group, order_by=(trained, Job.serial))
    query = (
        select(Candidate.job_id, group.label("group"), place.label("n"))
        .join(Job, Job.id == Candidate.job_id)
        .where(Candidate.index == 0, Candidate.origin == "baseline")
    )
    if job_id is not None:
        query = query.where(Candidate.job_id == job_id)
    return query.subquery("bases")


def _chosen(
    job_id: str | None, group: ColumnElement[Any], limit: int, offset: int, state: str | None
) -> Subquery:
    """The candidates of the page with their place in their group, and every first candidate.

    With a filter the candidates it leaves come first, and are all that can be on the page.
    """
    wanted = literal(1) if state is None else case((Candidate.state == state, 1), else_=0)
    order = _order() if state is None else [desc(wanted), *_order()]
    place = func.row_number().over(partition_by=group, order_by=order)
    query = select(
        Candidate.job_id,
        Candidate.index,
        group.label("group"),
        wanted.label("wanted"),
        place.label("place"),
    ).join(Job, Job.id == Candidate.job_id)
    if job_id is not None:
        query = query.where(Candidate.job_id == job_id)
    ranked = query.subquery("ranked")
    on_page = and_(ranked.c.wanted == 1, ranked.c.place > offset, ranked.c.place <= offset + limit)
    chosen = select(ranked, case((on_page, 1), else_=0).label("on_page"))
    return chosen.where(or_(on_page, ranked.c.index == 0)).subquery("chosen")


def _page(
    job_id: str | None, limit: int, offset: int, state: str | None
) -> Select[*tuple[Any, ...]]:
    """One line per (candidate of the page, seed), with the baseline's AP for that seed."""
    group = case((Job.trial_group == "", Job.id), else_=Job.trial_group)
    chosen, heads = _chosen(job_id, group, limit, offset, state), _heads(job_id, group)
    bases, base_job = _bases(job_id, group), aliased(Job, name="base_job")
    own, other = aliased(Trial, name="own"), aliased(Trial, name="other")
    is_base = and_(chosen.c.job_id == bases.c.job_id, chosen.c.index == 0)
    ended = ("done", "diverged")
    columns = [getattr(Candidate, name) for name in _SHOWN]
    return (
        select(
            *columns,
            chosen.c.group,
            chosen.c.place,
            heads.c.total,
            case((is_base, 1), else_=0).label("is_base"),
            chosen.c.on_page,
            case((is_base, base_job.spec)).label("spec"),
            _measured(own).label("value"),
            _measured(other).label("base_value"),
        )
        .select_from(chosen)
        .join(heads, heads.c.group == chosen.c.group)
        .outerjoin(bases, and_(bases.c.group == chosen.c.group, bases.c.n == 1))
        .outerjoin(base_job, base_job.id == bases.c.job_id)
        .join(
            Candidate,
            and_(Candidate.job_id == chosen.c.job_id, Candidate.index == chosen.c.index),
        )
        .outerjoin(
            own,
            and_(
                own.job_id == chosen.c.job_id,
                own.candidate == chosen.c.index,
                own.stage == STAGE,
                own.state.in_(ended),
            ),
        )
        .outerjoin(
            other,
            and_(
                other.job_id == bases.c.job_id,
                other.candidate == 0,
                other.stage == STAGE,
                other.seed == own.seed,
                other.state.in_(ended),
            ),
        )
        .where(or_(chosen.c.on_page == 1, is_base))
        .order_by(heads.c.newest.desc(), chosen.c.group, chosen.c.place, own.seed)
    )


def _measured(trial: Any) -> ColumnElement[Any]:
    """A proxy trial's AP; diverging is the worst there is."""
    return case((trial.state == "diverged", 0.0), else_=trial.fitness)


def _group(key: str, found: list[Row[*tuple[Any, ...]]]) -> LeaderboardGroup:
    rows: list[LeaderboardRow] = []
    baseline: LeaderboardRow | None = None
    for _, lines in groupby(found, key=lambda row: row.place):
        seeds = list(lines)
        row = _row(seeds)
        if row.baseline:
            baseline = row
        if seeds[0].on_page:
            rows.append(row)
    spec: Mapping[str, Any] = next((line.spec for line in found if line.spec is not None), {})
    return LeaderboardGroup(key, spec, int(found[0].total), tuple(rows), baseline)


def _row(lines: Sequence[Row[*tuple[Any, ...]]]) -> LeaderboardRow:
    """One candidate from its lines, one line per seed."""
    first = lines[0]._mapping
    values = [line.value for line in lines if line.value is not None]
    ranked = first["fitness"] is not None and first["state"] != "failed" and first["on_page"]
    return LeaderboardRow(
        rank=first["place"] if ranked else None,
        job=first["job_id"],
        index=first["index"],
        name=first["name"],
        origin=first["origin"],
        cls=first["cls_text"],
        bbox=first["bbox_text"],
        size=first["size"],
        stage=first["stage"],
        state=first["state"],
        reason=first["reason"],
        simulate_score=first["simulate_score"],
        fitness=first["fitness"],
        deviation=stdev(values) if len(values) > 1 else None,
        seeds=len(values),
        difference=None if first["is_base"] else _paired(lines),
        baseline=bool(first["is_base"]),
    )


def _paired(lines: Sequence[Row[*tuple[Any, ...]]]) -> Paired | None:
    both = [
        line.value - line.base_value
        for line in lines
        if line.value is not None and line.base_value is not None
    ]
    if not both:
        return None
    return Paired(fmean(both), stdev(both) if len(both) > 1 else None, len(both))
