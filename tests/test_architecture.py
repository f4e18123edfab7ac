"""The architecture: which package may import which, and what no module may do."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("primitives", "losses", "workers", "search_server")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imported_packages(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and top-level package of every absolute import, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.split(".")[0]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_no_import_points_up_the_house(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    above = PACKAGES[PACKAGES.index(package) + 1 :]
    wrong = [
        f"{relative(path)}:{line} imports {name}"
        for line, name in imported_packages(ast.parse(path.read_text()))
        if name in above
    ]
    assert wrong == []


def test_primitives_know_neither_detection_nor_ray_nor_sql() -> None:
    forbidden = {"mmdet", "mmcv", "mmengine", "ray", "sqlalchemy", "torchvision"}
    found = {
        f"{relative(path)}:{line} imports {name}"
        for path in MODULES
        if path.relative_to(ROOT).parts[0] == "primitives"
        for line, name in imported_packages(ast.parse(path.read_text()))
        if name in forbidden
    }
    assert found == set()


def test_workers_know_no_sql() -> None:
    found = {
        f"{relative(path)}:{line}"
        for path in MODULES
        if path.relative_to(ROOT).parts[0] in ("losses", "workers")
        for line, name in imported_packages(ast.parse(path.read_text()))
        if name in ("sqlalchemy", "alembic")
    }
    assert found == set()


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_text_is_never_evaluated(path: Path) -> None:
    calls = [
        f"{relative(path)}:{node.lineno} {node.func.id}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("eval", "exec", "compile", "__import__")
    ]
    assert calls == []


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_every_module_says_what_lives_there(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, f"{relative(path)} has no docstring"


def test_the_walk_sees_the_packages() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(PACKAGES)
