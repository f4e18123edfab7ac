"""The stage `confirm`: who gets there, from which seeds, on which split; what counts as best."""

import threading
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import fake_search as fake
import pytest

from losses import CATALOG
from search_server.controller import run_job
from search_server.errors import SpecError
from search_server.executors import InlineExecutor
from search_server.export.choice import best_found, better_known, choose, gains_of
from search_server.funnel.confirm import best_candidates
from search_server.jobs import create_job, open_job
from search_server.overview import summaries
from search_server.planning import plan
from search_server.progress import Progress, expected_confirmations
from search_server.spec import JobSpec
from search_server.stage_seeds import confirm_seeds, publish_seeds
from search_server.store import CandidateRecord, Store
from workers import TrialResult, TrialSpec
from workers.data import digits

QUICK: dict[str, Any] = {
    "funnel": {
        "verify": {"method": "none"},
        "simulate": None,
        "proxy": {"steps": 5, "seeds": [0, 1000]},
        "confirm": {"steps": 9, "batch_size": 2, "top": 2, "seeds": 3, "rivals": ["focal-ciou"]},
    },
    "searcher": {"population": 4},
    "candidates": 8,
    "window": 3,
}
CONFIRMED = confirm_seeds(fake.spec(**QUICK))
TWICE = "funnel.confirm.rivals.1"
WORTH = {"search_val": 0.3, "confirm": 0.2, "test": 0.25}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


def worth(trial: TrialSpec, best: str = "candidate-5") -> TrialResult:
    """AP by the split, a loss's name and the seed: `best` is good, and a rival is in between."""
    ap = next(ap for name, ap in WORTH.items() if name in trial.evaluate.annotations)
    ap += {best: 0.2, "candidate-3": 0.15, "focal-ciou": 0.1}.get(trial.definition["name"], 0.0)
    return TrialResult("done", "", ap + 0.001 * (trial.seed % 10), trial.seed, trial.steps)


def run(url: str, job: str, trial: Any = worth, **more: Any) -> str:
    with Store.open(url) as store, InlineExecutor(2, trial) as executor:
        return run_job(store, job, executor, **more)


def test_the_best_the_baseline_and_the_rivals_are_trained_from_fresh_paired_seeds(
    url: str,
) -> None:
    specs: list[TrialSpec] = []

    def trial(spec: TrialSpec) -> TrialResult:
        specs.append(spec)
        return worth(spec)

    job = fake.new_job(url, **QUICK)
    assert run(url, job, trial) == "done"
    with Store.open(url) as store:
        confirmed = [t for t in store.trials(job) if t.stage == "confirm"]
        rival = store.candidate(job, 9)
        assert {(t.candidate, t.seed) for t in confirmed} == {
            (index, seed) for index in (0, 3, 5, 9) for seed in CONFIRMED
        }
        assert (rival.origin, rival.stage, rival.state, rival.fitness) == (
            *("rival", "confirm", "done", None),
        )
        assert rival.definition == CATALOG["focal-ciou"].to_json()
        assert len(store.candidates(job)) == 10
        assert store.candidate(job, 5).stage == "proxy"
        assert summaries(store)[0].candidates == 8
    late = [s for s in specs if s.evaluate == digits().splits["confirm"]]
    assert len(late) == 12
    assert {(s.steps, s.batch_size, s.train) for s in late} == {
        (9, 2, digits().splits["search_train"])
    }
    first = specs.index(late[0])
    assert all(s.evaluate == digits().splits["search_val"] for s in specs[: first - 3])


def test_what_was_not_worth_it_is_not_confirmed() -> None:
    def record(index: int, fitness: float | None, **more: Any) -> CandidateRecord:
        fields = {"origin": "mutation", "stage": "proxy", "state": "done", **more}
        return CandidateRecord(
            index=index, parents=(), definition={}, key=str(index), fitness=fitness, **fields
        )

    rows = [
        record(0, 0.9, origin="baseline"),
        record(1, 0.3),
        record(2, 0.5),
        record(3, 0.5),
        record(4, 0.0),
        record(5, None, state="dropped"),
        record(6, 0.8, state="failed"),
    ]
    assert best_candidates(rows, 2) == [2, 3]
    assert best_candidates(rows, 9) == [2, 3, 1]
    mean = [*rows, record(7, 0.1, origin="mean")]
    assert best_candidates(mean, 2) == [2, 3, 7]
    assert best_candidates(mean, 4) == [2, 3, 1, 7]


def test_seeds_of_the_judging_stages_are_used_by_no_other() -> None:
    spec, other = fake.spec(**QUICK), fake.spec(**QUICK, seed=1002)
    seeds = [
        *(confirm_seeds(spec), publish_seeds(spec, 12)),
        *(confirm_seeds(other), publish_seeds(other, 12)),
        (spec.seed, *spec.funnel.proxy.seeds, other.seed, *range(3000, 3100)),
    ]
    assert sum(map(len, seeds)) == len(set().union(*seeds))  # no two have one in common
    assert publish_seeds(spec, 12)[:3] == publish_seeds(spec, 3)
    assert confirm_seeds(fake.spec(**QUICK)) == seeds[0]  # the same spec, the same seeds
    assert confirm_seeds(fake.spec()) == ()


def test_a_rival_that_the_search_found_itself_has_one_row(url: str) -> None:
    changes = {**QUICK, "searcher": {"population": 4, "named": ["focal-ciou"]}}
    job = fake.new_job(url, **changes)
    assert run(url, job) == "done"
    with Store.open(url) as store:
        assert [c.origin for c in store.candidates(job)].count("rival") == 0
        found = {t.candidate for t in store.trials(job) if t.stage == "confirm"}
    assert 1 in found


def test_a_failed_confirmation_counts_for_nothing_else(url: str) -> None:
    def trial(spec: TrialSpec) -> TrialResult:
        confirming = "confirm" in spec.evaluate.annotations
        if confirming and (spec.seed == CONFIRMED[1] or spec.definition["name"] == "focal-ciou"):
            return TrialResult("failed", "no luck", None, spec.seed, spec.steps)
        return worth(spec)

    job = fake.new_job(url, **QUICK)
    assert run(url, job, trial) == "done"
    with Store.open(url) as store:
        rival = store.candidate(job, 9)
        assert (rival.state, rival.reason) == ("failed", "failed: no luck")
        gains = gains_of(store, job)
        assert gains == pytest.approx({3: 0.15, 5: 0.2})


def test_interrupted_while_it_confirms_it_goes_on(url: str, tmp_path: Path) -> None:
    whole = f"sqlite:///{tmp_path / 'whole.db'}"
    reference = fake.new_job(whole, **fake.HALVING)
    assert fake.run(whole, reference) == "done"
    with Store.open(whole) as store:
        expected = [trial for trial in store.trials(reference) if trial.stage == "confirm"]
    job = fake.new_job(url, **fake.HALVING)
    for more in (1, 2, 2):
        stop, begun = threading.Event(), count(1)

        def trial(
            spec: TrialSpec,
            stop: threading.Event = stop,
            begun: "count[int]" = begun,
            more: int = more,
        ) -> TrialResult:
            if "confirm" in spec.evaluate.annotations and next(begun) >= more:
                stop.set()
            return fake.fake_trial(spec)

        assert run(url, job, trial, stop=stop, trace=1) == "interrupted"
        with Store.open(url) as store:
            ended = [t for t in store.trials(job) if t.stage == "confirm" and t.state != "running"]
        assert 0 < len(ended) < len(expected)  # it was at it
    assert fake.run(url, job) == "done"
    assert fake.rows(url) == fake.rows(whole)


def test_a_search_that_ran_dry_still_confirms_after_an_interruption(url: str) -> None:
    """Its last candidate is not the one that the spec asks for, and nothing else says so."""
    seen: list[Progress] = []
    stop = threading.Event()

    def look(progress: Progress) -> None:
        seen.append(progress)
        if progress.round == "confirming":
            stop.set()

    changes = {**QUICK, "candidates": 50, "limits": {"steps": 70}}
    job = fake.new_job(url, **changes)
    assert run(url, job, observer=look, stop=stop) == "interrupted"
    assert run(url, job) == "done"
    with Store.open(url) as store:
        origins = [c.origin for c in store.candidates(job)]
        assert origins.count("rival") == 1
        assert origins[-1] == "rival"
        assert len(origins) < 10


def test_the_best_is_the_best_confirmed(url: str) -> None:
    """The search liked candidate 5 more; on fresh seeds 3 is better, and the rival better yet."""

    def trial(spec: TrialSpec) -> TrialResult:
        result = worth(spec)
        if "search_val" not in spec.evaluate.annotations:
            gain = {"candidate-5": 0.21, "candidate-3": 0.03, "focal-ciou": 0.03}
            ap = (result.fitness or 0.0) - 0.9 * gain.get(spec.definition["name"], 0.0)
            return replace(result, fitness=ap)
        return result

    job = fake.new_job(url, **QUICK)
    assert run(url, job, trial) == "done"
    with Store.open(url) as store:
        candidates, gains = store.candidates(job), gains_of(store, job)
        row, _ = choose(job, candidates, None, gains)
        assert row is not None
        assert row.index == 3
        best = best_found(candidates, {})
        assert best is not None
        assert best.index == 5
        assert better_known(candidates, gains) == []
        poor = {**gains, 3: -0.1, 5: -0.2}
        names = [name for name, _ in better_known(candidates, poor)]
        assert names == ["the rival focal-ciou", "the baseline"]
        rival, definition = choose(job, candidates, 9, gains)
        assert rival is not None
        assert definition.key == CATALOG["focal-ciou"].key


def test_the_progress_shows_the_stage(url: str) -> None:
    seen: list[Progress] = []
    job = fake.new_job(url, **QUICK)
    assert run(url, job, observer=seen.append) == "done"
    last = seen[-1]
    assert last.round == "confirming"
    assert last.funnel["confirmed"] == 3
    assert last.candidates == last.of == 8
    assert last.done == last.trials == 2 * 9 + 3 * 4
    assert "confirmed" in seen[0].funnel
    assert seen[0].round == ""


def test_the_plan_counts_the_stages() -> None:
    counted = plan(fake.spec(**QUICK), 1.0)
    assert {s.stage: (s.trials, s.steps) for s in counted.stages} == {
        "proxy": (18, 5),
        "confirm": (12, 9),
    }
    confirm = next(s for s in counted.stages if s.stage == "confirm")
    assert 3600 * confirm.hours == pytest.approx(12 * (9 * 2 / 8 * 1.0 + 1.0), rel=1e-9)
    assert expected_confirmations(fake.spec(**fake.HALVING)) == 3 * (1 + 2 + 2)


def test_the_plan_counts_what_passes_the_rungs() -> None:
    proxy = {"steps": 50, "rungs": [10, 20], "reduction": 3}
    spec = fake.spec(
        funnel={"simulate": None, "proxy": proxy}, candidates=99, window=6, searcher={}
    )
    counted = plan(spec, 1.0, slots=2)
    # the baseline, six that see nobody and three that are too few to be measured by go through
    assert [(s.start, s.steps, s.trials) for s in counted.stages] == [
        *((0, 10, 100), (10, 20, 10 + 30), (20, 50, 10 + 10)),
    ]
    assert counted.trials == 100
    seconds = 100 * (10 + 1) + 40 * (10 + 1) + 20 * (30 + 1)
    assert 3600 * counted.hours == pytest.approx(seconds / 2)


@pytest.mark.parametrize(
    ("limit", "rungs", "wanted"),
    [
        (1000, [], 19),  # the baseline and 19 of 50 steps
        (1049, [], 19),
        (49, [], 0),
        (99_999, [], 999),
        # as above, ten go through; of the rest a third has 10 steps more, a ninth all of the 50
        (500 + 90 * 10 + 30 * 10 + 10 * 30, [10, 20], 99),
    ],
)
def test_the_plan_is_what_the_budget_of_steps_pays_for(
    limit: int, rungs: list[int], wanted: int
) -> None:
    proxy = {"steps": 50, "rungs": rungs, "reduction": 3}
    spec = fake.spec(
        funnel={"simulate": None, "proxy": proxy},
        candidates=999,
        window=6,
        searcher={},
        limits={"steps": limit},
    )
    counted = plan(spec, 1.0)
    assert counted.trials == 1 + wanted
    took = sum(stage.trials * (stage.steps - stage.start) for stage in counted.stages)
    assert took <= max(50, limit)


@pytest.mark.parametrize(
    ("rivals", "field"),
    [
        (["no-such-loss"], "funnel.confirm.rivals.0"),
        (["focal-ciou", "focal-ciou"], TWICE),
        (
            ["focal-ciou", {**CATALOG["focal-ciou"].to_json(), "name": "x"}],
            "funnel.confirm.rivals.1",
        ),
        ([{"cls": 3}], "funnel.confirm.rivals.0"),
        (["nowhere.json"], "funnel.confirm.rivals.0"),
        ("focal-ciou", "funnel.confirm.rivals"),
        ([3], "funnel.confirm.rivals.0"),
    ],
)
def test_a_rival_that_is_none_is_refused(rivals: Any, field: str) -> None:
    with pytest.raises(SpecError) as caught:
        fake.spec(funnel={"confirm": {"rivals": rivals}})
    assert caught.value.field == field


def test_a_rival_from_a_file_is_kept_in_the_job(tmp_path: Path) -> None:
    from search_server.spec import load_spec

    definition = (tmp_path / "mine.json").as_posix()
    Path(definition).write_text('{"name": "mine", "cls": null, "bbox": null}')
    (tmp_path / "job.yaml").write_text(
        "name: a\ndetector: digits/atss\nbranches: {bbox: {space: box}}\n"
        "funnel: {confirm: {rivals: [mine.json]}}\n"
    )
    spec = load_spec(tmp_path / "job.yaml")
    Path(definition).unlink()
    again = JobSpec.from_json(spec.to_json())
    assert again == spec
    assert again.funnel.confirm is not None
    assert again.funnel.confirm.rivals[0] == {
        "name": "mine",
        "cls": None,
        "bbox": None,
        "iou_centerness": False,
    }


def test_a_rival_that_does_not_fit_the_detector_and_a_missing_split_are_found_at_once(
    url: str,
) -> None:
    with Store.open(url) as store:
        with pytest.raises(SpecError) as caught:
            create_job(store, fake.spec(funnel={"confirm": {"rivals": ["cse-autoloss-a"]}}))
        assert caught.value.field == "funnel.confirm.rivals.0"
        splits = {
            name: {"annotations": split.annotations, "images": split.images}
            for name, split in digits().splits.items()
            if name.startswith("search")
        }
        with pytest.raises(SpecError) as caught:
            create_job(store, fake.spec(data=splits, funnel={"confirm": {"top": 1}}))
        assert caught.value.field == "data.confirm"
        old = {**fake.spec().to_json()}
        del old["funnel"]["confirm"]
        for name in ("rungs", "reduction", "hopeless"):
            del old["funnel"]["proxy"][name]
        del old["limits"]["steps"]
        assert JobSpec.from_json(old) == fake.spec()
        job = open_job(store, create_job(store, fake.spec()))
        assert job.stages.confirm_seeds == ()
