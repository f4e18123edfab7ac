"""One self-contained Python module with everything that a trained-with loss needs.

For detectors that are trained where this project is not installed: the modules of `primitives` and
`losses` that the losses and heads need, joined in the order of their dependence, with the imports
between them left out.
"""

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from losses.errors import LossesError

# in this order: the stand-in has to be there before anything imports mmdet
_ROOTS = ("losses.mmcv_ops", "losses.expression_losses", "losses.head_factory")
_RANKING_ROOTS = ("losses.ranking_head_factory",)
_PACKAGES = ("primitives", "losses")


@dataclass(frozen=True)
class _Module:
    """A module of the project as text and as a tree."""

    name: str
    text: str
    tree: ast.Module


def bundle_source(header: str = "", *, ranking: bool = False) -> str:
    """Source of one module that registers the losses and heads, and the stand-in for mmcv's ops.

    It imports torch, torchvision, NumPy and mmdet, and nothing of this project. Put its name into
    a config's ``custom_imports`` first.

    Args:
        header: text to put above as comments; every line becomes one comment line.
        ranking: also the ranking losses and their heads.

    Raises:
        LossesError: two modules use one name for different things, or an import between them is
            of a form that cannot be left out.
    """
    modules = _in_order(ranking)
    _check_names(modules)
    comments = [f"# {_printable(line)}".rstrip() for line in header.split("\n") if header]
    parts = ["\n".join(comments), '"""Searched losses for mmdet: self-contained, generated."""']
    if any(_is_future(node) for module in modules for node in module.tree.body):
        parts.append("from __future__ import annotations")
    parts += [_section(module) for module in modules]
    return "\n\n".join(part for part in parts if part) + "\n"


def _printable(line: str) -> str:
    """A line break of any kind, escaped, cannot end the comment that it stands in."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def bundled_modules(*, ranking: bool = False) -> tuple[str, ...]:
    """Names of the project's modules that `bundle_source` joins, in order."""
    return tuple(module.name for module in _in_order(ranking))


def _in_order(ranking: bool) -> list[_Module]:
    done: dict[str, _Module] = {}
    active: list[str] = []
    late: list[str] = []

    def visit(name: str) -> None:
        if name in done:
            return
        if name in active:
            raise LossesError(f"modules import each other: {' -> '.join([*active, name])}")
        active.append(name)
        module = _read(name)
        for node in _internal_imports(module):
            needed = _imported_modules(module, node)
            if node in module.tree.body:
                for other in needed:
                    visit(other)
            else:
                late.extend(needed)  # imported inside a function: its place does not matter
        active.pop()
        done[name] = module

    for root in (*_ROOTS, *(_RANKING_ROOTS if ranking else ())):
        visit(root)
    while late:
        visit(late.pop())
    return list(done.values())


def _read(name: str) -> _Module:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise LossesError(f"module {name} has no source to bundle")
    text = Path(spec.origin).read_text(encoding="utf-8")
    return _Module(name, text, ast.parse(text))


def _internal_imports(module: _Module) -> Iterator[ast.ImportFrom]:
    """Every import of this project's modules, in functions too (`import x` is refused)."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] in _PACKAGES:
                    raise LossesError(f"{module.name} imports {alias.name} as a whole")
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise LossesError(f"{module.name} has a relative import")
            if _is_internal(node):
                yield node


def _imported_modules(module: _Module, node: ast.ImportFrom) -> list[str]:
    renamed = [alias.name for alias in node.names if alias.asname not in (None, alias.name)]
    if renamed:
        raise LossesError(f"{module.name} renames what it imports: {', '.join(renamed)}")
    assert node.module is not None
    if not _is_package(node.module):
        return [node.module]
    sources = {
        alias.asname or alias.name: inner.module
        for inner in _internal_imports(_read(node.module))
        for alias in inner.names
    }
    found = [sources.get(alias.name) for alias in node.names]
    if None in found:
        raise LossesError(f"{module.name} imports from {node.module} what it does not re-export")
    return [name for name in found if name is not None]


def _is_package(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.submodule_search_locations is not None


def _check_names(modules: list[_Module]) -> None:
    owners: dict[str, str] = {}
    for module in modules:
        for name, origin in _bound_names(module):
            first = owners.setdefault(name, origin)
            if first != origin:
                raise LossesError(f"the name {name} means {first} and {origin}: rename one")


def _bound_names(module: _Module) -> Iterator[tuple[str, str]]:
    """Names that a module binds at its top level, each with what it is."""
    for node in module.tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, f"{module.name}.{node.name}"
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                for inner in ast.walk(target):
                    if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                        yield inner.id, f"{module.name}.{inner.id}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                yield bound, alias.name if alias.asname else bound
        elif isinstance(node, ast.ImportFrom) and not _is_future(node):
            for alias in () if _is_internal(node) else node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _is_internal(node: ast.ImportFrom) -> bool:
    return str(node.module).partition(".")[0] in _PACKAGES


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _section(module: _Module) -> str:
    """A module's text without its docstring and its imports from this project."""
    lines = module.text.splitlines()
    first = module.tree.body[0]
    dropped: set[int] = set()
    if ast.get_docstring(module.tree) is not None:
        dropped.update(range(first.lineno, first.end_lineno + 1))  # type: ignore[operator]
    drop = [*_internal_imports(module), *(n for n in module.tree.body if _is_future(n))]
    for node in drop:
        dropped.update(range(node.lineno, node.end_lineno + 1))  # type: ignore[operator]
    _require_nonempty_bodies(module, drop)
    kept = [line for number, line in enumerate(lines, 1) if number not in dropped]
    return f"# ---- {module.name}\n\n" + "\n".join(kept).strip("\n")


def _require_nonempty_bodies(module: _Module, drop: list) -> None:
    for node in ast.walk(module.tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and all(inner in drop for inner in body):
            raise LossesError(f"{module.name}, line {body[0].lineno}: a block of imports only")
