"""Ranks, paired differences, confirmations and groups of the leaderboard; a page's queries."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sqlalchemy import event

from search_server.cli import run
from search_server.errors import JobError
from search_server.leaderboard import leaderboard, leaderboard_row, trial_group
from search_server.overview import round_summaries, summaries
from search_server.store import CandidateRecord, Store, models
from workers import Split, TrialResult, TrialSpec


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store.open(url) as opened:
        yield opened


def add(
    store: Store,
    job: str,
    index: int,
    seeds: Mapping[int, float | None] | None = None,
    state: str = "done",
    **fields: object,
) -> None:
    """A candidate with ended proxy trials by seed; None stands for a diverged one."""
    seeds = seeds or {}
    values = [value or 0.0 for value in seeds.values()]
    origin = "random" if index else "baseline"
    fitness = sum(values) / len(values) if values else None
    record = CandidateRecord(index, origin, (), {}, f"key {index}", stage="proxy", **fields)
    store.add_candidate(job, record)
    for seed, value in seeds.items():
        status = "done" if value is not None else "diverged"
        store.start_trial(job, index, "proxy", seed, "k")
        store.finish_trial(job, index, "proxy", seed, TrialResult(status, "", value, seed, 10))
    store.update_candidate(job, index, state=state, fitness=fitness)


def ranks(store: Store, job: str, **page: object) -> list[tuple[int | None, int]]:
    (group,) = leaderboard(store, job, **page)
    return [(row.rank, row.index) for row in group.rows]


@pytest.fixture
def job(store: Store) -> str:
    return store.create_job("one", {"detector": "d"}, "", ["x"], "group-a")


class TestOneJob:
    def test_the_order(self, store, job):
        add(store, job, 0, {0: 0.40, 1: 0.42})
        add(store, job, 1, {0: 0.30})
        add(store, job, 2, state="failed", reason="no")
        add(store, job, 3, {0: 0.55})
        add(store, job, 4, state="dropped", simulate_score=0.1)
        add(store, job, 5, state="dropped", simulate_score=0.2)
        add(store, job, 6, state="open")
        add(store, job, 7, {0: 0.99}, state="failed")
        expected = [(1, 3), (2, 0), (3, 1), (None, 5), (None, 4), (None, 6)]
        assert ranks(store, job)[:6] == expected
        assert {index for _, index in ranks(store, job)[6:]} == {2, 7}  # failed ones last
        assert all(rank is None for rank, _ in ranks(store, job)[6:])

    def test_ties_go_to_the_older_one(self, store, job):
        for index in range(4):
            add(store, job, index, {0: 0.5})
        assert [index for _, index in ranks(store, job)] == [0, 1, 2, 3]

    def test_the_difference_is_paired_over_common_seeds(self, store, job):
        add(store, job, 0, {0: 0.40, 1: 0.50, 2: 0.30})
        add(store, job, 1, {1: 0.53, 2: 0.31, 9: 0.99})  # seed 9 has no partner
        (group,) = leaderboard(store, job)
        row = next(row for row in group.rows if row.index == 1)
        assert row.difference.seeds == 2
        assert row.difference.mean == pytest.approx((0.03 + 0.01) / 2)
        assert row.difference.deviation == pytest.approx(0.02 / math.sqrt(2))
        assert row.seeds == 3
        assert row.deviation == pytest.approx(0.34699, abs=1e-5)
        assert group.baseline.index == 0
        assert group.baseline.difference is None
        assert group.baseline.baseline

    def test_a_seed_that_diverged_counts_as_nothing_learned(self, store, job):
        add(store, job, 0, {0: 0.4, 1: 0.4})
        add(store, job, 1, {0: 0.6, 1: None})
        row = leaderboard_row(store, job, 1)
        assert row.fitness == pytest.approx(0.3)
        assert row.difference.mean == pytest.approx(-0.1)
        assert row.seeds == 2

    def test_one_seed_has_no_deviation(self, store, job):
        add(store, job, 0, {0: 0.4})
        add(store, job, 1, {0: 0.5})
        row = leaderboard_row(store, job, 1)
        assert row.deviation is None
        assert row.difference == dataclasses.replace(row.difference, deviation=None, seeds=1)

    def test_no_common_seed_no_difference(self, store, job):
        add(store, job, 0, {0: 0.4})
        add(store, job, 1, {1: 0.5})
        assert leaderboard_row(store, job, 1).difference is None

    def test_running_and_simulation_trials_do_not_count(self, store, job):
        add(store, job, 0, {0: 0.4})
        add(store, job, 1, {0: 0.5}, state="open")
        store.start_trial(job, 1, "proxy", 1, "k")
        store.start_trial(job, 1, "simulate", 0, "k")
        store.finish_trial(job, 1, "simulate", 0, TrialResult("done", "", 1.0, 0, 5))
        row = leaderboard_row(store, job, 1)
        assert (row.seeds, row.fitness) == (1, 0.5)

    def test_pages(self, store, job):
        for index in range(10):
            add(store, job, index, {0: 0.1 + index / 20})
        assert ranks(store, job, limit=3) == [(1, 9), (2, 8), (3, 7)]
        assert ranks(store, job, limit=3, offset=3) == [(4, 6), (5, 5), (6, 4)]
        (group,) = leaderboard(store, job, limit=2)
        assert group.total == 10
        assert group.baseline.index == 0  # known on every page, shown on its own
        assert 0 not in [row.index for row in group.rows]
        assert group.rows[0].difference.mean == pytest.approx(0.45)

    def test_a_page_beyond_the_end(self, store, job):
        add(store, job, 0, {0: 0.4})
        assert ranks(store, job, offset=5) == []

    def test_a_state_filter_pages_over_what_it_leaves(self, store, job):
        add(store, job, 0, {0: 0.4})
        for index in range(1, 9):
            add(store, job, index, state="failed" if index % 2 else "dropped")
        found = ranks(store, job, state="failed", limit=2, offset=1)
        assert found == [(None, 3), (None, 5)]
        (group,) = leaderboard(store, job, state="failed")
        assert group.baseline.index == 0

    def test_an_unknown_job(self, store):
        with pytest.raises(JobError, match="no job"):
            leaderboard(store, "nope")

    def test_a_job_without_candidates(self, store, job):
        assert leaderboard(store, job) == []
        with pytest.raises(JobError, match="no candidate"):
            leaderboard_row(store, job, 0)


def judge(
    store: Store, job: str, index: int, seeds: Mapping[int, float | None], stage: str = "confirm"
) -> None:
    """Ended trials of a judging stage by seed; None stands for a diverged one, NaN for a failed."""
    for seed, value in seeds.items():
        status = "diverged" if value is None else "failed" if math.isnan(value) else "done"
        store.start_trial(job, index, stage, seed, "k")
        given = value if status == "done" else None
        store.finish_trial(job, index, stage, seed, TrialResult(status, "", given, seed, 10))


def rival(store: Store, job: str, index: int, name: str) -> None:
    record = CandidateRecord(index, "rival", (), {}, f"key {index}", name=name, stage="confirm")
    store.add_candidate(job, record)
    store.update_candidate(job, index, state="done")


class TestConfirmed:
    BASE = {1000: 0.40, 1001: 0.44, 1002: 0.42}  # noqa: RUF012
    GOOD = {1000: 0.43, 1001: 0.46, 1002: 0.46}  # noqa: RUF012
    FAIR = {1000: 0.41, 1001: 0.46, 1002: 0.42}  # noqa: RUF012

    @pytest.fixture
    def judged(self, store, job):
        """The best by its proxy trial is not the best on fresh seeds; 4 is unconfirmed."""
        add(store, job, 0, {0: 0.40})
        for index, fitness in ((1, 0.60), (2, 0.50), (3, 0.30), (4, 0.45)):
            add(store, job, index, {0: fitness}, size=10 * index)
        rival(store, job, 5, "tuned")
        judge(store, job, 0, self.BASE)
        judge(store, job, 1, self.FAIR)
        judge(store, job, 2, self.GOOD)
        judge(store, job, 5, {seed: ap + 0.025 for seed, ap in self.BASE.items()})
        return job

    def test_they_come_first_by_their_difference_on_confirm(self, store, judged):
        (group,) = leaderboard(store, judged)
        expected = [(1, 2), (2, 5), (3, 1), (4, 0), (5, 4), (6, 3)]
        assert [(row.rank, row.index) for row in group.rows] == expected
        assert [row.index for row in group.rows if row.confirmed] == [2, 5, 1]
        assert [row.index for row in group.rows if row.rival] == [5]
        assert group.baseline.index == 0
        assert ranks(store, judged, limit=2, offset=2) == [(3, 1), (4, 0)]

    def test_the_statistics_are_those_of_the_job_whatever_page_is_shown(self, store, judged):
        row = leaderboard_row(store, judged, 2)
        own, base = list(self.GOOD.values()), list(self.BASE.values())
        found = row.judged.confirm
        assert found.ap.mean == pytest.approx(np.mean(own))
        assert found.difference.mean == pytest.approx(0.03)
        test = stats.ttest_rel(own, base)
        assert found.difference.p == pytest.approx(test.pvalue)
        # two candidates were confirmed; the rival was chosen before and is not one of them
        assert row.judged.family == 2
        assert row.judged.p == pytest.approx(2 * test.pvalue)
        other = leaderboard_row(store, judged, 1)
        assert other.judged.p == pytest.approx(
            max(2 * test.pvalue, stats.ttest_rel(list(self.FAIR.values()), base).pvalue)
        )
        middle = (row.judged.confirm.difference.mean + other.judged.confirm.difference.mean) / 2
        assert middle < row.judged.shrunken < row.judged.confirm.difference.mean
        assert row.judged.shrunken + other.judged.shrunken == pytest.approx(2 * middle)

    def test_the_baseline_and_rivals_are_in_no_family(self, store, judged):
        base = leaderboard_row(store, judged, 0).judged
        assert (base.p, base.shrunken, base.family) == (None, None, 0)
        assert base.confirm.ap.mean == pytest.approx(0.42)
        against = leaderboard_row(store, judged, 5).judged
        assert (against.shrunken, against.family) == (None, 0)
        assert against.p == pytest.approx(against.confirm.difference.p)

    def test_lost_and_diverged_seeds(self, store, job):
        add(store, job, 0, {0: 0.4})
        add(store, job, 1, {0: 0.5})
        add(store, job, 2, {0: 0.5})
        judge(store, job, 0, self.BASE)
        judge(store, job, 1, {1000: math.nan, 1001: None, 1002: 0.43})
        judge(store, job, 2, {1000: math.nan})
        row = leaderboard_row(store, job, 1)
        assert row.judged.confirm.by_seed == {1001: 0.0, 1002: 0.43}
        assert row.judged.confirm.difference.mean == pytest.approx((-0.44 + 0.01) / 2)
        assert not leaderboard_row(store, job, 2).confirmed
        assert [index for _, index in ranks(store, job)] == [0, 1, 2]

    def test_a_test_reading_stands_beside_it(self, store, judged):
        judge(store, judged, 0, {2000: 0.40, 2001: 0.42}, "test")
        judge(store, judged, 2, {2000: 0.41, 2001: 0.45}, "test")
        row = leaderboard_row(store, judged, 2)
        assert row.judged.test.difference.mean == pytest.approx(0.02)
        assert row.judged.test.difference.count == 2
        assert row.judged.confirm.difference.count == 3
        assert leaderboard_row(store, judged, 1).judged.test is None

    def test_a_published_row_that_was_never_confirmed_is_not_confirmed(self, store, job):
        add(store, job, 0, {0: 0.4})
        add(store, job, 1, {0: 0.5})
        judge(store, job, 0, {2000: 0.40}, "test")
        judge(store, job, 1, {2000: 0.50}, "test")
        row = leaderboard_row(store, job, 1)
        assert not row.confirmed
        assert row.judged.test.difference.mean == pytest.approx(0.1)

    def test_results_that_were_taken_over_are_named(self, store, judged):
        with store.changing() as session:
            keys = [(judged, 2, "proxy", 0), (judged, 2, "confirm", 1001)]
            for number, key in enumerate(keys):
                session.get(models.Trial, key).reused_from = f"old-1:{number}:proxy:0"
        assert leaderboard_row(store, judged, 2).reused == ("old-1:0:proxy:0", "old-1:1:proxy:0")
        assert leaderboard_row(store, judged, 1).reused == ()

    def test_without_a_baseline_nothing_is_confirmed(self, store, job):
        add(store, job, 0, state="failed")
        add(store, job, 1, {0: 0.5})
        judge(store, job, 1, self.GOOD)
        assert not leaderboard_row(store, job, 1).confirmed


class TestFront:
    def test_higher_than_all_that_are_no_larger(self, store, job):
        for index, (size, fitness) in enumerate(
            [(0, 0.40), (9, 0.45), (9, 0.44), (4, 0.38), (12, 0.45), (20, 0.50)]
        ):
            add(store, job, index, {0: fitness}, size=size)
        add(store, job, 6, {0: 0.99}, state="failed", size=1)
        add(store, job, 7, state="dropped", size=1)
        (group,) = leaderboard(store, job)
        assert {row.index for row in group.rows if row.front} == {0, 1, 5}
        assert ranks(store, job, pareto=True) == [(1, 5), (2, 1), (3, 0)]
        assert ranks(store, job, pareto=True, limit=1, offset=1) == [(2, 1)]

    def test_jobs_of_one_group_have_one_front(self, store):
        for name, fitness in (("a", 0.4), ("b", 0.5)):
            add(store, store.create_job(name, {}, "", ["x"], "same"), 0, {0: fitness}, size=3)
        (group,) = leaderboard(store, pareto=True)
        assert [row.id for row in group.rows] == ["b-1:0"]
        # within its own job the other one is on the front
        assert leaderboard(store, "a-1", pareto=True)[0].rows[0].id == "a-1:0"


class TestAllJobs:
    def test_groups_by_trial_spec_each_with_its_own_baseline(self, store):
        easy = store.create_job("easy", {"detector": "e"}, "", ["x"], "group-e")
        hard = store.create_job("hard", {"detector": "h"}, "", ["x"], "group-h")
        add(store, easy, 0, {0: 0.8})
        add(store, easy, 1, {0: 0.7})
        add(store, hard, 0, {0: 0.2})
        add(store, hard, 1, {0: 0.3})
        first, second = leaderboard(store)
        assert (first.key, second.key) == ("group-h", "group-e")  # newest job first
        assert [row.id for row in first.rows] == ["hard-1:1", "hard-1:0"]
        assert first.rows[0].difference.mean == pytest.approx(0.1)
        assert [row.id for row in second.rows] == ["easy-1:0", "easy-1:1"]
        assert second.rows[1].difference.mean == pytest.approx(-0.1)
        assert first.spec == {"detector": "h"}

    def test_jobs_of_one_group_stand_side_by_side(self, store):
        first = store.create_job("a", {}, "", ["x"], "same")
        second = store.create_job("b", {}, "", ["x"], "same")
        add(store, first, 0, {0: 0.4})
        add(store, first, 1, {0: 0.45})
        add(store, second, 0, {0: 0.4})
        add(store, second, 1, {0: 0.5})
        (group,) = leaderboard(store)
        assert [row.id for row in group.rows] == ["b-1:1", "a-1:1", "a-1:0", "b-1:0"]
        assert group.baseline.id == "a-1:0"
        assert group.rows[0].difference.mean == pytest.approx(0.1)
        assert group.rows[3].difference.mean == pytest.approx(0.0)
        assert group.total == 4

    def test_a_baseline_that_was_not_trained_gives_way_to_one_that_was(self, store):
        first = store.create_job("a", {}, "", ["x"], "same")
        second = store.create_job("b", {}, "", ["x"], "same")
        add(store, first, 0, state="failed")
        add(store, second, 0, {0: 0.4})
        (group,) = leaderboard(store)
        assert group.baseline.id == "b-1:0"

    def test_jobs_without_a_group_are_groups_of_their_own(self, store):
        for name in ("a", "b"):
            add(store, store.create_job(name, {}, "", ["x"]), 0, {0: 0.4})
        assert [group.key for group in leaderboard(store)] == ["b-1", "a-1"]

    def test_no_jobs(self, store):
        assert leaderboard(store) == []


def statements(store: Store, ask: Callable[[], object]) -> int:
    """How many queries a question takes."""
    heard: list[str] = []

    def hear(*given: Any) -> None:
        heard.append(given[2])

    event.listen(store.engine, "before_cursor_execute", hear)
    ask()
    event.remove(store.engine, "before_cursor_execute", hear)
    return len([sql for sql in heard if sql.startswith(("SELECT", "WITH"))])


def test_the_queries_of_a_page_do_not_grow_with_it(store):
    for name in ("a", "b", "c"):
        job = store.create_job(name, {}, "", ["x"], name)
        for index in range(6):
            add(store, job, index, {0: 0.1, 1: 0.2})
            judge(store, job, index, {1000: 0.1})
    sizes = [sum(len(group.rows) for group in leaderboard(store, limit=n)) for n in (1, 6)]
    assert sizes == [3, 18]
    counts = {statements(store, lambda n=n: leaderboard(store, limit=n)) for n in (1, 6)}
    assert counts == {6}
    assert statements(store, lambda: summaries(store)) == 1


class TestTrialGroup:
    SPEC = TrialSpec(
        detector="model = 1",
        definition={"name": "a", "cls": None},
        train=Split("/a.json", "/a"),
        evaluate=Split("/b.json", "/b"),
        seed=1,
        steps=10,
        batch_size=2,
        classes=("x",),
    )

    @pytest.mark.parametrize(
        "change",
        [{"seed": 2}, {"definition": {"name": "b", "bbox": {"type": "stock"}}}, {"time_limit": 5}],
    )
    def test_loss_seed_and_time_limit_do_not_matter(self, change):
        assert trial_group(dataclasses.replace(self.SPEC, **change)) == trial_group(self.SPEC)

    @pytest.mark.parametrize(
        "change", [{"steps": 11}, {"batch_size": 3}, {"detector": "x"}, {"classes": ("y",)}]
    )
    def test_all_else_does(self, change):
        assert trial_group(dataclasses.replace(self.SPEC, **change)) != trial_group(self.SPEC)


def test_jobs_at_a_glance(store, job):
    assert summaries(store)[0].candidates == 0
    add(store, job, 0, {0: 0.4})
    add(store, job, 1, {0: 0.5})
    add(store, job, 2, {0: 0.9}, state="failed")
    add(store, job, 3, state="dropped")
    newer = store.create_job("two", {}, "", ["x"])
    found = summaries(store)
    assert [each.id for each in found] == [newer, job]
    assert (found[1].candidates, found[1].trained) == (3, 1)
    assert (found[1].best, found[1].baseline) == (0.5, 0.4)
    assert (found[0].candidates, found[0].best) == (0, None)


PAP = {
    "type": "ranking",
    "loss": "pap",
    "functions": {name: [[0.5, 0.5]] for name in ("H2", "I2", "I3", "I1", "H1")},
    "box_gradient_scale": 2.5,
}


class TestAPolicySearch:
    """Two rounds of three samples and the final mean, with a second branch."""

    @pytest.fixture
    def policy(self, store):
        spec = {"detector": "d", "searcher": {"type": "policy", "rounds": 2, "samples": 3}}
        return store.create_job("policy", spec, "", ["x"], "group-p")

    def put(self, store, job, index, origin, fitness, state="done", **definition):
        record = CandidateRecord(
            index, origin, (), definition, f"key {index}", stage="proxy", cls_text="PAP"
        )
        store.add_candidate(job, record)
        if fitness is not None:
            store.start_trial(job, index, "proxy", 0, "k")
            result = TrialResult("done", "", fitness, 0, 10)
            store.finish_trial(job, index, "proxy", 0, result)
        store.update_candidate(job, index, state=state, fitness=fitness)

    def all(self, store, job, last=7):
        values = [0.30, 0.2, 0.4, None, 0.5, 0.6, 0.0, 0.55]
        for index, value in enumerate(values[: last + 1]):
            origin = "baseline" if index == 0 else "mean" if index == 7 else "policy"
            state = "failed" if value is None else "done"
            self.put(store, job, index, origin, value, state, cls=PAP, rpn=PAP)

    def test_rows_know_their_round_and_every_branch(self, store, policy):
        self.all(store, policy)
        (group,) = leaderboard(store, policy)
        rounds = {row.index: row.round for row in group.rows}
        assert rounds == {0: None, 1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 6: 2, 7: None}
        row = group.rows[0]
        assert row.index == 5
        assert row.joint
        assert row.rpn == "PAP (identity functions, box gradient ×2.5)"

    def test_other_searches_have_no_rounds(self, store, job):
        add(store, job, 0, {0: 0.4})
        add(store, job, 1, {0: 0.5})
        assert [row.round for row in leaderboard(store, job)[0].rows] == [None, None]
        assert not any(row.joint or row.rpn for row in leaderboard(store, job)[0].rows)
        assert round_summaries(store, job) == []
        assert summaries(store)[0].rounds is None

    def test_the_jobs_of_a_group_have_rounds_of_their_own(self, store, policy):
        self.all(store, policy)
        spec = {"detector": "d", "searcher": {"type": "policy", "rounds": 5, "samples": 2}}
        other = store.create_job("other", spec, "", ["x"], "group-p")
        self.put(store, other, 0, "baseline", 0.3, cls=PAP)
        for index in (1, 2, 3):
            self.put(store, other, index, "policy", 0.7, cls=PAP)
        rows = {row.id: row.round for group in leaderboard(store) for row in group.rows}
        assert rows[f"{other}:3"] == 2
        assert rows[f"{policy}:3"] == 1

    def test_the_overview(self, store, policy):
        assert (summaries(store)[0].round, summaries(store)[0].rounds) == (0, 2)
        self.all(store, policy, last=4)
        (found,) = summaries(store)
        assert (found.round, found.rounds, found.mean) == (2, 2, None)
        first, second = round_summaries(store, policy)
        assert (first.made, first.trained, first.failed) == (3, 2, 1)
        assert first.mean == pytest.approx(0.3)
        assert first.deviation == pytest.approx(0.2 / math.sqrt(2))
        assert (second.made, second.deviation, second.best) == (1, None, 0.5)

    def test_the_final_mean_comes_last(self, store, policy):
        self.all(store, policy)
        assert summaries(store)[0].mean == 0.55
        assert summaries(store)[0].best == 0.6
        *_, second, last = round_summaries(store, policy)
        assert (second.round, second.zero, second.trained) == (2, 1, 3)
        assert (last.round, last.made, last.mean) == (None, 1, 0.55)

    def test_the_commands(self, url, store, policy, capsys, monkeypatch):
        self.all(store, policy)
        monkeypatch.setenv("LOSSFORGE_STORE", url)
        for words, shown in (
            (["leaderboard", policy], ["round", "mean", "rpn  PAP"]),
            (["jobs"], ["2/2", "55.0"]),
            (["jobs", policy], ["final mean", "40.0"]),
            (["show", f"{policy}:5"], ["policy, round 2", "PAP: L = 1/|P|", "H2: (0, 0)"]),
            (["show", f"{policy}:7"], ["mean of the final policy"]),
        ):
            assert run(words) == 0
            text = capsys.readouterr().out
            assert all(part in text for part in shown), text
        assert run(["jobs", policy, "--json"]) == 0
        assert '"rounds"' in capsys.readouterr().out


class TestShown:
    def test_confirmed_rows_rivals_readings_and_marks(self, url, store, job, capsys):
        """The table and the JSON of a job with a bit of everything."""
        add(store, job, 0, {0: 0.40})
        add(store, job, 1, {0: 0.60}, size=12, cls_text="sigmoid(X)")
        add(store, job, 2, {0: 0.50}, size=5, name="second")
        rival(store, job, 3, "tuned")
        for index, gain in ((0, 0.0), (1, 0.03), (3, 0.01)):
            judge(store, job, index, {1000: 0.4 + gain, 1001: 0.45 + 1.1 * gain})
        for index in (0, 1):
            judge(store, job, index, {2000: 0.4 + 0.02 * index, 2001: 0.4 + 0.03 * index}, "test")
        with store.changing() as session:
            session.get(models.Trial, (job, 1, "proxy", 0)).reused_from = "older-7:4:proxy:0"

        def shown(*options: str) -> str:
            assert run(["leaderboard", job, "--store", url, *options]) == 0
            return capsys.readouterr().out

        text = " ".join(shown().split())
        assert "1* 1 random 45.6 +3.1 (+1.2 to +5.1) 0.030 +3.1 2 60.0" in text
        assert "2 3 rival 43.5 +1.1" in text
        assert "reused from older-7" in text
        assert "test: +2.5 (-3.9 to +8.9), 2 seeds" in text
        assert "unconfirmed" in text
        found = json.loads(shown("--json"))
        first, second, third, last = found["groups"][0]["rows"]
        assert (first["index"], first["confirmed"], first["front"]) == (1, True, True)
        assert first["judged"]["confirm"]["difference"]["mean"] == pytest.approx(0.0315)
        assert first["reused"] == ["older-7:4:proxy:0"]
        assert (second["index"], second["rival"], third["baseline"]) == (3, True, True)
        assert (last["confirmed"], last["judged"]) == (False, None)
        front = json.loads(shown("--pareto", "--json"))
        assert [row["index"] for row in front["groups"][0]["rows"]] == [1, 0, 2]

    def test_the_end_of_a_search_names_what_was_confirmed(self, store, job):
        from search_server.cli.search import best_line

        add(store, job, 0, {0: 0.4})
        add(store, job, 1, {0: 0.5})
        assert "unconfirmed: the best of 1 trained" in best_line(leaderboard_row(store, job, 1), 1)
        for index, gain in ((0, 0.0), (1, 0.03)):
            judge(store, job, index, {1000: 0.4 + gain, 1001: 0.45 + 1.1 * gain})
        assert best_line(leaderboard_row(store, job, 1), 1) == (
            "best: candidate 1, +3.1 (+1.2 to +5.1) AP to the baseline on confirm over 2 seeds, "
            "p = 0.030 for 1 confirmed, shrunken +3.1"
        )
