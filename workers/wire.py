"""How a supervisor and its child process talk: length-prefixed JSON over a socket pair.

A message is four bytes of length, big-endian, and a UTF-8 JSON object. JSON's numbers carry every
finite double exactly; NaN and infinities are refused. Nothing is pickled.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any

_HEADER = struct.Struct(">I")


def pack(message: Mapping[str, Any]) -> bytes:
    """The bytes of one message.

    Raises:
        ValueError: the message holds a NaN or an infinity.
    """
    body = json.dumps(message, allow_nan=False).encode()
    return _HEADER.pack(len(body)) + body


class Inbox:
    """Puts messages together from the pieces in which they arrive."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Takes the next piece."""
        self._buffer += data

    def pop(self) -> dict[str, Any] | None:
        """The next whole message, or None until more arrives."""
        if len(self._buffer) < _HEADER.size:
            return None
        (length,) = _HEADER.unpack_from(self._buffer)
        end = _HEADER.size + length
        if len(self._buffer) < end:
            return None
        message: dict[str, Any] = json.loads(self._buffer[_HEADER.size : end])
        del self._buffer[:end]
        return message


def receive(connection: socket.socket, inbox: Inbox) -> dict[str, Any] | None:
    """Waits for the next message; None when the other side is gone."""
    while (message := inbox.pop()) is None:
        try:
            data = connection.recv(65536)
        except ConnectionError:
            return None
        if not data:
            return None
        inbox.feed(data)
    return message
