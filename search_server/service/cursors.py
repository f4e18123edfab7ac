"""Cursors of pages: where the last row of a page stood, as a word that people need not read."""

from __future__ import annotations

import base64
import json
from typing import TypeVar

from search_server.service.problems import Problem

Place = int | float | str
P = TypeVar("P", int, float, str)


def encoded(*place: Place) -> str:
    """The cursor of a place in an order."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def decoded(cursor: str | None, *kinds: type[P]) -> list[P] | None:
    """The place that `encoded` was given; None without a cursor.

    Args:
        kinds: what each of its values is.

    Raises:
        Problem: 422, it is none of ours.
    """
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        place = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, RecursionError):
        place = None
    fits = isinstance(place, list) and [type(each) for each in place] == list(kinds)
    if not fits or any(isinstance(each, int) and abs(each) >= 2**62 for each in place):
        raise Problem(422, "cursor: this is no cursor of a page before")
    return list(place)
