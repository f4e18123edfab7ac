"""Job specs: what is read, what is refused, and that every refusal says file, field and cure."""

from pathlib import Path

import pytest

from losses import configs_dir
from search_server.errors import SpecError
from search_server.spec import JobSpec, load_spec, parse_spec

MINIMAL = """
name: first
detector: digits/atss
branches: {cls: {space: binary_cls}, bbox: {space: box}}
"""
SPLITS = """
data:
  search_train: {annotations: train.json, images: train}
  search_val: {annotations: /data/val.json, images: ../val}
"""


def refused(text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        parse_spec(text, source="job.yaml")
    assert caught.value.file == "job.yaml"
    return caught.value


def test_a_minimal_spec_is_complete() -> None:
    spec = parse_spec(MINIMAL)
    assert spec.data == "digits"
    assert list(spec.searched) == ["cls", "bbox"]
    assert spec.branches.cls is not None
    assert spec.branches.cls.alpha == 0.25
    assert spec.window >= spec.searcher.population


def test_null_alpha_is_no_weighting() -> None:
    spec = parse_spec(MINIMAL.replace("space: binary_cls", "space: binary_cls, alpha: null"))
    assert spec.branches.cls is not None
    assert spec.branches.cls.alpha is None


@pytest.mark.parametrize("path", sorted(configs_dir().glob("search/*.yaml")), ids=lambda p: p.stem)
def test_packaged_specs_are_specs(path: Path) -> None:
    spec = load_spec(path)
    assert JobSpec.from_json(spec.to_json()) == spec


def test_json_round_trip_keeps_everything() -> None:
    text = MINIMAL + SPLITS + "funnel: {simulate: null, proxy: {seeds: [3, 1]}}\nwindow: 2\n"
    spec = parse_spec(text, folder=Path("/specs"))
    again = JobSpec.from_json(spec.to_json())
    assert again == spec
    assert again.funnel.simulate is None
    assert again.funnel.proxy.seeds == (3, 1)


def test_paths_start_at_the_spec(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "job.yaml"
    file.parent.mkdir()
    file.write_text(MINIMAL.replace("digits/atss", "my/config.py") + SPLITS)
    spec = load_spec(file)
    assert spec.detector == str(tmp_path / "deep" / "my" / "config.py")
    assert spec.data != "digits"
    assert spec.data.search_train.annotations == str(tmp_path / "deep" / "train.json")
    assert spec.data.search_val.annotations == "/data/val.json"


@pytest.mark.parametrize(
    ("text", "field", "allowed"),
    [
        (MINIMAL + "windw: 3", "windw", "did you mean window?"),
        (MINIMAL + "funnel: {proxy: {step: 3}}", "funnel.proxy.step", "did you mean steps?"),
        (MINIMAL + "funnel: {proxy: {steps: many}}", "funnel.proxy.steps", "integer"),
        (MINIMAL + "funnel: {proxy: {steps: 0}}", "funnel.proxy.steps", "greater than or equal"),
        (MINIMAL + "limits: {job_hours: .nan}", "limits.job_hours", "finite"),
        (MINIMAL + "funnel: {simulate: {}}\nwindow: 8", "window", "searcher.population (16)"),
        (MINIMAL + "funnel: {simulate: {keep: 99}}", "funnel.simulate.keep", "population"),
        (MINIMAL + "funnel: {proxy: {hopeless: 0.3}}", "funnel.proxy.hopeless", "rungs"),
        (MINIMAL + "funnel: {proxy: {reduction: 2}}", "funnel.proxy.reduction", "rungs"),
        (
            MINIMAL + "resources: {smaller_batch: 8}",
            "resources.smaller_batch",
            "below funnel.proxy",
        ),
        (
            MINIMAL + "resources: {processes: 2, gpus: 1}",
            "resources.processes",
            "0 (on the CPU) or gpus (1)",
        ),
        (
            MINIMAL + "resources: {processes: 3}",
            "funnel.proxy.batch_size",
            "a multiple of resources.processes (3)",
        ),
        (
            MINIMAL + "resources: {processes: 2, gpus: 2, smaller_batch: 1}",
            "resources.smaller_batch",
            "a multiple of resources.processes (2)",
        ),
        (MINIMAL + "searcher: {tournament: 3}", "searcher.tournament", "ageing"),
        (MINIMAL + "searcher: {radius: 0.1}", "searcher.radius", "niches"),
        (MINIMAL + "searcher: {sigma: 1}", "searcher.sigma", "refine"),
        (MINIMAL + "searcher: {type: ppo}", "searcher.type", "evolution, random, policy or tuning"),
        (MINIMAL + "searcher: {named: [nobody]}", "searcher.named.0", "cse-autoloss-a"),
        (MINIMAL + "baseline: nobody", "baseline", "cse-autoloss-a"),
        (MINIMAL + "fixed: {cls: {type: stock}}", "fixed.cls", "searched already"),
        (MINIMAL + "store: sqlite:///x.db", "store", "no such field"),
        (MINIMAL.replace("space: box", "space: ball"), "branches.bbox.space", "box"),
        (
            MINIMAL.replace("space: box", "space: multi_cls"),
            "branches.bbox.space",
            "bbox takes box",
        ),
        (MINIMAL.replace("space: box", "space: {name: x}"), "branches.bbox.space", "search space"),
        (MINIMAL.replace("space: box", "space: box, alpha: 1"), "branches.bbox.alpha", "no such"),
        (MINIMAL.replace("digits/atss", "model.txt"), "detector", "*.py"),
        (MINIMAL.replace("first", '"two\\nlines"'), "name", "one line"),
        ("name: first", "detector", "must be given"),
    ],
)
def test_a_refusal_names_the_field_and_what_is_allowed(text: str, field: str, allowed: str) -> None:
    error = refused(text)
    assert error.field == field
    assert allowed in error.allowed
    assert str(error).startswith(f"job.yaml: {field}: ")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("name: [1", "line 1, column 9"),
        ("a: 1\nb: {", "line 2, column 5"),
        ("name: a\nname: b", "line 2, column 1"),
        ("a: &x [1]\nb: *x", "line 2, column 4"),
        ("a: !!python/object:os.system 1", "line 1, column 4"),
        ("[" * 40, "line 1, column 33"),
        ("--- 1\n--- 2", "line 2, column 1"),
    ],
)
def test_broken_yaml_gives_its_line(text: str, field: str) -> None:
    assert refused(text).field == field


@pytest.mark.parametrize("text", ["", "- 1", "just text", "a: \0", "x: 1" * 100_000])
def test_what_is_no_mapping_is_refused(text: str) -> None:
    refused(text)


def test_a_missing_file_is_a_spec_error(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="give the path of a job spec"):
        load_spec(tmp_path / "none.yaml")
    with pytest.raises(SpecError, match="give the path of a job spec"):
        load_spec(tmp_path)


def test_settings_that_do_nothing_are_read_from_a_store_all_the_same() -> None:
    """An earlier version may have taken them; the job has to stay readable."""
    stored = parse_spec(MINIMAL).to_json()
    stored["funnel"]["proxy"]["hopeless"] = 0.3
    assert JobSpec.from_json(stored).funnel.proxy.hopeless == 0.3


def test_a_budget_of_steps_decides_how_many_candidates_are_made() -> None:
    assert parse_spec(MINIMAL).candidates == 32
    assert parse_spec(MINIMAL + "limits: {steps: 9000}").candidates == 10 * 9000 / 300
    rung = "funnel: {proxy: {rungs: [40]}}\n"
    assert parse_spec(MINIMAL + rung + "limits: {steps: 9000}").candidates == 10 * 9000 / 40
    assert parse_spec(MINIMAL + "limits: {steps: 9000}\ncandidates: 5").candidates == 5


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse_spec(MINIMAL).window = 3  # type: ignore[misc]


def test_settings_of_a_filter_that_is_not_used_are_refused() -> None:
    idle = "\nfunnel: {simulate: null, verify: {rejection: {digits: 3}}}"
    convergence = idle.replace("rejection:", "method: convergence, rejection:")
    zero = MINIMAL.replace("binary_cls", "autoloss_zero_binary_cls").replace(
        "space: box", "space: autoloss_zero_box"
    )
    for text in (MINIMAL + idle, zero + convergence):
        error = refused(text)
        assert error.field == "funnel.verify.rejection"
        assert "set funnel.verify.method to rejection" in str(error)
    rejection = idle.replace("rejection:", "method: rejection, rejection:")
    for text in (zero + idle, MINIMAL + rejection):
        assert parse_spec(text).funnel.verify.rejection.digits == 3
