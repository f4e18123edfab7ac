"""Formulas in tables: broken where a reader would break them, and never cut short."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.style import Style

from search_server.cli.output import one_line

_SMALLEST = 24


class Formula:
    """Text with a label, wrapped after commas and brackets, with a hanging indent.

    Args:
        text: untrusted; control characters are shown, not sent.
        label: what stands before the first line.
    """

    def __init__(self, text: str, label: str = "") -> None:
        self._text = one_line(text)
        self._label = label

    def lines(self, width: int) -> list[str]:
        """Lines of at most `width` columns; nothing is left out."""
        room = max(4, width - len(self._label))
        indent = " " * len(self._label)
        return [
            (indent if number else self._label) + line
            for number, line in enumerate(_wrapped(self._text, room))
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One segment per line."""
        style = Style.null()
        for line in self.lines(options.max_width):
            yield Segment(line, style)
            yield Segment.line()

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Wants a line, makes do with a narrow column."""
        full = len(self._label) + len(self._text)
        return Measurement(min(full, _SMALLEST), full).clamp(1, options.max_width)


def _wrapped(text: str, width: int) -> Iterator[str]:
    """Lines broken after a comma, an opening bracket or a space; a longer word wherever it must."""
    line = ""
    for word in re.findall(r"[^,( ]*[,( ]?", text):
        if line and len(line) + len(word.rstrip()) > width:
            yield line.rstrip()
            line = ""
        line += word
        while len(line.rstrip()) > width:
            yield line[:width]
            line = line[width:]
    yield line.rstrip()
