"""A process of the fork server's, as whoever asked for it sees it."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable

from workers.starting import Started, kill_group

NUMBER = struct.Struct(">i")  # what comes through a channel: the process's id, then how it ended


class Forked:
    """A process of the fork server's, seen through its channel.

    The server keeps what is left of a process until the channel is closed, so that its id is
    nobody else's as long as somebody here may send a signal to it. A closed channel has the server
    kill the process.

    Args:
        channel: our end.
        instead: starts the process from nothing, for a server that does not get as far.
    """

    def __init__(self, channel: socket.socket, instead: Callable[[], Started]) -> None:
        self._channel = channel
        self._instead: Callable[[], Started] | None = instead
        self._other: Started | None = None
        self._buffer = b""
        self._pid: int | None = None
        self._code: int | None = None
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        with self._lock:
            self._hear(0.0)
            return self._code if self._other is None else self._other.poll()

    def wait(self, timeout: float) -> int:
        with self._lock:
            while self._code is None and self._other is None:
                if not self._hear(timeout):
                    raise subprocess.TimeoutExpired("workers.fork_server", timeout)
        return self._other.wait(timeout) if self._other is not None else self._ended()

    def kill(self) -> None:
        with self._lock:
            self._hear(0.0)
            if self._other is not None:
                self._other.kill()
            elif self._pid is not None:
                kill_group(self._pid)
            else:  # it is not there yet, and is not to be
                self._hang_up()

    def release(self) -> None:
        with self._lock:
            if self._other is not None:
                self._other.release()
            self._hang_up()
            self._channel.close()

    def _ended(self) -> int:
        assert self._code is not None
        return self._code

    def _hang_up(self) -> None:
        self._instead = None
        self._code = -signal.SIGKILL if self._code is None else self._code
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)  # in copies of the process, too

    def _hear(self, timeout: float) -> bool:
        """Takes in what the channel has; whether anything came within `timeout` seconds."""
        if self._code is not None or self._other is not None:
            return True
        self._channel.settimeout(timeout)
        try:
            data = self._channel.recv(2 * NUMBER.size)
        except (BlockingIOError, TimeoutError):
            return False
        except ConnectionError:
            data = b""
        self._buffer += data
        if self._pid is None and len(self._buffer) >= NUMBER.size:
            (self._pid,) = NUMBER.unpack_from(self._buffer)
            self._instead = None
        if len(self._buffer) >= 2 * NUMBER.size:
            (self._code,) = NUMBER.unpack_from(self._buffer, NUMBER.size)
        elif not data and self._instead is not None:
            self._other, self._instead = self._instead(), None
        elif not data:  # the server is gone, and the kernel kills what it forked
            self._code = -signal.SIGKILL
        return True
