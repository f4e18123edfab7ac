"""Every spec that is shipped for the digits makes a job: its losses fit the detector's head."""

import json
import shutil
from pathlib import Path

import pytest

from losses import CATALOG, configs_dir
from search_server.jobs import create_job
from search_server.spec import load_spec
from search_server.store import Store

SPECS = sorted(
    [*(configs_dir() / "search").glob("d*.yaml"), *(configs_dir() / "evidence").glob("*.yaml")]
)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_job_can_be_made_of_it(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "specs"
    shutil.copytree(path.parent, folder)
    losses = folder / "losses"
    if path.parent.name == "evidence":  # what tunings find, and the driver of the evidence writes
        losses.mkdir(exist_ok=True)
        for number, kind in enumerate(("tuned", "tuned_long")):
            name = ("ce-giou", "ce-iou") if "faster" in path.stem else ("focal-giou", "vfl-giou")
            detector = path.stem.rpartition("_")[0]
            found = {
                **CATALOG[name[number]].to_json(),
                "name": f"tuned, {kind}",
                "learning_rate_scale": 2,
            }
            (losses / f"{detector}_{kind}.json").write_text(json.dumps(found))
    spec = load_spec(folder / path.name)
    with Store.open(f"sqlite:///{tmp_path / 'store.db'}") as store:
        job = create_job(store, spec, folder / path.name)
        assert store.job(job).state == "created"
