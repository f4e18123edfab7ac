"""A search in the spaces of AutoLoss-Zero: its spec, its losses in a detector, its counts."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import fake_search as fake
import pytest
import yaml

from losses import CATALOG, LossDefinition, apply_loss, configs_dir  # isort: skip - before mmdet

import torch
from mmdet.registry import MODELS

from primitives import SPACES
from search_server.candidates import ACCEPTED, EQUIVALENT, Draws, find_candidate
from search_server.controller import run_job
from search_server.errors import SpecError
from search_server.executors import InlineExecutor
from search_server.export.check import check
from search_server.export.literal import assignments
from search_server.export.standalone import module_source
from search_server.funnel.equivalence import equivalent
from search_server.funnel.filters import Filters
from search_server.funnel.rejection import NOT_IMPROVED
from search_server.jobs import create_job, prepare_job
from search_server.searchers import Proposal, generator
from search_server.spec import JobSpec, Verify, load_spec, parse_spec
from search_server.store import Store
from workers import load_detector
from workers.data import digits, one_image_per_class

MULTI, BINARY, BOX = (f"autoloss_zero_{role}" for role in ("multi_cls", "binary_cls", "box"))
DEFINITIONS = {
    "atss": {
        "name": "zero",
        "cls": {
            "type": "expression",
            "space": BINARY,
            "expression": "Square(Add(PY,Neg(Sig(X))))",
            "alpha": None,
        },
        "bbox": {"type": "expression", "space": BOX, "expression": "Neg(SLog(Mul(I,Inv(U))))"},
    },
    "faster_rcnn": {
        "name": "zero",
        "cls": {
            "type": "expression",
            "space": MULTI,
            "expression": "Neg(Dot(Y,SLog(Add(Softmax(X),Mul(0,MeanClasses(X))))))",
        },
        "bbox": {"type": "expression", "space": BOX, "expression": "Neg(SSqrt(Mul(I,Inv(U))))"},
    },
}
SEARCH: dict[str, Any] = {
    "branches": None,
    "search_space": "autoloss_zero",
    "searcher": {
        "population": 3,
        "parents": 2,
        "random": 0.0,  # after the first generation: random draws are the slow ones
        "depth": {"min": 2, "max": 4},
    },
    "funnel": {
        "verify": {"max_draws": 20_000},
        "simulate": {"steps": 3, "keep": 2},
        "proxy": {"steps": 5, "seeds": [0]},
    },
    "candidates": 9,
    "window": 3,
}


def text(**fields: Any) -> str:
    return yaml.safe_dump({"name": "zero", "search_space": "autoloss_zero", **fields})


# --- the spec -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("detector", "cls"), [("atss", BINARY), ("faster_rcnn", MULTI)])
def test_the_key_alone_searches_both_branches_as_the_head_needs(detector: str, cls: str) -> None:
    spec = parse_spec(text(detector=f"digits/{detector}"))
    spaces = {branch: given.search_space.name for branch, given in spec.searched.items()}
    assert spaces == {"cls": cls, "bbox": BOX}
    stored = spec.to_json()
    assert JobSpec.from_json(stored) == spec
    stored["detector"] = "/gone/detector.py"  # it is not read again: what is stored is spelt out
    assert JobSpec.from_json(stored).searched == spec.searched
    prepare_job(spec)


def test_a_relative_detector_is_meant_from_the_specs_folder(tmp_path: Path) -> None:
    config = load_detector(configs_dir() / "detectors" / "digits" / "faster_rcnn.py")
    (tmp_path / "mine.py").write_text(config)
    (tmp_path / "spec.yaml").write_text(text(detector="mine.py"))
    spec = load_spec(tmp_path / "spec.yaml")
    assert spec.searched["cls"].space == MULTI
    assert spec.detector == str(tmp_path / "mine.py")


def test_branches_may_be_given_with_it() -> None:
    spec = parse_spec(
        text(detector="digits/atss", branches={"bbox": {"space": BOX, "loss_weight": 2.0}})
    )
    assert list(spec.searched) == ["bbox"]
    assert spec.searched["bbox"].loss_weight == 2.0


@pytest.mark.parametrize(
    ("fields", "field", "allowed"),
    [
        ({"detector": "digits/none"}, "detector", "no such file"),
        ({"detector": "no/such.py"}, "detector", "no such file"),
        ({"detector": 3}, "detector", "string"),
        ({"detector": "digits/atss", "search_space": "zero"}, "search_space", "autoloss_zero"),
        (
            {"detector": "digits/atss", "branches": {"bbox": {"space": "box"}}},
            "branches.bbox.space",
            BOX,
        ),
        (
            {"detector": "digits/atss", "branches": {"cls": {"space": BOX}}},
            "branches.cls.space",
            "cls takes",
        ),
        (
            {"detector": "digits/atss", "funnel": {"verify": {"method": "both"}}},
            "funnel.verify.method",
            "rejection",
        ),
        (
            {"detector": "digits/atss", "funnel": {"verify": {"rejection": {"threshold": 2}}}},
            "funnel.verify.rejection.threshold",
            "less than or equal to 1",
        ),
    ],
)
def test_what_does_not_fit_is_told(fields: dict[str, Any], field: str, allowed: str) -> None:
    with pytest.raises(SpecError, match=allowed) as told:
        parse_spec(text(**fields))
    assert told.value.field == field


def test_a_space_of_the_wrong_head_is_refused() -> None:
    spec = parse_spec(
        yaml.safe_dump(
            {
                "name": "zero",
                "detector": "digits/atss",
                "branches": {"cls": {"space": MULTI}},
                "funnel": {"simulate": None},
            }
        )
    )
    with pytest.raises(SpecError, match="takes binary_cls"):
        prepare_job(spec)


# --- its losses in a detector -------------------------------------------------------------------


@pytest.mark.parametrize("detector", DEFINITIONS)
def test_a_loss_of_these_spaces_comes_back_from_json(detector: str) -> None:
    definition = LossDefinition.from_json(DEFINITIONS[detector])
    again = LossDefinition.from_json(definition.to_json())
    assert again == definition
    assert again.key == definition.key
    for branch, expression in again.expressions.items():
        assert expression.space == SPACES[DEFINITIONS[detector][branch]["space"]]  # type: ignore[index]


@pytest.mark.parametrize("detector", DEFINITIONS)
def test_the_detector_trains_with_the_expressions_of_the_definition(detector: str) -> None:
    definition = LossDefinition.from_json(DEFINITIONS[detector])
    config = apply_loss(configs_dir() / "detectors" / "digits" / f"{detector}.py", definition)
    config = apply_loss(config, definition)  # its own output too
    owner = config.model.get("roi_head", config.model)
    losses = {name: MODELS.build(owner.bbox_head[f"loss_{name}"]) for name in ("cls", "bbox")}
    assert {name: loss.expression for name, loss in losses.items()} == definition.expressions
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    value = losses["bbox"](boxes, boxes + torch.tensor([0.0, 0.0, 0.0, 4.0]))
    weight = 1.0 if detector == "atss" else 10.0
    expected = {"atss": torch.log(torch.tensor(2.0)), "faster_rcnn": -(torch.tensor(0.5) ** 0.5)}
    assert value.item() == pytest.approx(weight * expected[detector].item(), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("standalone", [False, True])
@pytest.mark.parametrize("detector", DEFINITIONS)
def test_an_exported_config_builds_in_a_clean_process(
    tmp_path: Path, detector: str, standalone: bool
) -> None:
    definition = LossDefinition.from_json(DEFINITIONS[detector])
    path = configs_dir() / "detectors" / "digits" / f"{detector}.py"
    config = apply_loss(path, definition).to_dict()
    if standalone:
        (tmp_path / "zero_loss.py").write_text(module_source(["zero"]))
        config["custom_imports"] = {"imports": ["zero_loss"], "allow_failed_imports": False}
    target = tmp_path / "config.py"
    target.write_text(assignments(config))
    check(target, config, standalone=standalone)


# --- the search ---------------------------------------------------------------------------------


def test_named_losses_that_the_spaces_lack_are_left_out() -> None:
    named = [{"cls": "focal-expression", "bbox": "giou-expression"}, "cse-autoloss-b"]
    fields = {**SEARCH, "searcher": {**SEARCH["searcher"], "named": named}}
    job = prepare_job(fake.spec(**fields))
    rng = generator(1, 1)
    proposals = list(job.searcher.ask(1, rng))
    assert proposals[0].origin == "named"
    draws = Draws()
    found = find_candidate(
        1, proposals, job.problem, rng, set(), draws, 50_000, "simulate", lambda: False
    )
    assert found.origin == "random"
    assert not any(origin == "named" for origin, _ in draws.counts)
    # in the spaces of CSE-AutoLoss nothing has changed
    usual = prepare_job(
        fake.spec(**{**fields, "search_space": None, "branches": fake.SPEC["branches"]})
    )
    rng = generator(1, 1)
    proposals = list(usual.searcher.ask(1, rng))
    found = find_candidate(
        1, proposals, usual.problem, rng, set(), Draws(), 400, "simulate", lambda: False
    )
    assert found.origin == "named"


def test_an_equivalent_of_an_earlier_candidate_is_drawn_again() -> None:
    job = prepare_job(fake.spec(**SEARCH))
    start = LossDefinition.from_json(DEFINITIONS["atss"])
    texts = iter(["Add(1,Neg(Mul(Inv(U),I)))", "Neg(Mul(I,Inv(U)))", "Neg(SLog(Mul(I,Inv(E))))"])
    known = start.with_branch("bbox", CATALOG["default"].bbox)
    first = job.problem.filled(known, {"bbox": _parsed("Neg(Mul(I,Inv(U)))")}, "one")
    proposal = Proposal("mutation", (1,), known, {"bbox": lambda rng: _parsed(next(texts))})
    draws = Draws(keep=3)
    found = find_candidate(
        2, [proposal], job.problem, generator(0, 2), {first.key}, draws, 10, "simulate",
        lambda: False, Filters(Verify()),
    )  # fmt: skip
    assert found.definition["bbox"]["expression"] == "Neg(SLog(Mul(I,Inv(E))))"
    assert draws.counts == {
        ("mutation", EQUIVALENT): 1,
        ("mutation", "known"): 1,
        ("mutation", ACCEPTED): 1,
    }


def _parsed(expression: str) -> Any:
    from primitives import parse

    return parse(expression, BOX)


def counted(url: str, job: str) -> Counter[str]:
    with Store.open(url) as store:
        counts: Counter[str] = Counter()
        for (_, outcome), count in store.counts(job).items():
            counts[outcome] += count
        return counts


def test_both_filters_count_and_an_interrupted_search_goes_on_the_same(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path / name}.db" for name in ("whole", "stopped")]
    jobs = [fake.new_job(url, **SEARCH) for url in urls]
    assert fake.run(urls[0], jobs[0]) == "done"
    for limit in (4, 7):
        stop = threading.Event()

        def watch(progress: Any, limit: int = limit, stop: threading.Event = stop) -> None:
            if progress.candidates >= limit:
                stop.set()

        assert fake.run(urls[1], jobs[1], stop=stop, observer=watch) == "interrupted"
    assert fake.run(urls[1], jobs[1]) == "done"
    whole, stopped = (fake.rows(url) for url in urls)
    assert whole["candidates"] == stopped["candidates"]
    assert whole["funnel_counts"] == stopped["funnel_counts"]

    counts = counted(urls[0], jobs[0])
    assert counts[NOT_IMPROVED] > 20
    assert counts[EQUIVALENT] >= 1
    assert counts[ACCEPTED] == SEARCH["candidates"]
    keys = [row["key"] for row in whole["candidates"]]
    for place, key in enumerate(keys):
        assert not equivalent(key, keys[:place], 2)
    sources = [row["definition"]["bbox"] for row in whole["candidates"][1:]]
    assert {branch["space"]["name"] for branch in sources} == {BOX}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_small_real_search_goes_through_both_filters(tmp_path: Path) -> None:
    few = one_image_per_class(digits().splits["search_train"], tmp_path)
    split = {"annotations": few.annotations, "images": few.images}
    fields = {
        **SEARCH,
        "data": {"search_train": split, "search_val": dict(split)},
        # so small a space that equivalents turn up, and draws that no result steers
        "branches": {"bbox": {"space": BOX}},
        "searcher": {"type": "random", "population": 3, "depth": {"min": 3, "max": 3}},
        "funnel": {"simulate": None, "proxy": {"steps": 2, "batch_size": 2}},
        "candidates": 5,
        "resources": {"device": "cpu"},
    }
    url = f"sqlite:///{tmp_path / 'real.db'}"
    with Store.open(url) as store, InlineExecutor(1) as executor:
        job = create_job(store, fake.spec(**fields))
        assert run_job(store, job, executor) == "done"
        trials = store.trials(job)
        assert len(trials) == 6
        assert {trial.state for trial in trials} <= {"done", "diverged"}
        assert sum(trial.state == "done" for trial in trials) >= 3
    counts = counted(url, job)
    assert counts[NOT_IMPROVED] > 0
    assert counts[EQUIVALENT] > 0


def test_the_packaged_spec_is_one() -> None:
    spec = load_spec(configs_dir() / "search" / "digits_autoloss_zero.yaml")
    assert spec.searched["cls"].space == BINARY
    assert spec.funnel.verify == Verify(max_draws=100_000)  # the file shows the defaults
