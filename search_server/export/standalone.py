"""The loss module beside a standalone config: losses, heads and metric without this project."""

import ast
import importlib.util
import re
from pathlib import Path

from losses.bundle import bundle_source
from search_server.errors import ExportError

_METRIC, _ARITHMETIC = "workers.metric", "workers.arithmetic"


def module_name(path: Path) -> str:
    """Name of the loss module beside a config: an ASCII identifier that ends in ``_loss``."""
    stem = re.sub(r"[^a-z0-9]+", "_", path.stem.lower()).strip("_")[:60]
    if not stem or stem[0].isdigit():
        stem = f"exported_{stem}".rstrip("_")
    return f"{stem}_loss"


def module_source(lines: list[str], *, ranking: bool = False, bfloat16: bool = False) -> str:
    """Source of the loss module.

    Args:
        lines: of the comment at its top, already escaped, without line breaks.
        ranking: whether a head of the config has a ranking loss.
        bfloat16: whether the config has the hook for layers in bfloat16.
    """
    bundled = bundle_source("\n".join(lines), ranking=ranking)
    others = [_METRIC, _ARITHMETIC] if bfloat16 else [_METRIC]
    return "\n\n\n".join([bundled.rstrip(), *map(_workers_source, others)]) + "\n"


def _workers_source(name: str) -> str:
    """A module without its docstring and future import, which stand at a top only."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ExportError(f"{name} has no source to export")
    text = Path(spec.origin).read_text(encoding="utf-8")
    tree = ast.parse(text)
    dropped: set[int] = set()
    for index, node in enumerate(tree.body):
        future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
        if future or (index == 0 and ast.get_docstring(tree) is not None):
            dropped.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    kept = [line for number, line in enumerate(text.splitlines(), 1) if number not in dropped]
    return f"# ---- {name}\n\n" + "\n".join(kept).strip("\n")
