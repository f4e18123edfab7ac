"""Reads a JSON object piece by piece, so that a file of any size needs little memory."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from workers.data.errors import DataError

CHUNK = 1 << 20  # bytes read at a time
_LONGEST_WORD = 32  # characters: no token but a text can be cut further from the end than this
_SPACE = " \t\n\r"


@dataclass(frozen=True)
class Piece:
    """A part of a JSON object, in the file's order.

    Attributes:
        kind: "value", what a key holds; of a key whose list is taken apart "open", an "entry" for
            each of its entries, and "close".
        key: the key of the object.
        value: what the text says; None for "open" and "close".
        text: the file's own characters for it.
        number: of an entry, from 0.
    """

    kind: Literal["value", "open", "entry", "close"]
    key: str
    value: Any = None
    text: str = ""
    number: int = 0


def read_pieces(
    path: Path, lists: Collection[str], progress: Callable[[int], None] = lambda _: None
) -> Iterator[Piece]:
    """The pieces of the JSON object in a file.

    In memory are one chunk of the file, or its largest piece where that is larger.

    Args:
        path: UTF-8.
        lists: the keys whose lists are taken apart; what is no list there comes as a "value".
        progress: takes the number of bytes read so far, a chunk at a time.

    Raises:
        DataError: the file cannot be read, is no JSON, no object, or has a key twice.
    """
    try:
        with path.open("rb") as file:
            yield from _pieces(_Reader(path, file, progress), lists)
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from error


def _pieces(reader: _Reader, lists: Collection[str]) -> Iterator[Piece]:
    if reader.peek() != "{":
        reader.value()  # what is no JSON says so first
        raise DataError(reader.path, "is not COCO: expected an object with keys")
    seen: set[str] = set()
    reader.take("{")
    while reader.peek() != "}":
        if seen:
            reader.take(",")
        if reader.peek() != '"':
            raise reader.error("Expecting property name enclosed in double quotes")
        key, _ = reader.value()
        if key in seen:
            raise DataError(reader.path, f"has the key {key!r} twice")
        seen.add(key)
        reader.take(":")
        if key in lists and reader.peek() == "[":
            yield Piece("open", key)
            yield from _entries(reader, key)
            yield Piece("close", key)
        else:
            value, text = reader.value()
            yield Piece("value", key, value, text)
    reader.take("}")
    if reader.peek():
        raise reader.error("Extra data")


def _entries(reader: _Reader, key: str) -> Iterator[Piece]:
    number = 0
    reader.take("[")
    while reader.peek() != "]":
        if number:
            reader.take(",")
        value, text = reader.value()
        yield Piece("entry", key, value, text, number)
        number += 1
    reader.take("]")


class _Reader:
    """A window over a file's text, which moves on as values are taken from it."""

    def __init__(self, path: Path, file: BinaryIO, progress: Callable[[int], None]) -> None:
        self.path = path
        self._file = file
        self._progress = progress
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._decode = json.JSONDecoder().raw_decode
        self._text = ""
        self._at = 0  # where in the text the next character is
        self._dropped = 0  # characters of the file before the text
        self._read = 0  # bytes
        self._ended = False

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._more()

    def take(self, character: str) -> None:
        """Passes a character that must come next."""
        if self.peek() != character:
            raise self.error(f"Expecting {character!r}")
        self._at += 1

    def value(self) -> tuple[Any, str]:
        """The next JSON value, and its text."""
        self.peek()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._ended or not self._may_be_cut(error):
                    raise self.error(error.msg, error.pos) from error
            except RecursionError as error:
                raise self.error("A value is nested too deeply") from error
            else:
                if self._ended or not self._may_go_on(value, end):
                    text = self._text[self._at : end]
                    self._at = end
                    return value, text
            self._more()

    def error(self, problem: str, at: int | None = None) -> DataError:
        """What is wrong with the JSON, and where."""
        character = self._dropped + (self._at if at is None else at)
        return DataError(self.path, f"is not JSON: {problem} (character {character})")

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        """Whether the error may only be that the value goes on after the text."""
        near = error.pos >= len(self._text) - _LONGEST_WORD
        return near or error.msg.startswith("Unterminated string")

    def _may_go_on(self, value: Any, end: int) -> bool:
        """Whether a number that was read up to `end` may be the start of another: 1 of 1.5e3."""
        rest = self._text[end : end + _LONGEST_WORD]
        short = len(rest) < _LONGEST_WORD
        return short and isinstance(value, int | float) and not rest.strip(".eE+-")

    def _more(self) -> None:
        """Reads on: as much again as a value that did not fit, so that no value costs much more."""
        kept = self._text[self._at :]
        data = self._file.read(max(CHUNK, len(kept)))
        self._ended = not data
        self._dropped += self._at
        self._at = 0
        try:
            self._text = kept + self._utf8.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            raise DataError(self.path, f"is not JSON: {error}") from error
        self._read += len(data)
        self._progress(self._read)
