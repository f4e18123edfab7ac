"""The table: what is planned, in which order it is trained, and that nothing is lost on the way."""

import gzip
import json
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_table as planted
import pytest

from losses import LossDefinition
from search_server.cli import run
from search_server.errors import JobError, SpecError
from search_server.executors import InlineExecutor
from search_server.funnel.verification import verify
from search_server.table.build import Progress, build_table
from search_server.table.draws import direction
from search_server.table.files import LOSSES, TRIALS, read_table, write_table
from search_server.table.load import load_table
from search_server.table.log import LOG_FILE, TableKey, TableLog, TableTrial, read_log
from search_server.table.making import make_plan
from search_server.table.plan import PLAN_FILE, TablePlan, ordered, read_plan, write_plan
from search_server.table.spec import TableSpec, load_table_spec
from workers import TrialResult, TrialSpec
from workers.training import train

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {
    "name": "small",
    "steps": 2,
    "rungs": [1],
    "batch_size": 2,
    "simulate": {"steps": 1, "batch_size": 2},
    "max_draws": 300,
    "calibrate": False,
    "groups": {
        "atss": {
            "detector": "digits/atss",
            "bbox_weight": 2.0,
            "subspace": {"cls": 3, "bbox": 2},
            "evolved": 2,
            "rejects": {"random": 1, "mutation": 1},
            "named": ["focal-diou"],
            "tuned": [{"loss": "focal-giou", "gamma": [1.0, 2.0], "bbox_weight": [2.0, 4.0]}],
        }
    },
}


@pytest.fixture(scope="module")
def small() -> TablePlan:
    return make_plan(TableSpec.model_validate(SMALL), 0)


def test_a_plan_is_made_again_from_its_spec_and_seed(small: TablePlan, tmp_path: Path) -> None:
    spec = TableSpec.model_validate(SMALL)
    for name, plan in (("a", small), ("b", make_plan(spec, 0)), ("c", make_plan(spec, 1))):
        write_plan(plan, tmp_path / name)
    same, again, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert same == again != other
    assert read_plan(tmp_path / "a") == small


def test_a_plan_has_every_pair_of_its_sub_space_and_every_loss_once(small: TablePlan) -> None:
    pairs = [loss.pair for loss in small.losses if loss.pair is not None]
    assert sorted(pairs) == [(i, j) for i in range(3) for j in range(2)]
    for loss in small.losses:
        if loss.pair is not None:
            found = LossDefinition.from_json(loss.definition).expressions
            for branch, place in zip(("cls", "bbox"), loss.pair, strict=True):
                assert str(found[branch]) == small.pools["atss"][branch][place]
    assert len({loss.id for loss in small.losses}) == len(small.losses)
    assert small.losses[0].id == small.baselines["atss"]
    # gamma 2 with weight 2 is the baseline, and in the table already
    tuned = [loss.name for loss in small.losses if loss.kind == "tuned"]
    assert len(tuned) == 3
    assert not any("gamma=2 bbox_weight=2" in name for name in tuned)


def test_the_verdicts_of_a_plan_are_verifications(small: TablePlan) -> None:
    kinds = Counter(loss.kind for loss in small.losses)
    assert kinds["rejected"] >= 8
    for loss in small.losses:
        found = LossDefinition.from_json(loss.definition).expressions
        verdicts = {branch: verify(expression) for branch, expression in found.items()}
        if loss.kind == "rejected":
            assert loss.branch is not None
            assert verdicts[loss.branch].condition == loss.condition
            assert not loss.accepted
        elif loss.accepted is not None:
            assert all(verdict.accepted for verdict in verdicts.values())
        assert all(direction(expression) is not None for expression in found.values())


def test_the_counts_of_the_draws_add_up(small: TablePlan) -> None:
    assert len(small.draws) == 6
    for counts in small.draws:
        assert counts.draws == counts.accepted + sum(counts.conditions.values())
        assert counts.draws == (300 if counts.way == "random" else 30)


def test_the_shipped_plan_is_that_of_the_shipped_spec() -> None:
    plan = read_plan(ROOT / "tables" / "digits-v1" / PLAN_FILE)
    spec = load_table_spec(ROOT / "configs" / "tables" / "digits.yaml")
    assert plan.spec == json.loads(spec.model_dump_json())
    groups = Counter(loss.group for loss in plan.losses)
    assert groups["atss"] >= 200
    assert groups["faster_rcnn"] >= 100
    assert sum(loss.pair is not None for loss in plan.losses) == 200


def test_any_beginning_of_the_order_is_a_fair_sample() -> None:
    losses = [
        planted.loss(f"{kind}-{i}", kind=kind)
        for kind, count in (("random", 40), ("rejected", 20), ("subspace", 60))
        for i in range(count)
    ]
    plan = planted.plan_of(losses)
    order = ordered(plan, (0, 1))
    assert len(order) == len(set(order)) == 120 * 3
    assert order[0] == (0, "simulate", None)
    simulated: set[int] = set()
    for place, stage, seed in order:
        simulated |= {place} if stage == "simulate" else set()
        assert place in simulated  # before anything else of it
        assert (stage == "simulate") == (seed is None)
    first = Counter(
        plan.losses[place].kind for place, stage, _ in order[:90] if stage != "simulate"
    )
    assert first["random"] >= 8
    assert first["rejected"] >= 4
    assert first["subspace"] >= 20
    halves = [seed for _, stage, seed in order[: len(order) // 2] if stage == "proxy"]
    assert 0.1 < sum(seed == 1 for seed in halves) / len(halves) < 0.25


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"rungs": [3, 1]}, "rungs"),
        ({"rungs": [2]}, "rungs"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"stepz": 3}, "stepz"),
        ({"groups": {"a": {"detector": "digits/atss", "named": ["nobody"]}}}, "named"),
    ],
)
def test_a_wrong_spec_names_the_field(changes: Any, field: str, tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    path.write_text(json.dumps({**SMALL, **changes}))
    with pytest.raises(SpecError) as found:
        load_table_spec(path)
    assert field in str(found.value)


def test_a_log_drops_a_torn_line_and_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / LOG_FILE
    with TableLog(path) as log:
        log.add(planted.trial("a", 0, 0.5))
        log.add(planted.trial("a", 1, None))
        with pytest.raises(JobError, match="another process"):
            TableLog(path)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"loss": "b", "sta')
    assert len(read_log(path)) == 2
    with TableLog(path) as log:
        assert log.trials[TableKey("a", "proxy", 0)] == [planted.trial("a", 0, 0.5)]
        log.add(planted.trial("b", 0, 0.1))
    assert path.read_bytes().startswith(whole)
    assert len(read_log(path)) == 3
    for foreign in (b"hello", b"hello\n", b'{"key": 1}\n'):
        path.write_bytes(foreign)
        with pytest.raises(JobError):
            TableLog(path)


def _fake(trained: list[TrialSpec], broken: str = "") -> Any:
    """A trainer whose AP follows from the trial; what holds `broken` fails."""

    def one(spec: TrialSpec) -> TrialResult:
        trained.append(spec)
        if broken and broken in json.dumps(spec.definition):
            return TrialResult("failed", "made to fail", None, spec.seed, spec.steps)
        ap = (len(json.dumps(spec.definition)) % 97 + spec.seed) / 100
        rungs = dict.fromkeys(spec.rungs, ap / 2)
        return TrialResult("done", "", ap, spec.seed, spec.steps, rungs=rungs)

    return one


def test_a_build_goes_on_where_it_was_stopped(small: TablePlan, tmp_path: Path) -> None:
    path, trained = tmp_path / LOG_FILE, list[TrialSpec]()
    for stop_at in (3, 5, 10**6):
        stop, seen = threading.Event(), list[Progress]()

        def say(ended: Progress, stop=stop, seen=seen, stop_at=stop_at) -> None:  # type: ignore[no-untyped-def]
            seen.append(ended)
            if len(seen) == stop_at:
                stop.set()

        with TableLog(path) as log, InlineExecutor(1, _fake(trained)) as executor:
            done = build_table(small, log, executor, say=say, stop=stop)
        assert done == (stop_at == 10**6)
    total = 3 * len(small.losses)
    assert seen[-1].done == seen[-1].of == total
    assert len(trained) <= total + 2  # at most what ran when it was stopped is trained again
    found = read_log(path)
    assert len(found) == total
    assert all(len(attempts) == 1 for attempts in found.values())
    for trial in trained:
        simulated = trial.train == trial.evaluate
        assert trial.steps == (1 if simulated else 2)
        assert trial.rungs == (() if simulated else (1,))
    with TableLog(path) as log, InlineExecutor(1, _fake(trained)) as executor:
        before = len(trained)
        assert build_table(small, log, executor)
        assert len(trained) == before


def test_a_build_without_time_trains_nothing(small: TablePlan, tmp_path: Path) -> None:
    trained: list[TrialSpec] = []
    with TableLog(tmp_path / LOG_FILE) as log, InlineExecutor(1, _fake(trained)) as executor:
        assert not build_table(small, log, executor, minutes=0)
    assert trained == []


def test_a_trial_that_fails_is_tried_once_more(small: TablePlan, tmp_path: Path) -> None:
    path, trained = tmp_path / LOG_FILE, list[TrialSpec]()
    for _ in range(2):
        with TableLog(path) as log, InlineExecutor(1, _fake(trained, "DIoU")) as executor:
            assert build_table(small, log, executor)
    (broken,) = (loss for loss in small.losses if loss.name == "focal-diou")
    attempts = {key: found for key, found in read_log(path).items() if key.loss == broken.id}
    assert [len(found) for found in attempts.values()] == [2, 2, 2]
    assert len(trained) == 3 * len(small.losses) + 3
    (tmp_path / PLAN_FILE).write_bytes(b"")
    write_plan(small, tmp_path / PLAN_FILE)
    table = load_table(str(tmp_path))
    assert table.counted["ended"] == 3 * (len(small.losses) - 1)


def test_one_real_trial(small: TablePlan, tmp_path: Path) -> None:
    stop = threading.Event()
    left = replace(small, losses=small.losses[:1], baselines={})
    with TableLog(tmp_path / LOG_FILE) as log, InlineExecutor(1, train) as executor:
        build_table(left, log, executor, say=lambda ended: stop.set(), stop=stop)
    ((trial,),) = read_log(tmp_path / LOG_FILE).values()
    assert (trial.stage, trial.status, trial.last_step) == ("simulate", "done", 1)
    assert trial.ap is not None
    assert trial.versions["torch"]


def test_the_published_files_give_the_same_table_back(small: TablePlan, tmp_path: Path) -> None:
    trials = []
    for number, loss in enumerate(small.losses[:-2]):
        ap = None if number == 4 else number / 100 + 0.1234567890123
        trials += [planted.score(loss.id, ap), planted.trial(loss.id, 0, ap, (0.1,))]
    trials.append(TableTrial(**{**vars(trials[3]), "seed": 1, "status": "failed", "ap": None}))
    log = planted.by_key(trials)
    for each in log.values():
        for trial in each:
            object.__setattr__(trial, "rungs", {1: 0.25} if trial.stage == "proxy" else {})
    written = write_table(tmp_path, small, log)
    assert read_table(tmp_path) == written
    assert load_table(str(tmp_path)) == written
    assert written.counted == {
        "losses": len(small.losses),
        "trained": len(small.losses) - 2,
        "trials": 3 * len(small.losses),
        "ended": 2 * (len(small.losses) - 2),
    }
    header = gzip.decompress((tmp_path / TRIALS).read_bytes()).decode().splitlines()[0]
    assert header.startswith("loss,stage,seed,status,ap,ap_1,last_step")
    (tmp_path / LOSSES).write_bytes(b"no gzip")
    with pytest.raises(JobError, match="holds no table"):
        read_table(tmp_path)


def test_a_diverged_training_counts_as_nothing_found() -> None:
    plan = planted.plan_of([planted.loss("base"), planted.loss("lost")])
    trials = [planted.trial("base", 0, 0.4), planted.trial("lost", 0, None, last_step=30)]
    table = planted.made(plan, trials)
    reading = table.losses[1].readings[0]
    assert (reading.ap, reading.share) == (0.0, 30 / planted.STEPS)
    assert set(reading.rungs.values()) == {0.0}
    assert reading.seconds == 10.0  # the start of the process is not the trial's
    assert table.losses[0].readings.keys() == {0}


def test_the_command_plans_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "table.yaml"
    only = {"detector": "digits/atss", "named": ["focal-diou"], "rejects": {"random": 0}}
    small = {**SMALL, "max_draws": 20, "groups": {"atss": only}}
    spec.write_text(json.dumps(small))
    folder = tmp_path / "made"
    assert run(["table", "plan", str(spec), "--folder", str(folder)]) == 0
    assert "losses in" in capsys.readouterr().out
    assert run(["table", "plan", str(spec), "--folder", str(folder)]) == 2
    assert "--force" in capsys.readouterr().err
    assert run(["table", "build", str(folder), "--minutes", "0"]) == 1
    assert run(["table", "show", str(folder), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["counted"]["ended"] == 0
    assert run(["table", "export", str(folder)]) == 0
    assert (folder / LOSSES).is_file()
