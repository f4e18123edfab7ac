"""The self-contained module: complete, alone, and equal to the package in what it computes."""

import ast
import subprocess
import sys
import textwrap

import pytest
import torch

import losses.bundle as bundle
from losses import CATALOG, LossesError, apply_loss

CHILD = """
import sys
for name in ("losses", "primitives", "workers", "search_server"):
    sys.modules[name] = None  # an import of it fails
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from mmengine.config import Config
from mmengine.logging import MMLogger
MMLogger.get_current_instance().setLevel("ERROR")
from mmengine.structures import InstanceData

given = torch.load(sys.argv[1] + "/given.pt")
for name, case in given["cases"].items():
    config = Config.fromfile(f"{sys.argv[1]}/{name}.py")
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmdet.utils import register_all_modules
    register_all_modules()
    model = MODELS.build(config.model).train()
    model.load_state_dict(case["state"])
    samples = []
    for boxes, labels in given["objects"]:
        sample = DetDataSample(metainfo=given["meta"])
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
        sample.ignored_instances = InstanceData(bboxes=boxes[:0], labels=labels[:0])
        samples.append(sample)
    torch.manual_seed(5)
    values = model.loss(given["inputs"], samples)
    for key, expected in case["values"].items():
        value = sum(values[key]) if isinstance(values[key], list) else values[key]
        assert torch.equal(value, expected), (name, key, value, expected)
print("same losses")
"""


@pytest.mark.slow
def test_trains_alike_where_the_project_cannot_be_imported(
    tmp_path, tiny_config, tiny_batch, build, loss_dict
):
    batch = tiny_batch()
    cases = {}
    for family, name in (
        ("faster", "cse-autoloss-a"),
        ("atss", "cse-autoloss-b"),
        ("retinanet", "pap-retinanet"),
        ("retinanet", "ap-l1"),
        ("faster", "alrp-faster-rcnn"),
        ("atss", "rank-sort"),
    ):
        config = apply_loss(tiny_config(family), CATALOG[name])
        model = build(config)
        state = {key: value.clone() for key, value in model.state_dict().items()}
        torch.manual_seed(5)
        values = {k: v.detach() for k, v in loss_dict(model, batch).items()}
        cases[name] = {"state": state, "values": values}
        config.custom_imports.imports = ["searched_losses"]
        config.dump(tmp_path / f"{name}.py")
    source = bundle.bundle_source("A searched loss\n", ranking=True)
    (tmp_path / "searched_losses.py").write_text(source)
    given = {
        "cases": cases,
        "inputs": batch["inputs"],
        "objects": [(s.gt_instances.bboxes, s.gt_instances.labels) for s in batch["data_samples"]],
        "meta": dict(batch["data_samples"][0].metainfo),
    }
    torch.save(given, tmp_path / "given.pt")
    done = subprocess.run(
        [sys.executable, "-I", "-c", CHILD, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=280,
        cwd=tmp_path,
        check=False,
    )
    assert done.stdout.endswith("same losses\n"), done.stderr[-3000:]


@pytest.mark.parametrize("ranking", [False, True])
def test_source_imports_nothing_of_the_project(ranking):
    tree = ast.parse(bundle.bundle_source(ranking=ranking))
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
        assert not {n.partition(".")[0] for n in names} & {
            "losses",
            "primitives",
            "workers",
            "search_server",
            "deap",
            "sympy",
        }
    assert {"losses.heads", "losses.expression_losses", "primitives.parser"} <= set(
        bundle.bundled_modules()
    )
    first = bundle.bundled_modules(ranking=ranking)
    assert ("losses.ranking.pap" in first) is ranking
    assert first.index("losses.mmcv_ops") < first.index("losses.expression_losses")


def test_it_is_deterministic():
    assert bundle.bundle_source("x") == bundle.bundle_source("x")
    assert bundle.bundle_source(ranking=True) == bundle.bundle_source(ranking=True)


@pytest.mark.parametrize(
    "header",
    [
        "fine\nraise SystemExit",
        'quotes """ and \\',
        "a\rraise SystemExit",
        "a\x0craise SystemExit",
        "a\x85raise SystemExit\u2028raise SystemExit",
        "nul \x00 and surrogate \ud800",
        "",
    ],
)
def test_a_header_cannot_become_code(header):
    plain = ast.dump(ast.parse(bundle.bundle_source()))
    source = bundle.bundle_source(header)
    assert ast.dump(ast.parse(source.encode("utf-8"))) == plain
    for line in source.splitlines():
        if "SystemExit" in line:
            assert line.startswith("#")


def write_package(folder, monkeypatch, init="", **modules):
    package = folder / "toy"
    package.mkdir()
    (package / "__init__.py").write_text(init)
    for name, text in modules.items():
        (package / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(bundle, "_PACKAGES", ("toy",))
    monkeypatch.setattr(bundle, "_ROOTS", ("toy.b",))
    for name in [n for n in sys.modules if n.partition(".")[0] == "toy"]:
        monkeypatch.delitem(sys.modules, name)


def test_order_late_imports_and_re_exports(tmp_path, monkeypatch):
    write_package(
        tmp_path,
        monkeypatch,
        init="from toy.a import one\n",
        a='"""A."""\nfrom __future__ import annotations\n\ndef one():\n    return 1\n',
        b='"""B."""\nfrom toy import one\n\n\ndef two():\n    from toy.c import three\n'
        "    return three() - one()\n",
        c='"""C."""\nfrom toy.a import one\n\n\ndef three():\n    return 2 + one()\n',
    )
    assert bundle.bundled_modules() == ("toy.a", "toy.b", "toy.c")
    space: dict = {}
    exec(compile(bundle.bundle_source(), "bundle", "exec"), space)
    assert space["two"]() == 2


def test_a_package_in_the_package_is_seen_through(tmp_path, monkeypatch):
    inner = tmp_path / "toy" / "inner"
    write_package(
        tmp_path, monkeypatch, b="from toy.inner import one\n\n\ndef two():\n    return one() + 1\n"
    )
    inner.mkdir()
    (inner / "__init__.py").write_text("from toy.inner.a import one\n\n__all__ = ['one']\n")
    (inner / "a.py").write_text("def one():\n    return 1\n")
    assert bundle.bundled_modules() == ("toy.inner.a", "toy.b")
    space: dict = {}
    exec(compile(bundle.bundle_source(), "bundle", "exec"), space)
    assert space["two"]() == 2


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ("def one(): pass\n", "from toy.a import one\ndef helper(): pass\none = 2\n", "one means"),
        ("import json as x\none = 1\n", "from toy.a import one\nimport ast as x\n", "x means"),
        ("one = 1\n", "from toy.a import one as uno\n", "renames"),
        ("one = 1\n", "import toy.a\n", "as a whole"),
        ("one = 1\n", "from .a import one\n", "relative"),
        ("from toy.b import two\none = 1\n", "from toy.a import one\ntwo = 2\n", "each other"),
        ("one = 1\n", "def f():\n    from toy.a import one\n", "imports only"),
    ],
)
def test_what_cannot_be_joined_is_refused(a, b, words, tmp_path, monkeypatch):
    write_package(tmp_path, monkeypatch, a=a, b=b)
    with pytest.raises(LossesError, match=words):
        bundle.bundle_source()
