"""Comparisons: scipy's statistics, no trial twice, and what was not counted is said."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from losses import CATALOG, LossDefinition
from search_server.cli import run
from search_server.comparison import Comparison, Contender
from search_server.comparison_file import ComparisonFile
from search_server.comparison_plot import plot_comparison
from search_server.comparison_rows import table_rows
from search_server.comparison_run import run_comparison
from search_server.contenders import choose_contenders
from search_server.errors import JobError
from search_server.executors import InlineExecutor
from search_server.funnel.stages import TrialKey
from search_server.jobs import prepare_job
from search_server.paired_statistics import paired
from search_server.spec import load_spec
from search_server.spec_trials import spec_trials
from search_server.store import CandidateRecord, Store
from workers import Split, TrialResult, TrialSpec
from workers.detector import parse_detector

COMMAND = (sys.executable, "-P", "-m", "search_server.cli")
Run = Callable[[TrialSpec], TrialResult]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    """Runs a command line in this process."""

    def calling(*arguments: object) -> SimpleNamespace:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return calling


class TestStatistics:
    @pytest.mark.parametrize("count", [2, 3, 8, 40])
    def test_mean_and_interval_are_those_of_scipy(self, count: int) -> None:
        rng = np.random.default_rng(count)
        ours, theirs = rng.uniform(size=count), rng.uniform(size=count)
        seeds = [int(s) for s in rng.permutation(1000)[:count]]
        found = paired(
            dict(zip(seeds, map(float, ours), strict=True)),
            # in another order: seeds are what pairs them
            dict(reversed(list(zip(seeds, map(float, theirs), strict=True)))),
        )
        assert found is not None
        test = stats.ttest_rel(ours, theirs)
        low, high = test.confidence_interval(0.95)
        assert found.mean == pytest.approx(np.mean(ours - theirs), rel=1e-12)
        assert found.deviation == pytest.approx(np.std(ours - theirs, ddof=1), rel=1e-12)
        assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
        assert found.count == count
        assert found.wins == int(np.sum(ours > theirs))

    def test_only_common_seeds_count(self) -> None:
        found = paired({1: 0.5, 2: 0.4, 9: 1.0}, {1: 0.4, 2: 0.4, 3: 0.0})
        assert found is not None
        assert (found.count, found.wins, found.ties) == (2, 1, 1)
        assert found.mean == pytest.approx(0.05)

    def test_one_seed_has_no_interval_and_none_has_nothing(self) -> None:
        found = paired({1: 0.5}, {1: 0.25})
        assert found is not None
        assert (found.mean, found.deviation, found.low, found.high) == (0.25, None, None, None)
        assert paired({1: 0.5}, {2: 0.25}) is None


def comparison(**changes: object) -> Comparison:
    """Three losses on data that is nowhere: for trials that are not trained."""
    names = ("focal-l1", "focal-giou", "focal-iou")
    fields: dict = {
        "contenders": tuple(Contender(name, CATALOG[name]) for name in names),
        "baseline": 0,
        "seeds": (5, 6, 7),
    }
    template = TrialSpec(
        detector="model = dict(type='Nothing')",
        definition={},
        train=Split("/nowhere.json", "/nowhere"),
        evaluate=Split("/nowhere.json", "/nowhere"),
        classes=("a",),
        seed=0,
        steps=int(changes.pop("steps", 1)),  # type: ignore[call-overload]
        batch_size=1,
    )
    return Comparison(template, **{**fields, **changes})


def ended(spec: TrialSpec, fitness: float | None, status: str = "done") -> TrialResult:
    return TrialResult(status, "" if status == "done" else "why", fitness, spec.seed, spec.steps)


def box_loss(spec: TrialSpec) -> str:
    return str(spec.definition["bbox"]["loss"]["type"])


def by_box_loss(spec: TrialSpec) -> TrialResult:
    """A trial in which GIoU is better than L1 by 0.1 and the IoU diverges or fails."""
    if box_loss(spec) == "IoULoss":
        return ended(spec, None, "diverged" if spec.seed == 5 else "failed")
    return ended(spec, 0.01 * (spec.seed % 100) + 0.1 * (box_loss(spec) == "GIoULoss"))


def compared(
    one: Comparison, path: Path | None = None, run: Run = by_box_loss, **more: object
) -> dict:
    with InlineExecutor(1, run) as executor:
        if path is None:
            return dict(run_comparison(one, executor, **more))
        with ComparisonFile(path) as file:
            return dict(run_comparison(one, executor, file, **more))


class TestComparison:
    def test_diverged_counts_as_nothing_found_and_failed_does_not_count(self) -> None:
        one = comparison()
        base, giou, iou = table_rows(one, compared(one))
        assert base.is_baseline
        assert base.difference is None
        assert base.by_seed == {5: 0.05, 6: 0.06, 7: 0.07}
        assert giou.difference is not None
        assert giou.difference.mean == pytest.approx(0.1)
        assert giou.difference.wins == giou.difference.count == 3
        assert (iou.diverged, iou.failed, iou.missing) == ((5,), (6, 7), ())
        assert iou.by_seed == {5: 0.0}
        assert iou.difference is not None
        assert (iou.difference.count, iou.difference.mean) == (1, pytest.approx(-0.05))

    def test_p_values_are_corrected_and_estimates_shrunken(self) -> None:
        """Two losses against the baseline, one of them with two seeds only."""
        base = {5: 0.40, 6: 0.44, 7: 0.42}
        gains = {"GIoULoss": (0.02, 0.03, 0.025), "IoULoss": (0.01, 0.002, None)}

        def trial(spec: TrialSpec) -> TrialResult:
            gain = gains.get(box_loss(spec), (0.0, 0.0, 0.0))[spec.seed - 5]
            lost = gain is None
            return ended(
                spec, None if lost else base[spec.seed] + gain, "timeout" if lost else "done"
            )

        one = comparison()
        first, giou, iou = table_rows(one, compared(one, run=trial))
        alone = stats.ttest_1samp([0.02, 0.03, 0.025], 0).pvalue
        other = stats.ttest_1samp([0.01, 0.002], 0).pvalue
        assert giou.p == pytest.approx(2 * alone)
        assert iou.p == pytest.approx(max(2 * alone, other))
        assert iou.failed == (7,)
        middle = (0.025 + 0.006) / 2
        assert middle < giou.shrunken < 0.025
        assert 0.006 < iou.shrunken < middle
        assert (first.p, first.shrunken) == (None, None)

    def test_the_picture(self, tmp_path: Path) -> None:
        one = comparison()
        path = plot_comparison(one, table_rows(one, compared(one)), tmp_path / "new" / "p.png")
        assert path.stat().st_size > 5000
        empty = plot_comparison(one, table_rows(one, {}), tmp_path / "empty.png")
        assert empty.stat().st_size > 2000

    def test_the_trials_of_a_seed_differ_in_the_loss_alone(self) -> None:
        one = comparison()
        pair = [one.trial(index, 6).to_json() for index in (0, 1)]
        assert pair[0].pop("definition") != pair[1].pop("definition")
        assert pair[0] == pair[1]

    def test_a_rerun_trains_only_what_failed(self, tmp_path: Path) -> None:
        one, path, trained = comparison(), tmp_path / "trials.jsonl", []

        def watched(spec: TrialSpec) -> TrialResult:
            trained.append((box_loss(spec), spec.seed))
            return by_box_loss(spec)

        first = compared(one, path, watched)
        assert len(trained) == len(set(trained)) == 9
        trained.clear()
        second = compared(one, path, watched)
        assert sorted(trained) == [("IoULoss", 6), ("IoULoss", 7)]
        assert second == first

    def test_more_seeds_and_losses_use_what_is_there(self, tmp_path: Path) -> None:
        path, trained = tmp_path / "trials.jsonl", []

        def watched(spec: TrialSpec) -> TrialResult:
            trained.append((box_loss(spec), spec.seed))
            return by_box_loss(spec)

        two = comparison().contenders[:2]
        compared(comparison(contenders=two), path)
        compared(comparison(contenders=two, seeds=(5, 6, 7, 8), baseline=1), path, watched)
        assert sorted(trained) == [("GIoULoss", 8), ("L1Loss", 8)]
        trained.clear()
        compared(comparison(contenders=two, steps=2), path, watched)
        assert len(trained) == 6  # other trials altogether

    def test_the_same_loss_by_two_names_is_trained_once(self, tmp_path: Path) -> None:
        twin = LossDefinition("twin", CATALOG["focal-l1"].cls, CATALOG["focal-l1"].bbox)
        both = (Contender("focal-l1", CATALOG["focal-l1"]), Contender("twin", twin))
        one, path = comparison(contenders=both), tmp_path / "trials.jsonl"
        _, row = table_rows(one, compared(one, path))
        assert len(path.read_text().splitlines()) == 3
        assert row.difference is not None
        assert (row.difference.ties, row.difference.wins, row.difference.mean) == (3, 0, 0.0)

    def test_a_stop_keeps_what_has_ended(self, tmp_path: Path) -> None:
        one, path, stop = comparison(), tmp_path / "trials.jsonl", threading.Event()
        found = compared(one, path, say=lambda event: stop.set(), stop=stop)
        assert 1 <= len(found) < 9
        assert sum(len(row.missing) for row in table_rows(one, found)) == 9 - len(found)
        assert len(path.read_text().splitlines()) == len(found)

    def test_early_results_are_balanced(self) -> None:
        seeds = [seed for _, seed in comparison().trials()]
        assert seeds == [5, 5, 5, 6, 6, 6, 7, 7, 7]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"seeds": (1,)}, "1 seed gives no interval; at least 2"),
            ({"seeds": (2**32 - 1, 2**32)}, "lower --first-seed"),
            ({"contenders": (Contender("x", CATALOG["default"]),) * 2}, "'x' is given twice"),
        ],
    )
    def test_what_cannot_be_compared(self, changes: dict, message: str) -> None:
        with pytest.raises(JobError, match=message):
            comparison(**changes)


class TestFile:
    def lines(self, path: Path) -> list[bytes]:
        """A whole file of a comparison."""
        compared(comparison(), path)
        return path.read_bytes().splitlines(keepends=True)

    @pytest.mark.parametrize("kept", [1, 8, 100, -1])
    def test_a_torn_last_line_is_dropped(self, tmp_path: Path, kept: int) -> None:
        path = tmp_path / "trials.jsonl"
        lines = self.lines(path)
        whole, torn = b"".join(lines[:-1]), lines[-1].rstrip(b"\n")[:kept]
        path.write_bytes(whole + torn)
        with ComparisonFile(path) as file:
            assert len(file.results) == len(lines) - 1
        assert path.read_bytes() == whole

    def test_nothing_but_a_torn_line(self, tmp_path: Path) -> None:
        path = tmp_path / "trials.jsonl"
        path.write_bytes(b'{"key": "ab')
        assert len(self.lines(path)) == 9

    def test_a_last_line_without_its_end_is_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "trials.jsonl"
        content = b"".join(self.lines(path))
        path.write_bytes(content[:-1])
        with ComparisonFile(path) as file:
            assert len(file.results) == 9
        assert path.read_bytes() == content

    @pytest.mark.parametrize(
        ("content", "line"),
        [("my notes", 1), ("my\nnotes\n", 1), ("{}\n", 1), ('{"key": "a", "result": 3}\n', 1)],
    )
    def test_a_file_of_something_else_is_left_alone(
        self, tmp_path: Path, content: str, line: int
    ) -> None:
        path = tmp_path / "notes.txt"
        path.write_text(content)
        with pytest.raises(JobError, match=f"line {line} is no trial of a comparison"):
            ComparisonFile(path)
        assert path.read_text() == content

    def test_two_do_not_write_one_file(self, tmp_path: Path) -> None:
        path = tmp_path / "trials.jsonl"
        with ComparisonFile(path), pytest.raises(JobError, match="another comparison"):
            ComparisonFile(path)
        ComparisonFile(path).close()


class TestContenders:
    def test_names_files_and_candidates(self, tmp_path: Path) -> None:
        definition = CATALOG["focal-giou"]
        own = tmp_path / "own.json"
        own.write_text(json.dumps({**definition.to_json(), "name": "my loss"}))
        with Store.open(str(tmp_path / "store.db")) as store:
            job = store.create_job("first", {}, "", ["x"])
            record = CandidateRecord(0, "baseline", (), definition.to_json(), definition.key)
            store.add_candidate(job, record)
            store.start_trial(job, 0, "proxy", 0, "k")
            store.finish_trial(job, 0, "proxy", 0, TrialResult("done", "", 0.5, 0, 1))
            store.update_candidate(job, 0, state="done", fitness=0.5)
        found, base = choose_contenders(
            ["default", str(own), "first-1:0"],
            "first-1:0",
            lambda: Store.open(str(tmp_path / "store.db")),
        )
        assert [each.name for each in found] == ["default", "my loss", "first-1:0"]
        assert base == 2
        assert found[1].definition.key == found[2].definition.key == definition.key

    def test_a_baseline_that_is_not_among_them_is_added(self) -> None:
        found, base = choose_contenders(["focal-l1", "focal-iou"], "default", Store.open)
        assert [each.name for each in found] == ["default", "focal-l1", "focal-iou"]
        assert base == 0

    def test_files_of_one_name_are_told_by_their_paths(self, tmp_path: Path) -> None:
        paths = [str(tmp_path / f"{letter}.json") for letter in "ab"]
        for path, kind in zip(paths, ("focal-l1", "focal-iou"), strict=True):
            Path(path).write_text(json.dumps({**CATALOG[kind].to_json(), "name": "same"}))
        found, _ = choose_contenders(paths, None, Store.open)
        assert [each.name for each in found] == paths


def write_folder(root: Path, images: int = 6) -> Path:
    """The first images of two splits of the digits, as a folder in COCO layout."""
    from workers.data import digits

    folder = root / "few"
    folder.mkdir()
    data = digits()
    for name in ("search_train", "confirm"):
        split = data.splits[name]
        content = json.loads(Path(split.annotations).read_text())
        content["images"] = content["images"][:images]
        ids = {image["id"] for image in content["images"]}
        kept = [each for each in content["annotations"] if each["image_id"] in ids]
        content["annotations"] = kept
        (folder / f"{name}.json").write_text(json.dumps(content))
        (folder / name).symlink_to(split.images)
    return folder


def arguments(folder: Path, output: Path) -> list[str]:
    return [
        *("compare", "focal-l1", "focal-giou", "--detector", "digits/retinanet"),
        *("--data", str(folder), "--steps", "2", "--batch-size", "2", "--seeds", "2"),
        *("--address", "none", "--slots", "1", "--output", str(output)),
    ]


@pytest.mark.slow
def test_real_trials_killed_and_gone_on_with(own_home: Path, tmp_path: Path, call) -> None:
    folder, output = write_folder(tmp_path), tmp_path / "trials.jsonl"
    line = arguments(folder, output)
    environment = {**os.environ, "LOSSFORGE_HOME": str(own_home)}
    with subprocess.Popen([*COMMAND, *line], env=environment, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 120
        while not (output.exists() and output.read_bytes().count(b"\n")):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        process.kill()
    before = output.read_bytes()
    before = before[: before.rindex(b"\n") + 1]
    output.write_bytes(before + b'{"key": "0123')

    done = call(*line, "--json")
    assert done.code == 0, done.err
    assert output.read_bytes().startswith(before)
    records = [json.loads(each) for each in output.read_text().splitlines()]
    assert len(records) == 4
    assert len({record["key"] for record in records}) == 4  # none was trained twice
    assert {(r["loss"], r["seed"]) for r in records} == {
        (name, seed) for name in ("focal-l1", "focal-giou") for seed in (3000, 3001)
    }
    found = json.loads(done.out)
    assert found["baseline"] == "focal-l1"
    assert [loss["count"] for loss in found["losses"]] == [2, 2]
    aps = {
        name: [r["result"]["fitness"] for r in records if r["loss"] == name]
        for name in ("focal-l1", "focal-giou")
    }
    difference = np.subtract(aps["focal-giou"], aps["focal-l1"])
    assert found["losses"][1]["difference"]["mean"] == pytest.approx(difference.mean(), abs=1e-12)

    shown = call(*line)
    assert shown.code == 0
    assert "4/4" not in shown.err  # no trial was left to run
    assert re.search(r"focal-l1 +2 +\d+\.\d\d +\d+\.\d\d +baseline", shown.out)
    assert re.search(r"focal-giou +2 .* \d of 2", shown.out)


class TestErrors:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (["focall"], "no loss is named 'focall'.*JOB:INDEX"),
            (["nope.json"], "cannot read nope.json"),
            (["default", "--split", "tset"], "no split 'tset'; it has search_train"),
            (["default", "--train-split", "x"], "no split 'x'"),
            (["default", "--seeds", "1"], "1 seed gives no interval"),
            (["default", "default"], "'default' is given twice"),
            (["default", "--spec", "nope.yaml"], "--detector is in the spec"),
            (["default", "cse-autoloss-a"], "cse-autoloss-a: "),
            (["default", "--data", "/nowhere"], "is not a folder"),
            (["default", "--address", "auto", "--slots", "2"], "--slots is for this machine"),
            (["first-1:0", "--store", "/nowhere/store.db"], "no store at"),
        ],
    )
    def test_are_one_line_before_any_trial(self, call, given: list[str], message: str) -> None:
        shown = call("compare", *given, "--detector", "digits/retinanet")
        assert shown.code == 2
        assert re.search(message, " ".join(shown.err.split()))
        assert "Traceback" not in shown.err

    def test_a_split_that_a_folder_does_not_have(self, call, tmp_path: Path) -> None:
        (tmp_path / "instances_val2017.json").write_text("{}")
        where = ("--data", tmp_path, "--detector", "digits/retinanet")
        shown = call("compare", "default", *where)
        assert shown.code == 2
        assert "the split 'search_train'; found instances_val2017.json" in shown.err


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    """A job spec whose confirm stage has a budget of its own."""
    path = tmp_path / "job.yaml"
    path.write_text(
        "name: tiny\ndetector: digits/retinanet\nbaseline: focal-giou\n"
        "branches: {cls: {space: binary_cls}}\nresources: {precision: bfloat16, threads: 2}\n"
        "funnel: {simulate: null, proxy: {steps: 7, batch_size: 3},"
        " confirm: {steps: 9, seeds: 5, top: 2}}\n"
    )
    return path


class TestSpec:
    def test_trials_are_those_that_confirm(self, spec_file: Path) -> None:
        found = spec_trials(load_spec(spec_file))
        job = prepare_job(load_spec(spec_file))
        definition = CATALOG["focal-l1"].to_json()
        own = replace(found.template, definition=definition, seed=1001)
        assert own.key == job.trial(TrialKey(1, "confirm", 1001), definition).key
        assert (own.steps, own.batch_size, own.precision, own.threads) == (9, 3, "bfloat16", 2)
        assert own.evaluate == job.splits["confirm"]
        assert (found.split, found.seeds, found.top) == ("confirm", 5, 2)
        assert found.baseline.key == CATALOG["focal-giou"].key

    def test_what_is_given_beside_it_wins(self, spec_file: Path) -> None:
        spec = load_spec(spec_file)
        found = spec_trials(spec, split="search_val", steps=4, options=["model.test_cfg.nms_pre=7"])
        assert found.template.evaluate == found.job.splits["search_val"]
        assert found.template.steps == 4
        assert parse_detector(found.template.detector).model.test_cfg.nms_pre == 7
        with pytest.raises(JobError, match="no split 'tset'; they have search_train"):
            spec_trials(spec, split="tset")

    def test_the_command(self, spec_file: Path, tmp_path: Path, call, monkeypatch) -> None:
        trained = []

        def trial(spec: TrialSpec) -> TrialResult:
            trained.append(spec)
            return by_box_loss(spec)

        monkeypatch.setattr(
            "search_server.executors.choice.open_executor", lambda *given: InlineExecutor(1, trial)
        )
        line = ["compare", "focal-l1", "focal-iou", "--spec", spec_file, "--seeds", 2, "--json"]
        shown = call(*line, "--plot", tmp_path / "p.png", "-o", tmp_path / "t.jsonl")
        assert shown.code == 1, "seed 3000 fails for the IoU"
        found = json.loads(shown.out)
        assert found["baseline"] == "focal-giou"
        assert [loss["name"] for loss in found["losses"]] == ["focal-giou", "focal-l1", "focal-iou"]
        assert found["losses"][1]["difference"]["mean"] == pytest.approx(-0.1)
        assert (found["split"], found["steps"], found["precision"]) == ("confirm", 9, "bfloat16")
        assert found["seeds"] == [3000, 3001]
        assert {spec.precision for spec in trained} == {"bfloat16"}
        assert (tmp_path / "p.png").exists()

    def test_without_either_it_asks(self, call) -> None:
        shown = call("compare", "default")
        assert shown.code == 2
        assert "give --spec SPEC.yaml, or --detector" in shown.err


def test_help_has_an_example(call) -> None:
    shown = call("compare", "--help")
    assert shown.code == 0
    assert "Example: lossforge compare" in " ".join(shown.out.split())
