"""A config as Python text: what `mmengine.Config` reads back as the same values.

mmengine's own writer sorts keys, takes seconds (it runs a code formatter) and writes ``inf`` as a
name that does not exist; this one keeps the order, is quick, and refuses what it cannot write.
"""

from __future__ import annotations

import keyword
import math
from collections.abc import Iterable, Mapping
from typing import Any

_WIDTH = 100
_STEP = 4


class UnwritableError(ValueError):
    """A config holds a value that Python text cannot carry.

    Attributes:
        path: where it is, as ``model.bbox_head.loss_cls``.
        value: what it is.
    """

    def __init__(self, path: str, value: object) -> None:
        self.path, self.value = path, value
        super().__init__(f"{path} is a {type(value).__name__}, which a config text cannot carry")


def config_text(config: Mapping[str, Any]) -> str:
    """The text of a text-style config, one assignment per top-level key.

    Args:
        config: top-level names (identifiers) to plain values: None, booleans, numbers, strings,
            and tuples, lists, sets and mappings of these. Classes and functions become their
            dotted names, which mmengine's registries resolve.

    Raises:
        UnwritableError: there is a value of another kind, or a name that is no identifier.
    """
    lines = []
    for name, value in config.items():
        if not _is_keyword_name(name):
            raise UnwritableError(repr(name), name)
        lines.append(f"{name} = {_write(value, name, 0, len(name) + 3)}\n")
    return "".join(lines)


def _write(value: Any, path: str, indent: int, taken: int) -> str:
    """`value` as an expression; `indent` of the line it starts in, `taken` columns before it."""
    if value is None or isinstance(value, bool | int | str | bytes):
        return repr(_plain(value))
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else f"float({str(float(value))!r})"
    if isinstance(value, Mapping):
        return _write_mapping(value, path, indent, taken)
    if isinstance(value, list | tuple | set | frozenset):
        return _write_sequence(value, path, indent, taken)
    if callable(value) and hasattr(value, "__qualname__") and "<" not in value.__qualname__:
        return repr(f"{value.__module__}.{value.__qualname__}")
    raise UnwritableError(path, value)


def _plain(value: Any) -> Any:
    """Without a subclass's own ``repr``."""
    kinds: tuple[Any, ...] = (bool, int, str, bytes)
    return next((kind(value) for kind in kinds if isinstance(value, kind)), value)


def _write_mapping(value: Mapping[Any, Any], path: str, indent: int, taken: int) -> str:
    as_call = all(_is_keyword_name(key) for key in value)
    opening, closing = ("dict(", ")") if as_call else ("{", "}")

    def heads() -> Iterable[tuple[str, Any, str]]:
        for key, item in value.items():
            where = f"{path}.{key}"
            yield (f"{key}=" if as_call else f"{_write(key, where, 0, 0)}: "), item, where

    return _lay_out(opening, closing, heads(), indent, taken)


def _write_sequence(value: Any, path: str, indent: int, taken: int) -> str:
    items = [("", item, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, set | frozenset):
        written = sorted(_write(item, where, 0, 0) for _, item, where in items)
        return f"{{{', '.join(written)}}}" if written else "set()"
    opening, closing = ("[", "]") if isinstance(value, list) else ("(", ")")
    if isinstance(value, tuple) and len(items) == 1:
        closing = ",)"
    return _lay_out(opening, closing, items, indent, taken)


def _lay_out(
    opening: str,
    closing: str,
    items: Iterable[tuple[str, Any, str]],
    indent: int,
    taken: int,
) -> str:
    """On one line where it fits, else one line per item."""
    items = list(items)
    inner = indent + _STEP
    written = [head + _write(item, path, inner, inner + len(head)) for head, item, path in items]
    one_line = opening + ", ".join(written) + closing
    if "\n" not in one_line and taken + len(one_line) < _WIDTH:
        return one_line
    pad = " " * inner
    body = "".join(f"{pad}{line},\n" for line in written)
    return f"{opening}\n{body}{' ' * indent}{closing.lstrip(',')}"


def _is_keyword_name(key: Any) -> bool:
    # Python folds some other letters of names into ASCII ones: a key must stay as it is.
    usable = isinstance(key, str) and key.isascii() and key.isidentifier()
    return usable and not keyword.iskeyword(key)
