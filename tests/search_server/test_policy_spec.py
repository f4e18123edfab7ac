"""Job specs of policy searches: defaults, what follows, what is refused, what fits a detector."""

from pathlib import Path

import pytest

from losses import configs_dir
from search_server.errors import SpecError
from search_server.jobs import create_job, detector_text
from search_server.problem import problem_of
from search_server.spec import JobSpec, PolicySearcher, load_spec, parse_spec
from search_server.store import Store

BASE = "name: first\ndetector: digits/retinanet\n"
BRANCHES = BASE + "branches: {cls: {space: pap}}\nfunnel: {simulate: null}\n"
PAP = BRANCHES + "searcher: {type: policy}\n"
TREE = BASE + "branches: {cls: {space: binary_cls}, bbox: {space: box}}\n"


def test_the_defaults_are_the_papers() -> None:
    spec = parse_spec(PAP)
    assert spec.searcher == PolicySearcher(
        type="policy",
        rounds=40,
        samples=8,
        sigma=0.2,
        learning_rate=0.01,
        updates=100,
        warmup=30,
        clip=0.1,
    )
    assert (spec.candidates, spec.window) == (321, 8)
    parameters = problem_of(spec).parameters
    assert parameters is not None
    assert parameters.size == 41


def test_candidates_and_window_may_be_said_again() -> None:
    spec = parse_spec(PAP.replace("policy", "policy, rounds: 3, samples: 5") + "candidates: 16\n")
    assert (spec.candidates, spec.window) == (16, 5)
    assert JobSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("text", "field", "allowed"),
    [
        (BRANCHES, "branches.cls.space", "searcher `policy`"),
        (TREE + "searcher: {type: policy}", "branches.cls.space", "space pap"),
        (TREE + "searcher: {rounds: 3}", "searcher.rounds", "the searcher policy"),
        (BRANCHES + "searcher: {type: policy, population: 3}", "searcher.population", "evolution"),
        (BRANCHES + "searcher: {type: policy, named: []}", "searcher.named", "evolution"),
        (BRANCHES + "searcher: {type: policy, rouds: 3}", "searcher.rouds", "mean rounds?"),
        (BRANCHES + "searcher: {type: policy, samples: 1}", "searcher.samples", "2"),
        (BRANCHES + "searcher: {type: policy, warmup: 101}", "searcher", "updates (100)"),
        (BRANCHES + "searcher: {type: policy, clip: 1}", "searcher.clip", "less than 1"),
        (PAP + "candidates: 320", "candidates", "must be 321"),
        (PAP + "window: 16", "window", "must be 8"),
        (PAP + "mode: alternate", "mode", "must be joint"),
        (PAP + "iou_centerness: true", "iou_centerness", "must be false"),
        (PAP + "fixed: {bbox: {type: stock, loss: {type: GIoULoss}}}", "fixed", "both branches"),
        (PAP.replace("null", "{keep: 2}"), "funnel.simulate", "must be null"),
        (PAP.replace("null", "{}"), "funnel.simulate", "must be null"),
        (PAP.replace("null", "null, verify: {max_draws: 3}"), "funnel.verify", "left out"),
        (PAP.replace("pap}", "pap, alpha: 0.5}"), "branches.cls.alpha", "space of expressions"),
        (PAP.replace("pap}", "pap, functions: [H3]}"), "branches.cls.functions", "H2, I2"),
        (PAP.replace("pap}", "pap, functions: [H1, H1]}"), "branches.cls.functions", "twice"),
        (PAP.replace("pap}", "pap, points: 17}"), "branches.cls.points", "16"),
        (
            PAP.replace("pap}", "pap, functions: [], gradient_scale: false}"),
            "branches",
            "nothing to search",
        ),
        (PAP.replace("pap}", "pap}, bbox: {space: box}"), "branches", "leave bbox out"),
        (TREE.replace("box}", "pap}"), "branches.bbox.space", "as cls, alone"),
        (TREE.replace("box}", "box}, rpn: {space: pap}"), "branches", "cls of space pap"),
    ],
)
def test_a_refusal_names_the_field_and_what_is_allowed(text: str, field: str, allowed: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(text)
    assert caught.value.field == field
    assert allowed in caught.value.allowed
    assert "more problem" not in caught.value.allowed


@pytest.mark.parametrize(
    ("text", "field", "allowed"),
    [
        (PAP.replace("retinanet", "fcos"), "branches.cls.space", ""),
        (PAP.replace("retinanet", "cascade_rcnn"), "branches.cls.space", ""),
        (PAP.replace("pap}", "pap}, rpn: {space: pap}"), "branches.rpn.space", "leave rpn out"),
    ],
)
def test_a_detector_that_cannot_rank_is_refused(
    text: str, field: str, allowed: str, tmp_path: Path, own_home: Path
) -> None:
    with Store.open(f"sqlite:///{tmp_path / 'store.db'}") as store:
        with pytest.raises(SpecError) as caught:
            create_job(store, parse_spec(text))
        assert caught.value.field == field
        assert allowed in caught.value.allowed
        assert store.jobs() == []


@pytest.mark.parametrize("detector", ["retinanet", "atss", "faster_rcnn", "mask_rcnn"])
def test_a_detector_that_can_rank_is_taken(detector: str, tmp_path: Path, own_home: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path / 'store.db'}") as store:
        assert create_job(store, parse_spec(PAP.replace("retinanet", detector))) == "first-1"


@pytest.mark.parametrize(
    ("name", "size", "least"),
    [("digits_pap", 41, 10), ("pap_retinanet", 41, 40), ("pap_faster_rcnn", 82, 40)],
)
def test_the_packaged_searches(name: str, size: int, least: int) -> None:
    spec = load_spec(configs_dir() / "search" / f"{name}.yaml")
    parameters = problem_of(spec).parameters
    assert parameters is not None
    assert parameters.size == size
    assert isinstance(spec.searcher, PolicySearcher)
    assert spec.searcher.rounds >= least
    assert "model" in detector_text(spec)
