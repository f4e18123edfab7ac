"""The leaderboard: the candidates of a job, or of all jobs by trial spec, best first.

Three queries a page: the front of AP and size, the trials of the stages that judge, and the rows.
A difference to the baseline is paired: the mean, over the seeds that both have, of candidate minus
baseline, because one seed's luck is as large as what a loss can gain. Confirmed candidates stand
before all others, for what the others show is the luck, too, that they were picked for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row

from search_server.confirmation import RIVAL, Confirmation, confirmations, judged
from search_server.leaderboard_query import Page, front_query, page_query
from search_server.ranking_text import is_joint, ranking_text
from search_server.rounds import Rounds

if TYPE_CHECKING:
    from search_server.store import Store
    from workers import TrialSpec


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
        rank: 1 for the best: the confirmed ones by their mean difference on `confirm`, then the
            others by fitness; None without either, or failed.
        cls, bbox: the loss of each branch for people; None where the detector keeps its own.
        rpn: the ranking loss of the region proposal network; None where it keeps its own.
        joint: whether `cls` is the loss of the boxes too, so that there is none in `bbox`.
        round: of a policy search, from 1; None for its baseline and final mean, and elsewhere.
        fitness: mean AP over the proxy seeds, in [0, 1]; a diverged seed counts as 0.
        deviation: sample standard deviation over the seeds, None with fewer than two.
        seeds: how many proxy trials the fitness comes from so far.
        difference: to the group's baseline; None for the baseline, and without a common seed.
        baseline: whether it is the row that the others are compared with.
        judged: its trials of `confirm` and `test`; None where it has none.
        front: whether no candidate of at most its size has a higher fitness: it is on the front of
            AP and size.
        reused: `JOB:candidate:stage:seed` of the trials whose results were taken over.
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
    rpn: str | None = None
    joint: bool = False
    round: int | None = None
    judged: Confirmation | None = None
    front: bool = False
    reused: tuple[str, ...] = ()

    @property
    def confirmed(self) -> bool:
        """Whether fresh seeds on `confirm` have a say about it."""
        return self.judged is not None and self.judged.confirmed

    @property
    def rival(self) -> bool:
        """Whether it is a loss that the found ones have to beat, and was not searched."""
        return self.origin == RIVAL

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
    """Identity of a trial spec without loss definition, seed and rungs: SHA-256, hex.

    Two trials of one group differ in nothing but these, so their APs can be compared.
    """
    return replace(spec, definition={}, seed=0, rungs=(), pause_after=None).key


def leaderboard(
    store: Store,
    job_id: str | None = None,
    *,
    limit: int = 20,
    offset: int = 0,
    state: str | None = None,
    pareto: bool = False,
) -> list[LeaderboardGroup]:
    """The candidates of one job (one group), or of all jobs, the group of the newest job first.

    Args:
        limit: rows per group, after `offset`.
        state: only candidates in this state.
        pareto: only those on the front of AP and size.

    Raises:
        JobError: no such job.
    """
    if job_id is not None:
        store.job(job_id)
    return _groups(store, Page(job_id, limit, offset, state), pareto)


def leaderboard_row(store: Store, job_id: str, index: int) -> LeaderboardRow:
    """One candidate as it stands on its job's leaderboard.

    Raises:
        JobError: no such job, or it has no such candidate.
    """
    store.candidate(job_id, index)
    return _groups(store, Page(job_id, index=index))[0].rows[0]


def _groups(store: Store, page: Page, pareto: bool = False) -> list[LeaderboardGroup]:
    with store.reading() as session:
        front = {(job, index) for job, index in session.execute(front_query(page.job_id))}
    trials = judged(store, None if page.job_id is None else [page.job_id])
    more = {job: confirmations(own) for job, own in trials.items()}
    if pareto:
        page = replace(page, only=tuple(sorted(front)))
    with store.reading() as session:
        found = session.execute(page_query(page)).all()
    groups = [_group(key, list(rows)) for key, rows in groupby(found, key=lambda row: row.group)]
    return [_completed(group, more, front) for group in groups]


def _completed(
    group: LeaderboardGroup,
    more: Mapping[str, Mapping[int, Confirmation]],
    front: Collection[tuple[str, int]],
) -> LeaderboardGroup:
    """The group with what the other two queries know of its rows."""

    def complete(row: LeaderboardRow) -> LeaderboardRow:
        own = more.get(row.job, {}).get(row.index)
        reused = (*row.reused, *(() if own is None else own.reused))
        on_front = (row.job, row.index) in front
        return replace(row, judged=own, front=on_front, reused=reused)

    baseline = None if group.baseline is None else complete(group.baseline)
    return replace(group, rows=tuple(map(complete, group.rows)), baseline=baseline)


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
    rounds = Rounds.of(first["searcher"])
    known = first["fitness"] is not None or first["gain"] is not None
    ranked = known and first["state"] != "failed" and first["on_page"]
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
        rpn=ranking_text(first["rpn"]) if isinstance(first["rpn"], Mapping) else None,
        joint=is_joint(first["cls"]),
        round=None if rounds is None else rounds.round(first["index"]),
        reused=tuple(line.reused_from for line in lines if line.reused_from is not None),
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
