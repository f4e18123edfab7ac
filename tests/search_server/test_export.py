"""Exports: no text becomes code, what cannot be exported says why, and the AP comes out again."""

import ast
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from losses import CATALOG  # isort: skip - before mmengine loads anything of mmdet

from mmengine.config import Config

from search_server.candidates import baseline_record
from search_server.errors import ExportError
from search_server.export import export
from search_server.export.check import check
from search_server.export.choice import choose
from search_server.export.exporter import exported_config, render
from search_server.export.header import Evidence
from search_server.export.literal import assignments
from search_server.funnel.stages import TrialKey
from search_server.jobs import create_job, open_job
from search_server.spec import JobSpec
from search_server.store import CandidateRecord, JobRecord, Store
from workers import Split, TrialSpec, run_trial
from workers.data import digits, one_image_per_class

FRAGMENTS = (
    "\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\0", "\\", "'", '"',
    "'''", '"""', "{{", "}}", "{{ fileDirname }}", "{{$HOME:x}}", "{{'$HOME:x'}}",
    "{{ _base_.model }}", "#", "import os", "\nimport os\n", "');raise SystemExit#", "$", "%s",
    "{0}", "\ud800", "é", "\u202e", "\\x0a", "\\N{DIGIT ONE}",
)  # fmt: skip
NASTY = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=6)), max_size=8).map(
    "".join
)
COMMON = settings(deadline=None, suppress_health_check=list(HealthCheck))


def facts(name: str, text: str) -> Evidence:
    job = JobRecord(
        "job-1",
        name,
        "done",
        "",
        {"detector": text},
        "",
        ("a",),
        "",
        datetime(2026, 1, 1, tzinfo=UTC),
    )
    definition = {"name": "n" + name, "cls": None, "bbox": None, "iou_centerness": False}
    row = CandidateRecord(1, "random", (), definition, "k", state="done", fitness=0.5, reason=text)
    return Evidence(job, row, {1: 0.5, 2: 0.4}, {1: 0.3, 2: 0.3}, {"torch": text}, False)


def trial(name: str, text: str) -> TrialSpec:
    return TrialSpec(
        detector="",
        definition={"name": "n" + name, "cls": None, "bbox": None, "iou_centerness": False},
        train=Split(text, name),
        evaluate=Split(name, text),
        seed=1,
        steps=2,
        batch_size=1,
        classes=("a" + text,),
    )


@settings(COMMON, max_examples=600)
@given(name=NASTY, text=NASTY, key=NASTY, file=NASTY)
def test_no_text_becomes_code(tmp_path: Path, name: str, text: str, key: str, file: str) -> None:
    config = {
        "custom_imports": {"imports": [], "allow_failed_imports": True},
        "model": {"type": text, "inner": [{key: name, "b": (text, 1.5, None)}]},
        "classes": (name, text),
    }
    path = Path(file.replace("/", "_").replace("\0", "_") + ".py")
    (written,) = render(config, facts(name, text), trial(name, text), path, None)

    tree = ast.parse(written)
    assert all(isinstance(node, ast.Assign) for node in tree.body)
    assert [node.targets[0].id for node in tree.body] == list(config)  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            assert isinstance(node.func, ast.Name)
            assert node.func.id == "dict"
        assert not isinstance(node, ast.Attribute | ast.Import | ast.JoinedStr)
    comment = [line for line in written.split("\n") if line.startswith("#")]
    assert written.startswith("\n".join(comment))

    target = tmp_path / "written.py"
    target.write_text(written, encoding="utf-8")
    read = Config.fromfile(target).to_dict()
    if key.isascii() or not key.isidentifier():  # Python folds other names; the check finds that
        assert read == config


@settings(COMMON, max_examples=300)
@given(text=NASTY)
def test_comment_lines_of_a_module_stay_comments(text: str) -> None:
    from search_server.export.literal import escaped

    line = escaped(text)
    assert len(f"# {line}".splitlines()) == 1
    assert "{{" not in line
    line.encode()


@pytest.mark.parametrize("key", ["import", "_base_", "a b", "a=1\nb", "é", ""])
def test_a_key_that_is_no_variable_is_refused(key: str) -> None:
    with pytest.raises(ExportError, match="cannot be written"):
        assignments({key: 1})


def test_a_value_that_is_no_data_is_refused() -> None:
    with pytest.raises(ExportError, match=r"model\.hook"):
        assignments({"model": {"hook": object()}})


def row(index: int, state: str, fitness: float | None, loss: str = "default") -> CandidateRecord:
    definition = CATALOG[loss]
    return CandidateRecord(
        index, "baseline" if index == 0 else "random", (), definition.to_json(), definition.key,
        state=state, fitness=fitness, reason="why",  # type: ignore[arg-type]
    )  # fmt: skip


def test_the_choice_of_a_candidate() -> None:
    rows = [row(0, "done", 0.9), row(1, "done", 0.3, "cse-autoloss-b"), row(2, "dropped", None)]
    rows += [row(3, "done", 0.5, "focal-giou"), row(4, "done", 0.5), row(5, "failed", None)]
    chosen = {wanted: choose("j", rows, wanted)[0] for wanted in (None, 1, "1", "j:3", "baseline")}
    assert {wanted: found.index for wanted, found in chosen.items() if found} == {
        None: 3, 1: 1, "1": 1, "j:3": 3, "baseline": 0,
    }  # fmt: skip
    assert choose("j", rows, "cse-autoloss-b")[0] == rows[1]
    assert choose("j", rows, "vfl-giou")[0] is None
    for wanted, message in {
        2: "not trained to the end.*dropped.*why.*0, 1, 3, 4",
        5: "not trained to the end: it is failed",
        9: "no candidate 9",
        "other:1": "neither a candidate's number nor a named loss",
        "x\n'": r"'x\\n\\'' is|\"x\\n'\" is",
    }.items():
        with pytest.raises(ExportError, match=message):
            choose("j", rows, wanted)
    with pytest.raises(ExportError, match="no candidate that was trained"):
        choose("j", [row(0, "done", 0.4), row(1, "dropped", None)], None)


@pytest.mark.slow
def test_what_does_not_build_is_told(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    config = {"custom_imports": {"imports": ["losses"]}, "model": {"type": "NoSuchDetector"}}
    path.write_text(assignments(config))
    with pytest.raises(ExportError, match=r"does not build in a clean process.*NoSuchDetector"):
        check(path, config, standalone=False)


@contextmanager
def trained_job(
    factory: pytest.TempPathFactory, detector: str, cls_space: str, loss: str, steps: int
) -> Iterator[tuple[Store, str]]:
    """A job on ten images of digits: `loss` was really trained with seed 3, focal-giou dropped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOSSFORGE_HOME", str(factory.getbasetemp() / "lossforge-home"))
        folder = factory.mktemp("export")
        few = one_image_per_class(digits().splits["search_train"], folder)
        split = {"annotations": few.annotations, "images": few.images}
        spec = JobSpec.from_json(
            {
                "name": 'quo"ted \\ {{ fileDirname }}',
                "detector": f"digits/{detector}",
                "data": {"search_train": split, "search_val": split},
                "branches": {"cls": {"space": cls_space}, "bbox": {"space": "box"}},
                "funnel": {
                    "simulate": None,
                    "proxy": {"steps": steps, "batch_size": 4, "seeds": [3]},
                },
                "resources": {"device": "cpu"},
            }
        )
        store = Store.open(str(folder / "store.db"))
        job_id = create_job(store, spec)
        opened = open_job(store, job_id)
        store.set_job_state(job_id, "running")
        store.add_candidate(job_id, baseline_record(opened.baseline))
        for index, name in enumerate((loss, "focal-giou"), start=1):
            given = CATALOG[name]
            record = CandidateRecord(index, "named", (), given.to_json(), given.key, name=name)
            store.add_candidate(job_id, record)
        task = opened.trial(TrialKey(1, "proxy", 3), CATALOG[loss].to_json())
        store.update_candidate(job_id, 1, stage="proxy")
        store.start_trial(job_id, 1, "proxy", 3, task.key)
        result = run_trial(task)
        assert result.status == "done", result.reason
        store.finish_trial(job_id, 1, "proxy", 3, result)
        store.update_candidate(job_id, 1, fitness=result.fitness, state="done")
        store.update_candidate(job_id, 2, state="dropped", reason="below the others")
        with store:
            yield store, job_id


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, str]]:
    """A one-stage detector."""
    found = trained_job(tmp_path_factory, "atss", "binary_cls", "cse-autoloss-b", steps=60)
    with found as (store, job_id):
        yield store, job_id


TRAIN = """
import importlib.util, json, sys
sys.path += sys.argv[2:]
here = importlib.util.find_spec("losses") is not None
from mmengine.config import Config
from mmengine.runner import Runner
runner = Runner.from_cfg(Config.fromfile(sys.argv[1]))
runner.train()
ap = runner.message_hub.get_scalar("val/coco/bbox_mAP").current()
print("\\n" + json.dumps({"ap": float(ap), "project": here}))
"""


def trained(path: Path, folder: Path, standalone: bool) -> dict:
    """What plain mmengine gets out of an export, in a fresh process in another folder.

    Without ``site`` (-S) no .pth file is read, so that an editable install cannot be imported.
    """
    folder.mkdir()
    (folder / "losses").mkdir()  # a namesake in the working folder must not matter
    (folder / "losses" / "__init__.py").write_text("raise SystemExit('the wrong losses')")
    hide = ["-S"] if standalone else []
    packages = [sysconfig.get_path("purelib")] if standalone else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    if standalone:
        environment["PYTHONPATH"] = str(path.parent)
    done = subprocess.run(
        [sys.executable, "-P", *hide, "-c", TRAIN, str(path), *packages],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.rstrip().rpartition("\n")[2])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_plain_mmengine_reproduces_the_recorded_ap(job: tuple[Store, str], tmp_path: Path) -> None:
    store, job_id = job
    recorded = store.candidate(job_id, 1).fitness
    assert recorded is not None
    assert recorded > 0.02, "an AP of zero would prove nothing"
    plain, alone = tmp_path / "plain" / "best one.py", tmp_path / "alone" / "7-best.py"
    assert export(store, job_id, plain) == [plain]
    assert export(store, job_id, alone, "1", standalone=True) == [
        alone, alone.with_name("exported_7_best_loss.py"),
    ]  # fmt: skip
    assert sorted(p.name for p in alone.parent.iterdir()) == [
        "7-best.py",
        "exported_7_best_loss.py",
    ]

    assert trained(plain, tmp_path / "a", standalone=False)["ap"] == pytest.approx(
        recorded, abs=1e-6
    )
    seen = trained(alone, tmp_path / "b", standalone=True)
    assert not seen["project"]
    assert seen["ap"] == pytest.approx(recorded, abs=1e-6)

    text = plain.read_text()
    assert repr(recorded) in text
    assert Config.fromfile(plain).custom_imports.imports[0] == "losses"
    assert Config.fromfile(plain).randomness.seed == 3
    before = plain.read_bytes()
    with pytest.raises(ExportError, match="exists"):
        export(store, job_id, plain)
    assert plain.read_bytes() == before
    with pytest.raises(ExportError, match=r"not trained to the end.*below the others"):
        export(store, job_id, tmp_path / "x.py", 2)
    assert not (tmp_path / "x.py").exists()


@pytest.mark.slow
def test_a_two_stage_export_reproduces_the_recorded_ap(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """What is only here: roi_align of the stand-in, the IoU fed into Z, losses on decoded boxes."""
    two_stage = trained_job(
        tmp_path_factory, "faster_rcnn", "multi_cls", "cse-autoloss-a", steps=35
    )
    with two_stage as (store, job_id):
        recorded = store.candidate(job_id, 1).fitness
        assert recorded is not None
        assert recorded > 0.01, "an AP of zero would prove nothing"
        path = tmp_path / "alone" / "best.py"
        export(store, job_id, path, 1, standalone=True)
        seen = trained(path, tmp_path / "run", standalone=True)
        assert not seen["project"]
        assert seen["ap"] == pytest.approx(recorded, abs=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_ranking_export_reproduces_the_recorded_ap(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """What is only here: a head whose losses rank, its functions as text, its sampler."""
    ranking = trained_job(tmp_path_factory, "retinanet", "binary_cls", "pap-retinanet", steps=30)
    with ranking as (store, job_id):
        recorded = store.candidate(job_id, 1).fitness
        assert recorded is not None
        assert recorded > 0.01, "an AP of zero would prove nothing"
        plain, alone = tmp_path / "plain" / "pap.py", tmp_path / "alone" / "pap.py"
        export(store, job_id, plain, 1)
        export(store, job_id, alone, 1, standalone=True)
    seen = trained(plain, tmp_path / "a", standalone=False)
    assert seen["ap"] == pytest.approx(recorded, abs=1e-6)
    seen = trained(alone, tmp_path / "b", standalone=True)
    assert not seen["project"]
    assert seen["ap"] == pytest.approx(recorded, abs=1e-6)
    head = Config.fromfile(plain).model.bbox_head
    assert (head.type, head.head) == ("RankingHead", "RetinaHead")
    assert head.loss_ranking.functions.H2[0] == [0.4182, 0.0277]
    assert "class PAPRankingLoss" in alone.with_name("pap_loss.py").read_text()
    assert "ranks the scores of a whole batch" in plain.read_text()


@pytest.mark.parametrize(("device", "hidden"), [("cpu", True), ("auto", False), ("cuda", False)])
def test_the_command_hides_gpus_from_what_was_trained_without(device: str, hidden: bool) -> None:
    task = replace(trial("a", "b"), device=device, threads=2)
    (written,) = render({}, facts("a", "b"), task, Path("x.py"), None)
    (line,) = [line for line in written.splitlines() if "export OMP_NUM_THREADS" in line]
    assert line.split() == ["#", "export", "OMP_NUM_THREADS=2"] + hidden * ["CUDA_VISIBLE_DEVICES="]


@pytest.mark.slow
def test_an_export_that_does_not_build_leaves_no_file(
    job: tuple[Store, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, job_id = job
    target = tmp_path / "new" / "config.py"
    # A folder in which the clean process cannot start: the check fails for real.
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))
    with pytest.raises(ExportError, match="clean process"):
        export(store, job_id, target, standalone=True)
    assert list(target.parent.iterdir()) == []
    with pytest.raises(ExportError, match=r"must end in \.py"):
        export(store, job_id, tmp_path / "config.yaml")


def test_exported_config_puts_the_module_first(job: tuple[Store, str]) -> None:
    store, job_id = job
    opened = open_job(store, job_id)
    task = opened.trial(TrialKey(1, "proxy", 3), CATALOG["cse-autoloss-b"].to_json())
    for module, first in ((None, "losses"), ("x_loss", "x_loss")):
        config = exported_config(task, module)
        assert next(iter(config)) == "custom_imports"
        assert config["custom_imports"]["imports"][0] == first
