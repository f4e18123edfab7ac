"""What commands print: JSON for programs; tables and text for people, with untrusted text tamed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 100  # columns where the output is no terminal


def console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal, or of 100 columns."""
    probe = Console(stderr=stderr)
    width = None if probe.is_terminal else WIDTH
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=False, emoji=False)


def print_json(data: Any) -> None:
    """One JSON document on stdout; what JSON cannot say (NaN, infinity) becomes null."""
    json.dump(jsonable(data), sys.stdout, indent=2, allow_nan=False, ensure_ascii=True)
    sys.stdout.write("\n")


def jsonable(data: Any) -> Any:
    """Records, times and paths as plain JSON data."""
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        fields = {field.name: getattr(data, field.name) for field in dataclasses.fields(data)}
        return jsonable(fields)
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, datetime):
        return data.isoformat()
    if isinstance(data, Path):
        return str(data)
    if isinstance(data, Mapping):
        return {str(key): jsonable(value) for key, value in data.items()}
    if isinstance(data, Sequence | set | frozenset) and not isinstance(data, str | bytes):
        return [jsonable(value) for value in data]
    return data


def one_line(text: str) -> str:
    """Text without line breaks and control characters: safe for a terminal, whoever wrote it."""
    joined = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in joined)


def plain(text: str, style: str = "") -> Text:
    """Untrusted text for a table: no markup, no control characters; long words are folded."""
    return Text(one_line(text), style=style, overflow="fold")


def table(*columns: str, right: Sequence[str] = (), fold: Sequence[str] = ()) -> Table:
    """A table that fits the width; `fold` names the columns that give way, and take the rest."""
    made = Table(box=None, pad_edge=False, header_style="bold", expand=bool(fold))
    for column in columns:
        if column in fold:
            made.add_column(column, overflow="fold", ratio=1)
        else:
            justify = "right" if column in right else "left"
            made.add_column(column, overflow="fold", justify=justify)  # type: ignore[arg-type]
    return made


def points(value: float | None) -> str:
    """An AP in [0, 1] as people read it: 46.3."""
    return "-" if value is None else f"{100 * value:.1f}"


def age(moment: datetime | None) -> str:
    """How long ago, in the largest unit: 5 min, 3 h, 2 d."""
    if moment is None:
        return "-"
    return duration((datetime.now(UTC) - moment).total_seconds())


def duration(seconds: float | None) -> str:
    """A span of time in its largest units."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{max(0.0, seconds):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} d"


def note(text: str) -> None:
    """A remark on stderr, where it disturbs no JSON."""
    print(one_line(text), file=sys.stderr)


@contextlib.contextmanager
def stdout_kept() -> Iterator[None]:
    """Sends what libraries print inside the block to stderr: stdout is for the answer."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
