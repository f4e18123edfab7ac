"""Text of an exported file in which no value can become code when mmengine reads it.

mmengine's reader replaces ``{{ ... }}`` (variables, environment variables) anywhere in a config,
strings and comments included, *before* Python parses it. So every string is written as a Python
literal, every comment as one line of printable text, and no two braces open side by side in either.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from search_server.errors import ExportError
from workers.config_text import UnwritableError, config_text


def assignments(config: Mapping[str, Any]) -> str:
    """Text of a config: one assignment per top-level key, in the given order.

    Raises:
        ExportError: a key that cannot be a variable of a config, or a value that is not plain data.
    """
    for key in config:
        if not isinstance(key, str) or not key.isascii() or key.startswith("_"):
            raise ExportError(f"the config's key {key!a} cannot be written as a variable")
    try:
        return _harmless(config_text(config))
    except UnwritableError as error:
        raise ExportError(f"the config cannot be written as text: {str(error)!a}") from error


def comment(text: str) -> str:
    """One comment line."""
    return f"# {escaped(text)}".rstrip()


def comments(lines: Iterable[str]) -> str:
    """A block of comment lines."""
    return "".join(comment(line) + "\n" for line in lines)


def escaped(text: str) -> str:
    """Text on one line: what is not printable is written as an escape, a line break too."""
    return _harmless("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text))


def _harmless(text: str) -> str:
    # Two braces side by side only occur inside literals and comments: nothing hashable starts
    # with a brace, so no dict or set display does either.
    return text.replace("{{", "{\\x7b")
