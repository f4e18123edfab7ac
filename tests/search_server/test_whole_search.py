"""A search in real processes, from its spec to a published row: seconds on a tiny data set."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_detectors as tiny

from search_server.cli import run as command
from search_server.controller import run_job
from search_server.executors import InlineExecutor
from search_server.funnel.outcomes import TrialKey
from search_server.jobs import create_job, open_job
from search_server.spec import load_spec
from search_server.store import Store
from workers import TrialResult, run_trial

SPEC: dict[str, Any] = {
    "name": "whole",
    "detector": "tiny.py",
    "data": {
        name: {"annotations": f"{folder}.json", "images": folder}
        for name, folder in (
            ("search_train", "train"),
            ("search_val", "val"),
            ("confirm", "later"),
            ("test", "last"),
        )
    },
    "branches": {"cls": {"space": "binary_cls"}, "bbox": {"space": "box"}},
    "searcher": {
        "population": 4,
        "named": [
            "cse-autoloss-b",
            {"cls": "focal-expression", "bbox": "iou-expression"},
            {"cls": "qfl-giou", "bbox": "iou-expression"},
            {"cls": "vfl-giou", "bbox": "giou-expression"},
        ],
    },
    "funnel": {
        "simulate": None,
        "proxy": {"steps": 20, "batch_size": 4, "rungs": [8, 14], "reduction": 2},
        "confirm": {"top": 1, "seeds": 2, "rivals": ["focal-ciou"]},
    },
    "candidates": 4,
    "window": 1,
    "calibrate": False,
    "resources": {"device": "cpu"},
}


class Noting(InlineExecutor):
    """One slot; notes how its trials come back."""

    def __init__(self) -> None:
        super().__init__(slots=1)
        self.states: list[str] = []

    def wait(self, timeout: float) -> list[tuple[TrialKey, TrialResult]]:
        ended = super().wait(timeout)
        self.states += [result.status for _, result in ended]
        return ended


@pytest.mark.slow
def test_from_the_spec_to_a_published_row(
    tmp_path: Path, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.py").write_text(tiny.DETECTORS["atss"])
    for seed, name in enumerate(("train", "val", "later", "last")):
        tiny.write_split(tmp_path / name, 10, seed)
    (tmp_path / "whole.yaml").write_text(json.dumps(SPEC))
    url = f"sqlite:///{tmp_path / 'store.db'}"
    with Store.open(url) as store:
        job = create_job(store, load_spec(tmp_path / "whole.yaml"))
        with Noting() as executor:
            assert run_job(store, job, executor) == "done", store.job(job).reason
        assert "paused" in executor.states
        trials = store.trials(job)
        ran_through = [t for t in trials if t.stage == "proxy" and t.state == "done"]
        assert all(list(t.rungs) == [8, 14] for t in ran_through)
        seeds_before = {trial.seed for trial in trials}
        continued = max(ran_through, key=lambda t: t.candidate)
        assert continued.candidate > 0  # the baseline was better than nothing: others had to wait
        spec = open_job(store, job).trial(
            TrialKey(continued.candidate, "proxy", 0),
            store.candidate(job, continued.candidate).definition,
        )
    assert not list((own_home / "checkpoints").glob(f"{job}-*"))
    whole = run_trial(spec)  # never paused
    assert whole.fitness == pytest.approx(continued.fitness, abs=1e-6)
    assert whole.rungs == pytest.approx(dict(continued.rungs), abs=1e-6)

    arguments = ["publish", job, "--store", url, "--address", "none", "--slots", "1", "--json"]
    assert command([*arguments, "--seeds", "2"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["missing"], data["lost"], len(data["seeds"])) == (0, 0, 2)
    assert not set(data["seeds"]) & seeds_before  # `test` is read with seeds that nothing has seen
    assert [each["name"] for each in data["against"]] == ["default", "focal-ciou"]
    assert all(each["difference"]["count"] == 2 for each in data["against"])
    assert command(["leaderboard", job, "--store", url]) == 0
