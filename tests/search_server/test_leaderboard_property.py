"""Pages of random stores are those of a plain computation over the stored records."""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from statistics import fmean, stdev
from typing import Any

import pytest
from sqlalchemy import event, text

from search_server.confirmation import Judged, confirmations
from search_server.leaderboard import LeaderboardRow, leaderboard, leaderboard_row
from search_server.overview import summaries
from search_server.store import CandidateRecord, JobRecord, Store, TrialRecord
from search_server.store.judged import judged
from workers import TrialResult

ORIGINS = ("random", "mutation", "rival", "mean")
APS = (0.25, 0.5, 0.5, 0.75, 0.3, 0.1 + 0.2)  # with ties


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store.open(url) as opened:
        yield opened


def grow(store: Store, rng: random.Random, groups: Sequence[str], most: int) -> list[str]:
    """Jobs with candidates in every state, trained or not, confirmed or not, moved and taken over:
    by the store's own methods, in a random order of the jobs."""
    jobs = []
    for number, group in enumerate(groups):
        spec = {"searcher": {"type": "policy", "rounds": 2, "samples": 2}} if number % 2 else {}
        jobs.append(store.create_job(f"job {number}", spec, "", ["x"], group))
    waiting = [job for job in jobs for _ in range(rng.randint(0, most))]
    rng.shuffle(waiting)
    made: dict[str, int] = defaultdict(int)
    for job in waiting:
        _one(store, rng, job, made[job])
        made[job] += 1
    return jobs


def _one(store: Store, rng: random.Random, job: str, index: int) -> None:
    origin: Any = rng.choice(ORIGINS)
    if index == 0:
        origin = rng.choice(("baseline", "baseline", "random"))
    score = rng.choice((None, rng.choice(APS)))
    record = CandidateRecord(
        index, origin, (), {}, f"k{index}", size=rng.randint(0, 4), simulate_score=score
    )
    store.add_candidate(job, record)
    for stage, chance in (("simulate", 0.5), ("proxy", 0.8), ("confirm", 0.4), ("test", 0.2)):
        if rng.random() > chance:
            continue
        for seed in rng.sample(range(5), rng.randint(1, 4)):
            _train(store, rng, (job, index, stage, seed))
    proxies = [t for t in store.trials(job, index) if t.stage == "proxy" and t.state in STATES]
    state: Any = rng.choice(("done", "done", "done", "dropped", "failed", "open"))
    fitness = fmean(t.fitness or 0.0 for t in proxies) if proxies else None
    store.update_candidate(job, index, fitness=fitness)
    if rng.random() < 0.3:  # it was better at first
        store.update_candidate(job, index, fitness=rng.choice(APS))
        store.update_candidate(job, index, fitness=fitness)
    store.update_candidate(job, index, state=state)


def _train(store: Store, rng: random.Random, place: tuple[str, int, Any, int]) -> None:
    key = rng.choice((None, f"{rng.randrange(12):064x}"))
    if store.start_trial(*place, "k", key).verdict != "train":
        return
    status: Any = rng.choice(("done", "done", "done", "diverged", "failed", "paused", "running"))
    if status == "running":
        return
    value = rng.choice(APS) if status == "done" else None
    store.finish_trial(*place, TrialResult(status, "", value, place[3], 10))
    if status == "paused" and store.start_trial(*place, "k", key).verdict == "train":
        store.finish_trial(*place, TrialResult("done", "", rng.choice(APS), place[3], 10))


STATES = ("done", "diverged")


def by_seed(trials: Sequence[TrialRecord], index: int, stage: str) -> dict[int, float]:
    return {
        t.seed: 0.0 if t.state == "diverged" else t.fitness
        for t in trials
        if (t.candidate, t.stage) == (index, stage) and t.state in STATES
        if t.state == "diverged" or t.fitness is not None
    }


Entry = tuple[JobRecord, CandidateRecord]


class Plain:
    """All of a store in memory, and the leaderboard worked out from it one candidate at a time."""

    def __init__(self, store: Store) -> None:
        self.jobs = store.jobs()
        self.candidates = {job.id: store.candidates(job.id) for job in self.jobs}
        self.trials = {job.id: store.trials(job.id) for job in self.jobs}
        self.age = {job.id: number for number, job in enumerate(self.jobs)}

    def gain(self, job: str, index: int) -> float | None:
        base = by_seed(self.trials[job], 0, "confirm")
        own = by_seed(self.trials[job], index, "confirm")
        both = [own[seed] - base[seed] for seed in sorted(own) if seed in base]
        return fmean(both) if both else None

    def order(self, entry: Entry) -> tuple[Any, ...]:
        job, one = entry
        gain = self.gain(job.id, one.index)
        values = (gain, one.fitness, one.simulate_score)
        known = next((n for n, value in enumerate(values) if value is not None), 3)
        rank = 4 if one.state == "failed" else known
        value = next((value for value in values if value is not None), 0.0)
        return (rank, -value, self.age[job.id], one.index)

    def on_front(self, entry: Entry, entries: Sequence[Entry]) -> bool:
        def better(other: Entry) -> bool:
            (job, one), (own_job, own) = other, entry
            mine = (-own.fitness, own.size, self.age[own_job.id], own.index)
            return one.size <= own.size and (
                (-one.fitness, one.size, self.age[job.id], one.index) < mine
            )

        done = [each for each in entries if each[1].state == "done" and each[1].fitness is not None]
        return entry in done and not any(better(other) for other in done)

    def groups(
        self,
        job_id: str | None,
        limit: int,
        offset: int,
        state: str | None,
        pareto: bool,
    ) -> list[tuple[str, int, list[dict[str, Any]], str | None]]:
        groups: dict[str, list[JobRecord]] = defaultdict(list)
        for job in self.jobs:
            if self.candidates[job.id] and job_id in (None, job.id):
                groups[job.trial_group or job.id].append(job)
        found = []
        for key, jobs in sorted(groups.items(), key=lambda item: -self.age[item[1][-1].id]):
            entries = [(job, one) for job in jobs for one in self.candidates[job.id]]
            bases = [each for each in entries if (each[1].index, each[1].origin) == (0, "baseline")]
            bases.sort(key=lambda each: (each[1].fitness is None, self.age[each[0].id]))
            base = bases[0] if bases else None
            kept = [each for each in entries if state in (None, each[1].state)]
            if pareto:
                kept = [each for each in kept if self.on_front(each, entries)]
            kept.sort(key=self.order)
            rows = [
                self.row(entry, place, entries, base)
                for place, entry in enumerate(kept, start=1)
                if offset < place <= offset + limit
            ]
            if rows or base is not None:
                name = None if base is None else f"{base[0].id}:0"
                found.append((key, len(entries), rows, name))
        return found

    def row(
        self, entry: Entry, place: int, entries: Sequence[Entry], base: Entry | None
    ) -> dict[str, Any]:
        job, one = entry
        trials = self.trials[job.id]
        own = by_seed(trials, one.index, "proxy")
        theirs = {} if base is None else by_seed(self.trials[base[0].id], 0, "proxy")
        both = [own[seed] - theirs[seed] for seed in own if seed in theirs]
        if entry is base or not both:
            difference = None
        else:
            difference = (fmean(both), stdev(both) if len(both) > 1 else None, len(both))
        ranked = one.fitness is not None or self.gain(job.id, one.index) is not None
        origins = {each.index: each.origin for each in self.candidates[job.id]}
        said = confirmations(
            Judged(index, origins[index], stage, seed, value)
            for index in origins
            for stage in ("confirm", "test")
            for seed, value in by_seed(trials, index, stage).items()
        )
        mine = said.get(one.index)
        return {
            "id": f"{job.id}:{one.index}",
            "rank": place if ranked and one.state != "failed" else None,
            "fitness": one.fitness,
            "seeds": len(own),
            "deviation": stdev(own.values()) if len(own) > 1 else None,
            "difference": difference,
            "baseline": entry is base,
            "front": self.on_front(entry, entries),
            "p": None if mine is None else mine.p,
            "shrunken": None if mine is None else mine.shrunken,
            "reused": {
                t.reused_from
                for t in trials
                if t.candidate == one.index and t.stage != "simulate" and t.state in STATES
                and t.reused_from is not None
            },
        }  # fmt: skip


def told(row: LeaderboardRow) -> dict[str, Any]:
    """What a row of the leaderboard says of all that `Plain.row` works out."""
    d = row.difference
    return {
        "id": row.id,
        "rank": row.rank,
        "fitness": row.fitness,
        "seeds": row.seeds,
        "deviation": row.deviation,
        "difference": None if d is None else (d.mean, d.deviation, d.seeds),
        "baseline": row.baseline,
        "front": row.front,
        "p": None if row.judged is None else row.judged.p,
        "shrunken": None if row.judged is None else row.judged.shrunken,
        "reused": set(row.reused),
    }


def same(found: Any, wanted: Any) -> bool:
    """Equal, numbers up to the rounding of another order of summing."""
    if isinstance(wanted, float) and isinstance(found, float):
        return math.isclose(found, wanted, rel_tol=1e-9, abs_tol=1e-12)
    if isinstance(wanted, Mapping):
        return wanted.keys() == found.keys() and all(same(found[k], wanted[k]) for k in wanted)
    if isinstance(wanted, list | tuple):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    return bool(found == wanted)


PAGES: tuple[dict[str, Any], ...] = (
    {},
    {"limit": 3, "offset": 2},
    {"state": "failed"},
    {"state": "done", "limit": 2},
    {"pareto": True},
    {"pareto": True, "limit": 1, "offset": 1},
    {"pareto": True, "state": "done", "limit": 2},
    {"pareto": True, "state": "open"},
)


@pytest.mark.parametrize("seed", [*range(4), None])
def test_pages_are_those_of_a_plain_computation(store: Store, seed: int | None) -> None:
    """Fixed stores, and a new one in every run."""
    drawn = random.randrange(10**9) if seed is None else seed
    rng = random.Random(drawn)
    groups = ("g", "g", "", "h", "g", "h")
    jobs = grow(store, rng, groups, 9)
    plain = Plain(store)
    for job in (None, *jobs):
        for page in PAGES:
            given = {"limit": 20, "offset": 0, "state": None, "pareto": False, **page}
            found = [
                (
                    group.key,
                    group.total,
                    [told(row) for row in group.rows],
                    None if group.baseline is None else group.baseline.id,
                )
                for group in leaderboard(store, job, **page)
            ]
            assert same(found, plain.groups(job, **given)), (drawn, job, page)
    for job in jobs:
        rows = plain.groups(job, 99, 0, None, False)
        for wanted in rows[0][2] if rows else ():
            index = int(wanted["id"].rpartition(":")[2])
            assert same(told(leaderboard_row(store, job, index)), wanted), drawn


@pytest.mark.parametrize("seed", [*range(4), None])
def test_the_list_of_jobs_is_that_of_a_plain_count(store: Store, seed: int | None) -> None:
    drawn = random.randrange(10**9) if seed is None else seed
    grow(store, random.Random(drawn), ("g", "", "g"), 12)
    plain = Plain(store)
    found = {each.id: each for each in summaries(store)}
    for job in plain.jobs:
        every = plain.candidates[job.id]
        mine = [one for one in every if one.origin not in ("baseline", "rival")]
        trained = [one for one in mine if one.fitness is not None and one.state != "failed"]
        best = partial(max, default=None)
        summary = found[job.id]
        assert (summary.candidates, summary.trained) == (len(mine), len(trained)), drawn
        assert summary.best == best(one.fitness for one in trained), drawn
        own = [one.fitness for one in every if one.origin == "baseline"]
        assert summary.baseline == best(value for value in own if value is not None), drawn
        if summary.rounds is not None:
            means = [one.fitness for one in trained if one.origin == "mean"]
            assert summary.mean == best(means), drawn
        for stage, count in (("confirm", summary.confirmed), ("test", summary.published)):
            ended = [t for t in plain.trials[job.id] if t.stage == stage and t.state != "running"]
            assert count == len(ended), drawn


def plans(store: Store, ask: Callable[[], object]) -> str:
    """How SQLite goes about a question's queries."""
    asked: list[tuple[str, Any]] = []

    def hear(*given: Any) -> None:
        asked.append((given[2], given[3]))

    event.listen(store.engine, "before_cursor_execute", hear)
    ask()
    event.remove(store.engine, "before_cursor_execute", hear)
    with store.engine.connect() as connection:
        return "\n".join(
            str(step[-1])
            for sql, given in asked
            if sql.startswith(("SELECT", "WITH"))
            for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", given)
        )


def test_no_page_looks_through_all_candidates_or_trials(sqlite_url: str) -> None:
    """Nor sorts what it does not show: an index has the rows in order. Nor does it look through all
    trials of a job, whatever index of them SQLite would like better."""
    with Store.open(sqlite_url) as store:
        jobs = grow(store, random.Random(3), ("g", "g", "h"), 9)
        for job in (None, jobs[0]):
            for page in ({}, {"offset": 3}, {"pareto": True}, {"state": "dropped"}):
                plan = plans(store, partial(leaderboard, store, job, **page))
                assert "SCAN candidates" not in plan, plan
                assert "SCAN trials" not in plan, plan
                of_trials = [step for step in plan.split("\n") if "SEARCH trials" in step]
                assert of_trials
                assert all("(job_id=? AND candidate=? AND stage=?)" in step for step in of_trials)
        first = plans(store, partial(leaderboard, store))
        assert "ix_candidates_board_standing_behind_serial_index (board=?)" in first
        one = plans(store, partial(leaderboard, store, jobs[0]))
        assert "ix_candidates_serial_standing_behind_index (serial=?)" in one
        dropped = plans(store, partial(leaderboard, store, jobs[0], state="dropped"))
        assert "(serial=? AND state=?)" in dropped
        assert "SCAN candidates" not in plans(store, partial(summaries, store))
        confirming = plans(store, partial(judged, store, jobs[:1]))
        assert "SEARCH trials USING INDEX ix_trials_stage_job_id (stage=? AND job_id=?)" in (
            confirming
        )
        with store.reading() as session:
            assert session.execute(text("PRAGMA foreign_key_check")).fetchall() == []


def test_keys_of_any_number_are_one_statement(store: Store) -> None:
    """A database, and SQLAlchemy, would have to read a new one for each number of rows."""
    job = grow(store, random.Random(5), ("g",), 0)[0]
    for index in range(12):
        _one(store, random.Random(index), job, index)
    heard: list[str] = []
    event.listen(store.engine, "before_cursor_execute", lambda *given: heard.append(given[2]))
    sizes = [len(leaderboard(store, limit=limit)[0].rows) for limit in (1, 5, 12)]
    assert sizes == [1, 5, 12]
    asked = [sql for sql in heard if sql.startswith(("SELECT", "WITH"))]
    assert len(asked) == 3 * 6
    assert len(set(asked)) == 6
