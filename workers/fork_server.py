"""The process that others are forked from: ``python -P -m workers.fork_server CONTROL PARENT``.

It imports torch and mmdet and then waits for orders (`workers.forks`), each of which it answers
with a copy of itself in a fraction of a second. It never trains, has one thread and has not touched
a GPU; where that cannot be had, it ends, and whoever asked starts a process from nothing.

What an order says of its process is as if it had been started for it: environment, current folder,
standard streams, session. Its generators are seeded afresh. It imports nothing of the user's before
it is forked: what a user has changed in between, the next process sees.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import select
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workers.beginning import call_it, die_with_parent, preload
from workers.forked import NUMBER
from workers.forks import adopt

UNFIT = 3  # exit status: what was imported must not be forked
_MOST_DESCRIPTORS = 16


def main(control: socket.socket) -> None:
    """The life of the server, and of all that is forked from it."""
    before = dict(os.environ)
    preload()
    if not _can_fork():
        sys.exit(UNFIT)
    order = _serve(control)  # comes back in a process that was forked
    _become(order, before)
    importlib.import_module(f"workers.{order.entry}").main(*order.arguments)


def _can_fork() -> bool:
    """Whether this process has one thread, has found no GPU, and can tell how forks end."""
    from mmengine.device import get_device

    if get_device() != "cpu":
        return False
    trial = os.fork()  # libraries that know of forks end their threads here, and need them no more
    if trial == 0:
        os._exit(0)
    try:
        os.close(os.pidfd_open(trial))
    except OSError:  # an old kernel
        return False
    finally:
        os.waitpid(trial, 0)
    return len(os.listdir("/proc/self/task")) == 1


@dataclass(frozen=True)
class _Order:
    """What a process that was just forked is to be. Its descriptors, each as in `forks.Order`."""

    entry: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    control: socket.socket
    folder: int
    stdin: int
    output: int


@dataclass
class _Child:
    """A process that was forked, until nobody asks for it any more.

    Attributes:
        end: descriptor that can be read when it has ended.
        channel: tells who asked for it that it has; closed by them when they let go of it.
        ended: whether they were told.
    """

    pid: int
    end: int
    channel: socket.socket
    ended: bool = False


class _Children:
    """All of them, and what has to be waited for."""

    def __init__(self, control: socket.socket) -> None:
        self.poller = select.poll()
        self.poller.register(control, select.POLLIN)
        self._of: dict[int, _Child] = {}

    def __len__(self) -> int:
        return len(self._of)

    def add(self, child: _Child) -> None:
        self._of[child.end] = self._of[child.channel.fileno()] = child
        self.poller.register(child.end, select.POLLIN)
        self.poller.register(child.channel, select.POLLRDHUP)

    def look(self, descriptor: int) -> None:
        """Does what a descriptor that is ready asks for."""
        child = self._of[descriptor]
        if descriptor == child.end:
            self._tell(child)
        else:
            self._let_go(child)

    def close(self) -> None:
        """In a process that was forked: they are its siblings now."""
        for descriptor, child in self._of.items():
            if descriptor == child.end:
                os.close(child.end)
            else:
                child.channel.close()

    def _tell(self, child: _Child) -> None:
        found = os.waitid(os.P_PIDFD, child.end, os.WEXITED | os.WNOWAIT)
        if found is None:
            return
        exited = found.si_code == os.CLD_EXITED
        code = found.si_status if exited else -found.si_status
        child.ended = True
        self.poller.unregister(child.end)
        if child.channel.fileno() == -1:
            self._bury(child)
        else:
            with contextlib.suppress(OSError):
                child.channel.sendall(NUMBER.pack(code))

    def _let_go(self, child: _Child) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)  # it may not lead its group yet
        self.poller.unregister(child.channel)
        del self._of[child.channel.fileno()]
        child.channel.close()
        if child.ended:
            self._bury(child)

    def _bury(self, child: _Child) -> None:
        del self._of[child.end]
        os.close(child.end)
        os.waitpid(child.pid, 0)


def _serve(control: socket.socket) -> _Order:
    """Forks what it is asked for; returns in what was forked. Ends this process when nobody is
    left who could ask, and none of those that it has forked."""
    children = _Children(control)
    asked = True
    while asked or children:
        for descriptor, _ in children.poller.poll():
            if descriptor != control.fileno():
                children.look(descriptor)
                continue
            note, descriptors, _, _ = socket.recv_fds(
                control, 1, _MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
            if not note:
                asked = False
                children.poller.unregister(control)
                continue
            order = _forked(descriptors, children)
            if order is not None:
                children.close()
                control.close()
                return order
    sys.exit(0)


def _forked(descriptors: list[int], children: _Children) -> _Order | None:
    """Forks; what it is to be in the process that was forked, None in this one."""
    paper, channel, *rest = descriptors
    server = os.getpid()
    with socket.socket(fileno=channel) as told:
        try:
            pid = os.fork()
        except OSError:
            pid = -1  # its channel closes without a word
        if pid == 0:
            die_with_parent(server)
            os.setsid()
            told.sendall(NUMBER.pack(os.getpid()))
        elif pid > 0:
            children.add(_Child(pid, os.pidfd_open(pid), told.dup()))
    if pid != 0:
        for each in (paper, *rest):
            os.close(each)
        return None
    control, folder, stdin, output, *others = rest
    with os.fdopen(paper, "rb") as file:
        file.seek(0)
        said: dict[str, Any] = json.load(file)
    return _Order(
        said["entry"],
        (*said["arguments"], *map(str, others)),
        said["environment"],
        socket.socket(fileno=control),
        folder,
        stdin,
        output,
    )


def _become(order: _Order, before: Mapping[str, str]) -> None:
    """Makes of a copy of the server what it was asked for.

    Args:
        before: the environment that the server was started with.
    """
    import numpy as np
    import torch

    for source, target in ((order.stdin, 0), (order.output, 1), (order.output, 2)):
        os.dup2(source, target)
    os.fchdir(order.folder)
    for each in (order.stdin, order.output, order.folder):
        os.close(each)
    found = {**order.environment}
    for name, value in os.environ.items():  # what the libraries set for themselves
        if before.get(name) != value and found.get(name) == before.get(name):
            found[name] = value
    os.environ.clear()
    os.environ.update(found)
    random.seed()
    np.random.seed()
    torch.seed()
    importlib.invalidate_caches()
    adopt(order.control)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[2]))
    call_it("lossforge-forks")
    main(socket.socket(fileno=int(sys.argv[1])))
