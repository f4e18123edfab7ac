"""The noise floor: what is measured from which trials, what it asks for, and who is warned."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from losses import CATALOG
from search_server.budget_warning import budget_warning, shortfall
from search_server.cli import run
from search_server.cli.search import warn_of_budget
from search_server.comparison import Comparison, Contender
from search_server.comparison_rows import table_rows
from search_server.errors import JobError
from search_server.executors import InlineExecutor
from search_server.joined_splits import joined, split_named
from search_server.leaderboard import trial_group
from search_server.noise import measured, noise_losses
from search_server.noise_plot import plot_noise
from search_server.noise_variants import Variant, parse_variant
from search_server.spec import JobSpec, load_spec, parse_spec
from search_server.spec_trials import spec_trials
from search_server.stage_correlation import stage_ranks
from search_server.store import CandidateRecord, NoiseFloor, Store, models
from workers import Split, TrialResult, TrialSpec
from workers.data.coco import check_split, load_coco
from workers.detector import parse_detector

TEXT = """name: tiny
detector: digits/{detector}
branches: {{cls: {{space: {space}}}}}
baseline: {baseline}
calibrate: false
funnel: {{simulate: null, proxy: {{steps: 7, batch_size: 3}}, confirm: {{seeds: 4, top: 2}}}}
"""


def spec(detector: str = "retinanet", space: str = "binary_cls", **more: object) -> JobSpec:
    text = TEXT.format(detector=detector, space=space, baseline=more.pop("baseline", "default"))
    return parse_spec(text + "".join(f"{key}: {value}\n" for key, value in more.items()))


def ended(status: str, fitness: float | None, seed: int) -> TrialResult:
    return TrialResult(status, "", fitness, seed, 7, seconds={"total": 2.0})


def rows(values: dict[str, list[float | None]], given: JobSpec | None = None):
    """Rows of a comparison from made-up APs by loss, the baseline first; None: diverged."""
    trials = spec_trials(given or spec())
    names = list(values)
    contenders = tuple(Contender(name, CATALOG["default"]) for name in names)
    seeds = tuple(range(len(values[names[0]])))
    comparison = Comparison(trials.template, contenders, 0, seeds)
    results = {
        (place, seed): ended("diverged" if ap is None else "done", ap, seed)
        for place, name in enumerate(names)
        for seed, ap in enumerate(values[name])
    }
    return trials, comparison, table_rows(comparison, results)


class TestMeasured:
    def test_paired_noise_is_pooled_and_single_noise_is_the_baselines(self) -> None:
        rng = np.random.default_rng(3)
        luck = 0.05 * rng.normal(size=9)
        values = 0.4 + luck + 0.01 * rng.normal(size=(3, 9))
        named = dict(zip(("baseline", "a", "b"), values.tolist(), strict=True))
        trials, comparison, table = rows(named)
        found = measured("x", trials, comparison, table, gains=(1.0, 3.0))
        assert found.base.spread.deviation == pytest.approx(np.std(values[0], ddof=1))
        assert found.ratio == pytest.approx(values[0].mean() / np.std(values[0], ddof=1))
        # half the mean variance of the three pairs' differences, by numpy
        pairs = [np.var(values[i] - values[j], ddof=1) for i, j in ((0, 1), (0, 2), (1, 2))]
        assert found.paired.paired_deviation == pytest.approx(np.sqrt(np.mean(pairs)))
        assert found.paired.freedom == 16
        assert found.limit > found.paired.paired_deviation
        sd = 100 * found.paired.paired_deviation
        need = found.needs[0]
        assert (need.gain, found.confirm_seeds, found.top) == (1.0, 4, 2)
        # both ends of the claim, by scipy's own test on simulated differences
        for seeds, enough in ((need.best, True), (need.best - 1, False)):
            simulated = 1.0 + sd * rng.normal(size=(20_000, seeds))
            power = np.mean(stats.ttest_1samp(simulated, 0, axis=1).pvalue < 0.025)
            assert (power > 0.79) if enough else (power < 0.81)
        assert need.one <= need.best <= need.cautious
        assert found.needs[1].best < need.best

    def test_losses_that_vary_otherwise_do_not_count(self) -> None:
        base = [0.40, 0.41, 0.43]
        trials, comparison, table = rows(
            {
                "baseline": base,
                "twin": base,
                "weak": [0.01, 0.0, 0.02],
                "wild": [0.4, None, 0.4],
                "fair": [0.41, 0.40, 0.43],
            }
        )
        found = measured("x", trials, comparison, table)
        assert set(found.left_out) == {"twin", "weak", "wild"}
        assert found.left_out["twin"] == "the same loss as baseline"
        differences = np.array([0.41, 0.40, 0.43]) - base
        assert found.paired.paired_deviation == pytest.approx(np.std(differences, ddof=1))

    def test_a_single_loss_has_a_floor_but_no_paired_one(self, tmp_path: Path) -> None:
        trials, comparison, table = rows({"baseline": [0.4, 0.42]})
        found = measured("x", trials, comparison, table)
        assert (found.paired, found.detectable, found.needs) == (None, None, ())
        floor = found.floor()
        assert (floor.sd_paired, floor.freedom, floor.seeds) == (None, 1, 2)
        assert plot_noise([found], tmp_path / "p.png").stat().st_size > 2000

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (("retinanet", "binary_cls"), ["focal-iou", "qfl-giou"]),
            (("faster_rcnn", "multi_cls"), ["ce-giou", "ce-iou"]),
        ],
    )
    def test_losses_to_measure_with(self, given: tuple[str, str], expected: list[str]) -> None:
        assert noise_losses(spec_trials(spec(*given))) == expected
        first = CATALOG[expected[0]]
        other = spec_trials(spec(*given, baseline=expected[0]))
        assert other.baseline.key == first.key
        assert noise_losses(other) == expected[1:]

    def test_a_policy_search_is_measured_with_ranking_losses(self) -> None:
        policy = parse_spec(
            "{name: p, detector: digits/retinanet, branches: {cls: {space: pap}}, baseline: "
            "pap-identity, searcher: {type: policy}, funnel: {simulate: null}}"
        )
        assert noise_losses(spec_trials(policy)) == ["rank-sort", "alrp"]


class TestVariants:
    def test_what_it_says(self) -> None:
        found = parse_variant("slow start: optim_wrapper.optimizer.lr=0.001 steps=9 average=0.05")
        assert found == Variant(
            "slow start", ("optim_wrapper.optimizer.lr=0.001",), steps=9, average=0.05
        )
        trials = found.trials(spec(), "s", Variant("base", batch_size=5))
        config = parse_detector(trials.template.detector)
        assert config.optim_wrapper.optimizer.lr == 0.001
        hook = {"type": "EMAHook", "momentum": 0.05, "priority": "ABOVE_NORMAL"}
        assert config.custom_hooks[-1] == hook
        assert (trials.template.steps, trials.template.batch_size) == (9, 5)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("steps=9", "must be NAME: KEY=VALUE"),
            ("x:", "must be NAME: KEY=VALUE"),
            ("x: steps", "'steps' must be KEY=VALUE"),
            ("x: steps=0", "steps must be a whole number above 0, got '0'"),
            ("x: average=1", "average must lie between 0 and 1"),
            ("x: 'a", "No closing quotation"),
        ],
    )
    def test_what_is_none(self, text: str, message: str) -> None:
        with pytest.raises(JobError, match=message):
            parse_variant(text)

    def test_joined_splits(self, tmp_path: Path) -> None:
        splits = spec_trials(spec()).job.splits
        whole = split_named(splits, "search_val+confirm")
        parts = [load_coco(splits[name].annotations) for name in ("search_val", "confirm")]
        content = load_coco(whole.annotations)  # ids are unique, references lead somewhere
        assert len(content["images"]) == sum(len(part["images"]) for part in parts)
        assert len(content["annotations"]) == sum(len(part["annotations"]) for part in parts)
        assert all((Path(whole.images) / each["file_name"]).is_file() for each in content["images"])
        check_split(whole)
        names = {each["id"]: each["file_name"] for each in content["images"]}
        boxes = sorted((names[a["image_id"]], *a["bbox"]) for a in content["annotations"])
        expected = []
        for name, part in zip(("search_val", "confirm"), parts, strict=True):
            own = {each["id"]: each["file_name"] for each in part["images"]}
            folder = Path(splits[name].images).name
            expected += [
                (f"{folder}/{own[a['image_id']]}", *a["bbox"]) for a in part["annotations"]
            ]
        assert boxes == sorted(expected)
        with pytest.raises(JobError, match="no split 'x'"):
            split_named(splits, "confirm+x")
        with pytest.raises(JobError, match="names confirm twice"):
            split_named(splits, "confirm+confirm")

    def test_the_split_that_is_read_once_is_not_what_noise_is_measured_on(self) -> None:
        base = Variant("as it is", split="confirm")
        for split in ("test", "confirm+test"):
            with pytest.raises(JobError, match="a published row reads once"):
                Variant("other", split=split).trials(spec(), "spec.yaml", base)
            with pytest.raises(JobError, match="a published row reads once"):
                Variant("as that").trials(spec(), "spec.yaml", Variant("as it is", split=split))

    def test_splits_of_other_classes_are_not_joined(self, tmp_path: Path) -> None:
        made = []
        for name in "ab":
            path = tmp_path / f"{name}.json"
            category = [{"id": 1, "name": name}]
            path.write_text(json.dumps({"images": [], "annotations": [], "categories": category}))
            made.append(Split(str(path), str(tmp_path)))
        with pytest.raises(JobError, match="other classes"):
            joined(made, tmp_path)


class TestWarning:
    def group(self, given: JobSpec) -> str:
        return trial_group(spec_trials(given).template)

    def test_of_what_cannot_be_detected(self, tmp_path: Path) -> None:
        url = str(tmp_path / "store.db")
        given = spec(target_gain=1.0)
        assert "lossforge noise job.yaml" in (budget_warning(given, "job.yaml", url) or "")
        with Store.open(url) as store:
            store.add_noise_floor(NoiseFloor(self.group(given), 8, 0.3, 0.02, 0.008, 14, []))
        words = budget_warning(given, "job.yaml", url) or ""
        assert "4 confirm seeds cannot detect target_gain, 1 AP, for the best of 2" in words
        assert budget_warning(spec(target_gain=4.0), "job.yaml", url) is None
        assert budget_warning(spec(), "job.yaml", url) is None
        # the floor of other trials says nothing
        other = spec("atss", target_gain=4.0)
        assert "measure the noise first" in (budget_warning(other, "job.yaml", url) or "")

    def test_the_seeds_it_names_are_enough_and_one_less_is_not(self) -> None:
        words = shortfall(1.0, 4, 2, 0.8, 14)
        needed = int(words.split("it takes ")[1].split()[0])
        assert shortfall(1.0, needed, 2, 0.8, 14) is None
        assert shortfall(1.0, needed - 1, 2, 0.8, 14) is not None

    def test_without_confirm(self, tmp_path: Path) -> None:
        given = parse_spec(
            "{name: x, detector: digits/atss, branches: {cls: {space: binary_cls}}, "
            "target_gain: 0.5}"
        )
        assert "nothing is confirmed" in (budget_warning(given, "s", str(tmp_path / "s.db")) or "")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    """Runs a command line in this process."""

    def calling(*arguments: object) -> SimpleNamespace:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return calling


def test_the_command_measures_keeps_and_warns(tmp_path: Path, call, capsys, monkeypatch) -> None:
    path, url, trained = tmp_path / "job.yaml", str(tmp_path / "store.db"), []
    path.write_text(TEXT.format(detector="retinanet", space="binary_cls", baseline="default"))

    def trial(given: TrialSpec) -> TrialResult:
        trained.append(given)
        rng = np.random.default_rng([given.seed, given.steps, len(json.dumps(given.definition))])
        return ended("done", 0.4 + 0.01 * float(rng.uniform()), given.seed)

    monkeypatch.setattr(
        "search_server.executors.choice.open_executor", lambda *given: InlineExecutor(1, trial)
    )
    line = ["noise", path, "--seeds", 3, "--gain", 0.7, "--variant", "long: steps=9"]
    line += ["-o", tmp_path / "n.jsonl", "--store", url, "--plot", tmp_path / "n.png"]
    shown = call(*line)
    assert shown.code == 0, shown.err
    assert len(trained) == 2 * 3 * 3
    assert {given.seed for given in trained} == {3000, 3001, 3002}
    assert "confirm with 4 seeds finds a gain of" in " ".join(shown.out.split())
    assert (tmp_path / "n.png").exists()

    again = call(*line, "--json")
    assert len(trained) == 18, "what the file has is not trained again"
    first, long = json.loads(again.out)["variants"]
    assert (first["name"], long["name"]) == ("as it is", "long")
    assert 0.7 in [need["gain"] for need in first["needs"]]
    assert first["seconds"] == pytest.approx(2.0)
    with Store.open(url) as store:
        for each in (first, long):
            floor = store.noise_floor(each["group"])
            assert floor.sd_paired == pytest.approx(each["sd_paired"])
            assert floor.seeds == 3
            assert [loss["name"] for loss in floor.losses] == ["baseline", "focal-iou", "qfl-giou"]

    path.write_text(path.read_text() + "target_gain: 0.1\n")
    warn_of_budget(load_spec(path), path, url)
    assert "warning: 4 confirm seeds cannot detect target_gain, 0.1 AP" in capsys.readouterr().err


class TestStages:
    """How well the stages of a job rank, from its rows."""

    def job(self, store: Store, confirmed: int) -> str:
        job = store.create_job("one", {}, "", ["x"])
        rng = np.random.default_rng(0)
        for index in range(12):
            ap = 0.30 + 0.01 * index
            record = CandidateRecord(
                index, "random" if index else "baseline", (), {}, f"k{index}", stage="proxy",
                simulate_score=None if index == 0 else float(rng.uniform()),
            )  # fmt: skip
            store.add_candidate(job, record)
            for seed in (0, 1):
                store.start_trial(job, index, "proxy", seed, "k")
                result = ended("done", ap + 0.001 * seed, seed)
                store.finish_trial(job, index, "proxy", seed, result)
                with store.changing() as session:
                    row = session.get(models.Trial, (job, index, "proxy", seed))
                    row.rungs = {"3": 0.2 - 0.01 * index}
            store.update_candidate(job, index, state="done", fitness=ap + 0.0005)
            if index < confirmed:
                store.start_trial(job, index, "confirm", 1000, "k")
                result = ended("done", 0.3 + 0.02 * index, 1000)
                store.finish_trial(job, index, "confirm", 1000, result)
        return job

    def test_correlations(self, tmp_path: Path) -> None:
        with Store.open(str(tmp_path / "s.db")) as store:
            found = {(r.stage, r.against): r for r in stage_ranks(store, self.job(store, 5))}
        assert found["proxy", "confirm"].correlation.value == pytest.approx(1.0)
        assert found["proxy, one seed", "confirm"].correlation.value == pytest.approx(1.0)
        assert found["rung 3", "confirm"].correlation.value == pytest.approx(-1.0)
        assert found["rung 3", "proxy"].count == 12
        simulate = found["simulate", "proxy"]
        rng = np.random.default_rng(0)
        expected = stats.spearmanr(rng.uniform(size=11), np.arange(11)).statistic
        assert simulate.correlation.value == pytest.approx(expected)
        assert simulate.count == 11
        assert found["simulate", "confirm"].count == 4

    def test_a_diverged_seed_counts_as_nothing_at_a_rung_too(self, tmp_path: Path) -> None:
        with Store.open(str(tmp_path / "s.db")) as store:
            job = self.job(store, 0)
            with store.changing() as session:
                best = session.get(models.Trial, (job, 0, "proxy", 1))
                best.rungs, best.state, best.fitness = None, "diverged", None
            store_ranks = {(r.stage, r.against): r for r in stage_ranks(store, job)}
            found = store_ranks["rung 3", "proxy"]
            # 0.2 and nothing is less than what the others have at the rung
            means = [0.1, *(0.2 - 0.01 * index for index in range(1, 12))]
        expected = stats.spearmanr(means, np.arange(12)).statistic
        assert found.correlation.value == pytest.approx(expected)

    def test_the_command(self, tmp_path: Path, call) -> None:
        url = str(tmp_path / "s.db")
        with Store.open(url) as store:
            job = self.job(store, 2)
        shown = call("stages", job, "--store", url)
        assert shown.code == 0, shown.err
        text = " ".join(shown.out.split())
        assert "rung 3 confirm 2 too few candidates" in text
        assert "rung 3 proxy 12 -1.00 (-1.00 to -1.00)" in text
        assert json.loads(call("stages", job, "--store", url, "--json").out)["stages"]
