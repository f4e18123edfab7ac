"""A job with trials that hang, diverge, die and are broken, in real processes, comes to its end."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from search_server.controller import run_job
from search_server.executors import InlineExecutor
from search_server.funnel.stages import TrialKey
from search_server.jobs import create_job
from search_server.spec import parse_spec
from search_server.store import Store
from workers import TrialSpec, TrialWorker
from workers.data import digits, one_image_per_class
from workers.modules import MODULES

LIMIT = 30.0  # seconds
SLEEPS, DIVERGES, DIES, BROKEN = 1, 2, 3, 4

SPEC: dict[str, Any] = {
    "name": "bad trials",
    "detector": "digits/atss",
    "branches": {"cls": {"space": "binary_cls"}, "bbox": {"space": "box"}},
    "searcher": {
        "population": 6,
        "named": [
            "cse-autoloss-b",
            *({"cls": cls, "bbox": "giou-expression"} for cls in ("qfl-giou", "vfl-giou")),
            *(
                {"cls": "focal-expression", "bbox": bbox}
                for bbox in ("giou-expression", "iou-expression")
            ),
            {"cls": "vfl-giou", "bbox": "iou-expression"},
        ],
    },
    "funnel": {"simulate": None, "proxy": {"steps": 3, "batch_size": 2}},
    "candidates": 6,
    "window": 6,
    "resources": {"device": "cpu"},
    "limits": {"trial_seconds": LIMIT},
}


class Sabotage(InlineExecutor):
    """Real processes; four candidates get a detector of their own, which does odd things."""

    def __init__(self, folder: Path) -> None:
        super().__init__(slots=2)
        sources = {
            SLEEPS: "import time\ntime.sleep(10_000)\n",
            DIES: "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
        }
        self.lines = {
            DIVERGES: "optim_wrapper['optimizer']['lr'] = 1e30\n",
            BROKEN: "model['bbox_head']['type'] = 'NoSuchHead'\n",
        }
        for index, source in sources.items():
            (folder / f"odd_{index}.py").write_text(source)
            self.lines[index] = f"custom_imports = dict(imports=['odd_{index}'])\n"

    def submit(self, key: TrialKey, spec: TrialSpec) -> None:
        line = self.lines.get(key.candidate, "")
        super().submit(key, replace(spec, detector=f"{spec.detector}\n{line}"))


@pytest.mark.slow
def test_every_trial_ends_in_its_status_and_the_job_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MODULES, str(tmp_path))
    with TrialWorker() as worker:  # what processes are forked from starts: it would count
        worker.warm_up(device="cpu")
    few = one_image_per_class(digits().splits["search_train"], tmp_path)
    split = {"annotations": few.annotations, "images": few.images}
    data = {name: dict(split) for name in ("search_train", "search_val")}
    spec = parse_spec(yaml.safe_dump({**SPEC, "data": data}))
    with Store.open(f"sqlite:///{tmp_path / 'store.db'}") as store:
        job = create_job(store, spec)
        with Sabotage(tmp_path) as executor:
            assert run_job(store, job, executor) == "done"
        trials = {each.candidate: each for each in store.trials(job)}
        candidates = {each.index: each for each in store.candidates(job)}
    states = {index: trial.state for index, trial in trials.items()}
    odd = {SLEEPS: "timeout", DIVERGES: "diverged", DIES: "failed", BROKEN: "failed"}
    assert states == {0: "done", **odd, 5: "done", 6: "done"}
    assert trials[SLEEPS].reason == f"stopped at the time limit of {LIMIT:g} s"
    assert LIMIT <= trials[SLEEPS].seconds["total"] < LIMIT + 5
    assert "not finite" in trials[DIVERGES].reason
    assert "killed by SIGKILL" in trials[DIES].reason
    assert "twice" in trials[DIES].reason
    assert "NoSuchHead" in trials[BROKEN].reason
    ends = {index: (each.state, each.fitness) for index, each in candidates.items()}
    assert ends[DIVERGES] == ("done", 0.0)
    assert all(ends[index] == ("failed", None) for index in (SLEEPS, DIES, BROKEN))
    assert all(ends[index] == ("done", trials[index].fitness) for index in (0, 5, 6))
