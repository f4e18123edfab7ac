"""The leaderboard's queries: candidates ranked in their group, a line for each of their seeds;
those on the front of AP and size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    Subquery,
    and_,
    case,
    desc,
    func,
    literal,
    or_,
    select,
    tuple_,
    type_coerce,
)
from sqlalchemy.orm import aliased

from search_server.confirmation import CONFIRM, ENDED
from search_server.store.models import Candidate, Job, Trial

STAGE = "proxy"  # the stage whose trials make the fitness
_SHOWN = (
    *("job_id", "index", "name", "origin", "cls_text", "bbox_text", "size", "stage", "state"),
    *("reason", "simulate_score", "fitness"),
)


@dataclass(frozen=True)
class Page:
    """What part of the leaderboard is asked for.

    Attributes:
        job_id: one job; None for all, in groups.
        limit, offset: rows per group.
        state: only candidates in this state.
        index: only this candidate of the job, whatever the above say.
        only: only these candidates, by job and index; None: all.
    """

    job_id: str | None = None
    limit: int = 20
    offset: int = 0
    state: str | None = None
    index: int | None = None
    only: tuple[tuple[str, int], ...] | None = None


def _gains(job_id: str | None) -> Subquery:
    """The mean difference to the baseline on `confirm`, over the seeds that both have, of every
    candidate that has any; the baseline's own is 0."""
    own, base = aliased(Trial, name="confirmed"), aliased(Trial, name="confirmed_base")
    query = (
        select(own.job_id, own.candidate, func.avg(_measured(own) - _measured(base)).label("gain"))
        .join(
            base,
            and_(
                base.job_id == own.job_id,
                base.candidate == 0,
                base.stage == own.stage,
                base.seed == own.seed,
                base.state.in_(ENDED),
            ),
        )
        .where(own.stage == CONFIRM, own.state.in_(ENDED))
        .group_by(own.job_id, own.candidate)
    )
    if job_id is not None:
        query = query.where(own.job_id == job_id)
    return query.subquery("gains")


def _order(gain: ColumnElement[Any]) -> list[ColumnElement[Any]]:
    """The confirmed ones by their gain, the others by fitness, then what has none by its
    simulation, failed ones last; ties by age."""
    c = Candidate
    rank = case(
        (c.state == "failed", 4),
        (gain.is_not(None), 0),
        (c.fitness.is_not(None), 1),
        (c.simulate_score.is_not(None), 2),
        else_=3,
    )
    best_first = desc(func.coalesce(gain, c.fitness, c.simulate_score, 0.0))
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


def _chosen(page: Page, group: ColumnElement[Any]) -> Subquery:
    """The candidates of the page with their place in their group, and every first candidate.

    With a filter the candidates it leaves come first, and are all that can be on the page.
    """
    gains = _gains(page.job_id)
    gain = gains.c.gain
    conditions = [] if page.state is None else [Candidate.state == page.state]
    if page.only is not None:
        conditions.append(tuple_(Candidate.job_id, Candidate.index).in_(page.only))
    wanted = case((and_(*conditions), 1), else_=0) if conditions else literal(1)
    order = [desc(wanted), *_order(gain)] if conditions else _order(gain)
    place = func.row_number().over(partition_by=group, order_by=order)
    query = (
        select(
            Candidate.job_id,
            Candidate.index,
            group.label("group"),
            wanted.label("wanted"),
            place.label("place"),
            gain.label("gain"),
        )
        .join(Job, Job.id == Candidate.job_id)
        .outerjoin(
            gains,
            and_(gains.c.job_id == Candidate.job_id, gains.c.candidate == Candidate.index),
        )
    )
    if page.job_id is not None:
        query = query.where(Candidate.job_id == page.job_id)
    ranked = query.subquery("ranked")
    place_in = and_(ranked.c.place > page.offset, ranked.c.place <= page.offset + page.limit)
    on_page = and_(ranked.c.wanted == 1, place_in)
    if page.index is not None:
        on_page = and_(ranked.c.index == page.index)
    chosen = select(ranked, case((on_page, 1), else_=0).label("on_page"))
    return chosen.where(or_(on_page, ranked.c.index == 0)).subquery("chosen")


def page_query(page: Page) -> Select[*tuple[Any, ...]]:
    """One line per (candidate of the page, seed), with the baseline's AP for that seed."""
    group = _group_key()
    chosen, heads = _chosen(page, group), _heads(page.job_id, group)
    bases, base_job = _bases(page.job_id, group), aliased(Job, name="base_job")
    own, other = aliased(Trial, name="own"), aliased(Trial, name="other")
    own_job = aliased(Job, name="own_job")
    is_base = and_(chosen.c.job_id == bases.c.job_id, chosen.c.index == 0)
    columns = [getattr(Candidate, name) for name in _SHOWN]
    return (
        select(
            *columns,
            Candidate.definition["cls"].label("cls"),
            Candidate.definition["rpn"].label("rpn"),
            own_job.spec["searcher"].label("searcher"),
            chosen.c.group,
            chosen.c.place,
            chosen.c.gain,
            heads.c.total,
            case((is_base, 1), else_=0).label("is_base"),
            chosen.c.on_page,
            case((is_base, base_job.spec)).label("spec"),
            _measured(own).label("value"),
            own.reused_from.label("reused_from"),
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
        .join(own_job, own_job.id == chosen.c.job_id)
        .outerjoin(
            own,
            and_(
                own.job_id == chosen.c.job_id,
                own.candidate == chosen.c.index,
                own.stage == STAGE,
                own.state.in_(ENDED),
            ),
        )
        .outerjoin(
            other,
            and_(
                other.job_id == bases.c.job_id,
                other.candidate == 0,
                other.stage == STAGE,
                other.seed == own.seed,
                other.state.in_(ENDED),
            ),
        )
        .where(or_(chosen.c.on_page == 1, is_base))
        .order_by(heads.c.newest.desc(), chosen.c.group, chosen.c.place, own.seed)
    )


def front_query(job_id: str | None) -> Select[*tuple[Any, ...]]:
    """Job and index of the candidates on the front of AP and size, in each group.

    One is on it if every other of at most its size has a lower fitness; of equals the older one.
    """
    group = _group_key()
    smaller_first = (Candidate.size, Candidate.fitness.desc(), Job.serial, Candidate.index)
    best_before = func.max(Candidate.fitness).over(
        partition_by=group, order_by=smaller_first, rows=(None, -1)
    )
    query = (
        select(
            Candidate.job_id,
            Candidate.index,
            Candidate.fitness,
            best_before.label("best_before"),
        )
        .join(Job, Job.id == Candidate.job_id)
        .where(Candidate.state == "done", Candidate.fitness.is_not(None))
    )
    if job_id is not None:
        query = query.where(Candidate.job_id == job_id)
    known = query.subquery("known")
    better = or_(known.c.best_before.is_(None), known.c.fitness > known.c.best_before)
    return select(known.c.job_id, known.c["index"]).where(better)


def _group_key() -> ColumnElement[Any]:
    """What a candidate's job is grouped by: its trial group, or itself where that is not known."""
    return case((Job.trial_group == "", Job.id), else_=Job.trial_group)


def _measured(trial: Any) -> ColumnElement[Any]:
    """A trial's AP; diverging is the worst there is."""
    return case((trial.state == "diverged", 0.0), else_=trial.fitness)
