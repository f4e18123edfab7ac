"""`resources.precision`, `--precision` and `--compile-loss`, from the option to the config."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from losses import CATALOG  # isort: skip - before mmengine loads anything of mmdet

from mmengine.config import Config

from search_server.errors import ExportError, JobError
from search_server.export import export
from search_server.full_training import Training, full_config
from search_server.funnel.stages import TrialKey
from search_server.jobs import create_job, group_of, open_job, prepare_job
from search_server.spec import JobSpec
from search_server.store import Store

HOOK = {"type": "Bfloat16Layers"}


def spec(**resources: Any) -> JobSpec:
    return JobSpec.from_json(
        {
            "name": "halves",
            "detector": "digits/atss",
            "branches": {"cls": {"space": "binary_cls"}, "bbox": {"space": "box"}},
            "funnel": {"simulate": None, "proxy": {"steps": 5}},
            "resources": {"device": "cpu", **resources},
        }
    )


def test_trials_have_the_precision_of_the_spec_and_are_rivals_within_it_alone() -> None:
    plain, half = prepare_job(spec()), prepare_job(spec(precision="bfloat16"))
    loss = CATALOG["default"].to_json()
    key = TrialKey(1, "proxy", 0)
    assert (plain.trial(key, loss).precision, half.trial(key, loss).precision) == (
        "float32",
        "bfloat16",
    )
    assert "precision" not in plain.trial(key, loss).to_json()  # the keys of old stores stay
    assert plain.trial(key, loss).key != half.trial(key, loss).key
    assert group_of(plain) != group_of(half)


def test_a_full_training_has_the_hook_when_it_is_asked_for() -> None:
    asked = Training("digits/atss", CATALOG["default"], steps=3, precision="bfloat16")
    assert Training.from_json(asked.to_json()) == asked
    assert full_config(asked).custom_hooks == [HOOK]
    assert "workers.arithmetic" in full_config(asked).custom_imports.imports
    plain = full_config(Training("digits/atss", CATALOG["default"], steps=3))
    assert "custom_hooks" not in plain


def test_a_full_training_compiles_what_can_be_compiled() -> None:
    asked = Training("digits/atss", CATALOG["cse-autoloss-b"], steps=3, compile_loss=True)
    head = full_config(asked).model.bbox_head
    assert head.loss_cls.compile
    assert head.loss_bbox.compile
    with pytest.raises(JobError, match="no expression"):
        full_config(Training("digits/atss", CATALOG["default"], steps=3, compile_loss=True))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """With one job, in bfloat16, that has trained nothing."""
    with Store.open(str(tmp_path_factory.mktemp("precision") / "store.db")) as opened:
        create_job(opened, spec(precision="bfloat16"))
        yield opened


@pytest.mark.slow
def test_exports_train_in_float32_unless_asked(store: Store, tmp_path: Path) -> None:
    """Each is also built in a clean process, the standalone one without this project."""
    job = store.latest_job().id
    assert open_job(store, job).spec.resources.precision == "bfloat16"
    plain, half = tmp_path / "plain.py", tmp_path / "half.py"
    export(store, job, plain, "cse-autoloss-b", compile_loss=True)
    written = Config.fromfile(plain)
    assert "custom_hooks" not in written
    assert "the search trained in bfloat16, this trains in float32" in plain.read_text()
    assert written.model.bbox_head.loss_cls.compile
    export(store, job, half, "cse-autoloss-b", standalone=True, precision="bfloat16")
    text = half.read_text()
    assert "workers." not in text
    assert repr(HOOK["type"]) in text
    assert "trained in bfloat16" not in text
    assert "class Bfloat16Layers(Hook)" in half.with_name("half_loss.py").read_text()


def test_an_export_without_an_expression_cannot_be_compiled(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no expression"):
        export(store, store.latest_job().id, tmp_path / "x.py", "default", compile_loss=True)
    assert list(tmp_path.iterdir()) == []
