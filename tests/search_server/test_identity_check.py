"""The check over a store finds planted pairs, and nothing in what a search leaves behind."""

import json
from pathlib import Path
from typing import Any

import fake_search as fake
import pytest
from typer.testing import CliRunner

from losses import CATALOG, LossDefinition, LossesError, configs_dir
from search_server.candidates import merged_with
from search_server.cli.app import app
from search_server.fingerprints import Fingerprint
from search_server.identity import fingerprint
from search_server.identity_check import check_store
from search_server.identity_measure import measured
from search_server.store import CandidateRecord, Store
from workers import TrialResult, load_detector

FOCAL = CATALOG["focal-expression"].to_json()["cls"]


def cls(expression: str, **fields: Any) -> dict[str, Any]:
    """A definition of a classification loss."""
    return {"name": "x", "cls": {**FOCAL, "expression": expression, **fields}}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


class Planted:
    """A store with a job of the small search, into which candidates and trials are written."""

    def __init__(self, store: Store, job: str) -> None:
        self.store, self.job, self._next = store, job, 0

    def add(self, definition: dict[str, Any], job: str | None = None, **more: Any) -> int:
        index = len(self.store.candidates(job or self.job))
        whole = LossDefinition.from_json(definition)
        made = CandidateRecord(index, "random", (), whole.to_json(), key=f"{whole.key} {index}")
        self.store.add_candidate(job or self.job, made, **more)
        return index

    def train(self, index: int, job: str | None = None, seed: int = 0, key: str | None = None):
        """A trial, done; with a key, as the controller does it."""
        place = (job or self.job, index, "proxy", seed)
        if self.store.start_trial(*place, "k", key).verdict == "train":
            self.store.finish_trial(*place, TrialResult("done", "", 0.5, seed, 5))


@pytest.fixture
def planted(url: str) -> Any:
    job = fake.new_job(url)
    with Store.open(url) as store:
        yield Planted(store, job)


def test_pairs_that_were_trained_twice_are_found(url: str, planted: Planted) -> None:
    other = fake.new_job(url, name="other")
    apart = fake.new_job(url, name="apart", resources={"threads": 2})
    text = FOCAL["expression"]
    indices = [
        planted.add(given)
        for given in (
            {"name": "x"},  # the detector's own is the focal loss
            cls(text),
            cls(f"Add({text},1)"),
            cls(f"Mul(2,{text})"),
            cls(text, alpha=0.5),
            cls(f"Sub({text},Mul(0.0001,X))"),
        )
    ]
    for index in indices:
        planted.train(index)
    for job in (other, apart):
        planted.train(planted.add(cls(text), job), job)
    planted.train(planted.add(cls(f"Add({text},5)")), seed=9)  # nothing else has this seed
    report = check_store(planted.store)
    job = planted.job
    assert {(pair.one, pair.other) for pair in report.trained_twice} == {
        (f"{job}:0", f"{job}:1"),
        (f"{job}:0", f"{job}:2"),
        (f"{job}:1", f"{job}:2"),
        *((f"{job}:{index}", f"{other}:0") for index in (0, 1, 2)),
    }
    assert report.same_direction == 4  # those four, and their double
    assert report.candidates == 9
    assert not report.ok
    assert {pair.where for pair in report.trained_twice} == {"proxy seed 0"}


def test_merges_that_are_none_are_found(planted: Planted) -> None:
    text = FOCAL["expression"]
    planted.add(cls(text))
    wrong = json.dumps(cls(f"Add({text},Mul(0.001,Sq(X)))".replace("Sq(X)", "Mul(X,X)")))
    right = json.dumps(cls(f"Add({text},2)"))
    heavy = json.dumps(cls(text, scale=1.5))
    traced = [("random", given, merged_with(0)) for given in (right, wrong, heavy)]
    planted.add(cls("Softplus(X)"), traced=[*traced, ("random", "Neg(X)", "known")])
    planted.train(0, key="a" * 64)
    planted.train(1, key="a" * 64)  # takes the result of another loss
    report = check_store(planted.store)
    assert report.merges == 4
    assert report.trained_twice == ()
    found = {(pair.one, pair.other) for pair in report.merged_but_different}
    job = planted.job
    assert found == {(f"{job}:1", f"{job}:0"), (f"{job}:0", wrong), (f"{job}:0", heavy)}


def test_a_search_leaves_no_pair(url: str, planted: Planted) -> None:
    jobs = [fake.new_job(url, candidates=9, seed=seed) for seed in (11, 12)]
    for job in jobs:
        fake.run(url, job)
    result = CliRunner().invoke(app, ["db", "check-identity", "--store", url, "--json"])
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)["stores"]
    assert found["trained_twice"] == found["merged_but_different"] == []
    assert found["candidates"] == 20
    assert found["merges"] >= 2  # the baselines, at least

    text = FOCAL["expression"]
    for number in range(2):
        planted.train(planted.add(cls(f"Add({text},{number})")))
    shown = CliRunner().invoke(app, ["db", "check-identity", "--store", url])
    assert shown.exit_code == 1
    assert f"{planted.job}:0 and {planted.job}:1, proxy seed 0" in shown.stdout


@pytest.mark.parametrize("name", ["atss", "faster_rcnn", "retinanet"])
def test_both_ways_of_measuring_agree_on_the_named_losses(name: str) -> None:
    """Which of them are one, and how the sizes of their gradients compare."""
    detector = load_detector(configs_dir() / "detectors" / "digits" / f"{name}.py")
    prints: dict[str, tuple[Fingerprint, Fingerprint]] = {}
    for each, definition in CATALOG.items():
        try:
            second = measured(definition, detector)
        except LossesError:  # a loss of other detectors
            continue
        prints[each] = fingerprint(definition, detector), second
    assert len(prints) >= 8
    for one, (a, b) in prints.items():
        for other, (c, d) in prints.items():
            assert a.same(c) == b.same(d), (one, other)
