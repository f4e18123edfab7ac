"""The loss module of a standalone export: a safe name, and nothing of this project in it."""

import ast
import keyword
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from losses import CATALOG, configs_dir
from losses.ranking_config import ranks
from search_server.export.check import check
from search_server.export.exporter import exported_config
from search_server.export.literal import assignments
from search_server.export.standalone import module_name, module_source
from workers import Split, TrialSpec, load_detector

PROJECT = {"primitives", "losses", "workers", "search_server"}


@settings(max_examples=500)
@given(st.text(min_size=1, max_size=80).filter(lambda t: "/" not in t and "\0" not in t))
def test_module_names_are_identifiers(stem: str) -> None:
    name = module_name(Path(f"{stem}.py"))
    assert name.isascii()
    assert name.isidentifier()
    assert not keyword.iskeyword(name)
    assert name.endswith("_loss")
    assert len(name) < 80


@pytest.mark.parametrize(
    ("file", "name"),
    [("best.py", "best_loss"), ("7-b st.py", "exported_7_b_st_loss"), ("é.py", "exported_loss")],
)
def test_module_names_follow_the_config(file: str, name: str) -> None:
    assert module_name(Path("/some/where") / file) == name


@pytest.mark.parametrize("ranking", [False, True])
def test_the_module_imports_nothing_of_the_project(ranking: bool) -> None:
    tree = ast.parse(module_source(["one", "two"], ranking=ranking))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(str(node.module).partition(".")[0])
    assert not imported & PROJECT
    allowed = {"mmcv", "mmdet", "mmengine", "numpy", "torch", "torchvision", "__future__"}
    allowed.add("faster_coco_eval")  # where it is there; see test_full_precision_metric.py
    import sys

    assert imported - set(sys.stdlib_module_names) <= allowed
    defined = [n.name for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
    assert len(defined) == len(set(defined))
    assert {"SoftmaxExpressionLoss", "BoxExpressionLoss", "FullPrecisionCocoMetric"} <= set(defined)
    assert ("PAPRankingLoss" in defined) is ranking
    assert ("RankSortRankingLoss" in defined) is ranking


@pytest.mark.slow
@pytest.mark.parametrize(
    ("detector", "loss"),
    [
        ("faster_rcnn", "cse-autoloss-a"),
        ("atss", "qfl-giou"),
        ("faster_rcnn", "pap-faster-rcnn"),
    ],
)
def test_other_detectors_build_where_the_project_is_hidden(
    tmp_path: Path, detector: str, loss: str
) -> None:
    spec = TrialSpec(
        detector=load_detector(configs_dir() / "detectors" / "digits" / f"{detector}.py"),
        definition=CATALOG[loss].to_json(),
        train=Split("/no/train.json", "/no/train"),
        evaluate=Split("/no/val.json", "/no/val"),
        seed=1,
        steps=5,
        batch_size=2,
        classes=("a", "b"),
        device="cpu",
    )
    config = exported_config(spec, "its_loss")
    (tmp_path / "its.py").write_text(assignments(config))
    (tmp_path / "its_loss.py").write_text(module_source([], ranking=ranks(config)))
    assert check(tmp_path / "its.py", config, standalone=True) > 10_000
