"""Processes of this project, and how one is started from nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol


class Started(Protocol):
    """A process that was started. Any thread may call what it has."""

    def poll(self) -> int | None:
        """How it ended: its exit status, or minus the signal's number; None while it lives."""
        ...

    def wait(self, timeout: float) -> int:
        """The same, after its end.

        Raises:
            subprocess.TimeoutExpired: it has not ended within `timeout` seconds.
        """
        ...

    def kill(self) -> None:
        """Sends SIGKILL to it, and to all of its group if it has one of its own."""
        ...

    def release(self) -> None:
        """Lets go of it; what is left of it is killed."""
        ...


@dataclass(frozen=True)
class Order:
    """What to start.

    Attributes:
        entry: the module of `workers` whose `main` the process is.
        arguments: of `main`.
        descriptors: that the process gets besides; their numbers there follow the arguments.
        own_group: whether it leads a session and process group of its own, as one that is forked
            always does.
        environment: its environment.
        stdin: descriptor of its standard input.
        output: descriptor of its standard output and error.
    """

    entry: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    stdin: int
    output: int
    descriptors: tuple[int, ...] = ()
    own_group: bool = True


class Spawned:
    """A process that was started from nothing."""

    def __init__(self, order: Order) -> None:
        command = [sys.executable, "-P", "-m", f"workers.{order.entry}"]
        command += [*order.arguments, *map(str, order.descriptors), str(os.getpid())]
        self._own_group = order.own_group
        self._process = spawn(
            command,
            env=order.environment,
            stdin=order.stdin,
            stdout=order.output,
            stderr=order.output,
            pass_fds=order.descriptors,
            start_new_session=order.own_group,
        )

    def poll(self) -> int | None:
        return self._process.poll()

    def wait(self, timeout: float) -> int:
        return self._process.wait(timeout)

    def kill(self) -> None:
        if self._own_group:
            kill_group(self._process.pid)
        else:
            self._process.kill()

    def release(self) -> None:
        self.kill()


def spawn(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Starts a process from a thread that lives as long as this process.

    The kernel's parent-death signal comes when the *thread* that started the child ends; started
    from a thread of a pool, the child would die with that thread.
    """

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, **options)

    return _starter(os.getpid()).submit(start).result()


@cache
def _starter(pid: int) -> ThreadPoolExecutor:
    """The one thread that starts processes; per process id, since threads do not survive a fork."""
    return ThreadPoolExecutor(1, thread_name_prefix=f"lossforge-start-{pid}")


def kill_group(pid: int) -> None:
    """Sends SIGKILL to a process group, or where there is none to the process."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
