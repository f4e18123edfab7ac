"""Texts of the store as they may be shown to anybody: without the places of files and stores."""

from __future__ import annotations

import re

_URL = re.compile(r"\b(sqlite|postgresql)(\+\w+)?:/\S+", re.IGNORECASE)
# An absolute path of two parts or more, or one in a home folder; a fraction or a URL is none.
_PATH = re.compile(r"(?<![\w/.:~)\]])~?(?:/[^\s/'\"`<>|,;:()\[\]{}]+){2,}/?")
_WINDOWS = re.compile(r"\b[A-Za-z]:\\[^\s'\"`<>|,;()]+")


def placeless(text: str) -> str:
    """The text with nothing but the last name of every path in it, and no URL of a store."""
    text = _URL.sub("the store", text)
    text = _WINDOWS.sub(lambda found: _last(found.group(), "\\"), text)
    return _PATH.sub(lambda found: _last(found.group().rstrip("/"), "/"), text)


def _last(path: str, mark: str) -> str:
    return "…" + mark + path.rpartition(mark)[2]
