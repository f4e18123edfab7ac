"""What a finished trial leaves on disk: a row, and nothing in the home folder."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from losses import CATALOG, configs_dir
from search_server.store import CandidateRecord, Store
from workers import TrialSpec, load_detector, run_trial
from workers.data import digits, one_image_per_class


def size(folder: Path) -> int:
    """Bytes of all files under a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_finished_trial_leaves_at_most_100_kb(own_home: Path, tmp_path: Path) -> None:
    """With the longest curves there are: a hundred points of every loss that ATSS has."""
    data = digits()
    few = one_image_per_class(data.splits["search_train"], tmp_path / "data")
    loss, detector = CATALOG["cse-autoloss-b"], configs_dir() / "detectors" / "digits" / "atss.py"
    spec = TrialSpec(
        detector=load_detector(detector),
        definition=loss.to_json(),
        train=few,
        evaluate=few,
        seed=0,
        steps=100,
        batch_size=1,
        classes=data.classes,
        device="cpu",
    )
    folder = tmp_path / "store"
    folder.mkdir()
    url = str(folder / "store.db")
    with Store.open(url) as store:
        job = store.create_job("disk", {}, spec.detector, spec.classes)
        store.add_candidate(job, CandidateRecord(0, "baseline", (), loss.to_json(), loss.key))
    with closing(sqlite3.connect(url)) as database:
        database.execute("VACUUM")  # pages that the migrations left free would hide what is added
    run_trial(replace(spec, steps=1, seed=1))  # the images are decoded once for all trials on them
    before = size(folder) + size(own_home)

    with Store.open(url) as store:
        store.start_trial(job, 0, "proxy", 0, spec.key)
        result = run_trial(spec)
        store.finish_trial(job, 0, "proxy", 0, result)
        store.update_candidate(job, 0, state="done", fitness=result.fitness)

    assert result.status == "done", result.reason
    assert len(result.curves["step"]) == 100
    assert len(result.curves) >= 4
    left = size(folder) + size(own_home) - before
    assert 0 < left <= 100_000, left
