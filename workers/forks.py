"""Starts the processes that train: forked from a server that has imported torch, or from nothing.

A start from nothing imports torch and mmdet, seconds of CPU time. Where it can be, a process is
forked from a `fork_server` instead: one for each process that starts others, made with the first.
On Linux alone, and only for trainings that see no GPU: mmengine asks for one while it is imported,
and what CUDA has set up does not survive a fork. ``LOSSFORGE_FORK_SERVER=off`` has every process
start from nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from workers.forked import Forked
from workers.starting import Order, Spawned, Started, spawn

SWITCH = "LOSSFORGE_FORK_SERVER"  # environment: "off" has every process start from nothing

# What Python and the libraries read while they are loaded. Begins of names; where one differs, it
# takes another server.
_READ_AT_LOAD = (
    *("PYTHON", "LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_", "OMP_", "GOMP_", "MKL_", "OPENBLAS_"),
    *("ATEN_", "TORCH_", "PYTORCH_", "ONEDNN_", "DNNL_", "OPENCV_", "MPL", "NUMEXPR_"),
)
_READ_AT_START = ("Uid", "Gid", "Umask", "Cpus_allowed")  # of /proc/self/status
_SECONDS_TO_END = 5.0  # of a process that got SIGKILL
_GPUS = ("nvidia[0-9]*", "kfd", "dxg")  # what a GPU is called in /dev


def start(order: Order) -> Started:
    """Starts a process, which ends when this one ends, however it ends.

    Returns at once, whether or not the process is there already. The descriptors may be closed.

    Raises:
        OSError: it cannot be started.
    """
    if _can_be_forked(order.environment):
        forked = _forks(os.getpid()).start(order)
        if forked is not None:
            return forked
    return Spawned(order)


def _can_be_forked(environment: dict[str, str]) -> bool:
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return False
    if environment.get(SWITCH, "").strip().lower() == "off":
        return False
    if environment.get("CUDA_VISIBLE_DEVICES") == "":
        return True
    return not any(any(Path("/dev").glob(name)) for name in _GPUS)


@dataclass
class _Server:
    """A fork server that this process may ask.

    Attributes:
        kind: what it has in common with the processes that it can fork.
        control: where orders go.
        process: None: it belongs to another process, which forked this one from it.
    """

    kind: tuple[object, ...]
    control: socket.socket
    process: subprocess.Popen[bytes] | None

    def end(self) -> None:
        """Ends it with all that it has forked; the kernel would do it, a moment after our end."""
        self.control.close()
        if self.process is not None:
            self.process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_SECONDS_TO_END)

    def failed(self) -> bool:
        """Whether it has ended by itself: it cannot import what it has to, or must not fork."""
        if self.process is None:
            return False
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1.0)  # its sockets close a moment before
        return (self.process.returncode or 0) > 0


@dataclass
class _Forks:
    """The fork server of a process, as long as one will do: it is replaced when it has died, and
    when processes of another kind are wanted. The old one ends with the last that it forked."""

    server: _Server | None = None
    unfit: set[tuple[object, ...]] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, order: Order) -> Started | None:
        """None: it has to be started from nothing."""
        kind = _kind(order.environment)
        with self.lock:
            for _ in range(2):
                if kind in self.unfit:
                    return None
                server = self._server(kind, order.environment)
                try:
                    return self._ask(server, order)
                except BlockingIOError:  # it has more orders than it can hold
                    return None
                except OSError:
                    self.lost(server)
        return None

    def lost(self, server: _Server) -> None:
        if server.failed():
            self.unfit.add(server.kind)
        if self.server is server:
            server.control.close()
            self.server = None

    def close(self, pid: int) -> None:
        """Ends the server, in the process whose it is."""
        if self.server is not None and os.getpid() == pid:
            self.server.end()

    def adopt(self, control: socket.socket) -> None:
        """In a process that was forked: has it ask the server of the process that asked for it."""
        self.server = _Server(_kind(dict(os.environ)), control, None)

    def _server(self, kind: tuple[object, ...], environment: dict[str, str]) -> _Server:
        if self.server is not None and self.server.kind != kind:
            self.server.control.close()
            self.server = None
        if self.server is None:
            self.server = _started_server(kind, environment)
        return self.server

    def _ask(self, server: _Server, order: Order) -> Started:
        """Raises OSError where the server is gone, or cannot take the order."""
        ours, theirs = socket.socketpair()
        content = {
            "entry": order.entry,
            "arguments": order.arguments,
            "environment": order.environment,
        }
        with contextlib.ExitStack() as files:
            files.enter_context(theirs)
            paper = os.memfd_create("order")
            files.callback(os.close, paper)
            os.write(paper, json.dumps(content).encode())
            here = os.open(".", os.O_PATH | os.O_DIRECTORY)
            files.callback(os.close, here)
            given = [order.stdin, order.output, *order.descriptors]
            sent = [paper, theirs.fileno(), server.control.fileno(), here, *given]
            try:
                socket.send_fds(server.control, [b"."], sent, socket.MSG_DONTWAIT)
            except OSError:
                ours.close()
                raise
        return Forked(ours, _Instead(self, server, order))


class _Instead:
    """Starts from nothing what a server did not fork. Holds copies of the descriptors till then."""

    def __init__(self, forks: _Forks, server: _Server, order: Order) -> None:
        self._forks, self._server, self._order = forks, server, order
        self._copies = [os.dup(each) for each in (order.stdin, order.output, *order.descriptors)]

    def __call__(self) -> Started:
        with self._forks.lock:
            self._forks.lost(self._server)
        stdin, output, *descriptors = self._copies
        order = self._order
        return Spawned(replace(order, stdin=stdin, output=output, descriptors=tuple(descriptors)))

    def __del__(self) -> None:
        for each in self._copies:
            os.close(each)


def adopt(control: socket.socket) -> None:
    """See `_Forks.adopt`."""
    _forks(os.getpid()).adopt(control)


@cache
def _forks(pid: int) -> _Forks:
    """Per process id: a fork of this process has to have a server that dies with it."""
    forks = _Forks()
    atexit.register(forks.close, pid)
    return forks


def _started_server(kind: tuple[object, ...], environment: dict[str, str]) -> _Server:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-P", "-m", "workers.fork_server"]
        process = spawn(
            [*command, str(theirs.fileno()), str(os.getpid())],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
    return _Server(kind, ours, process)


def _kind(environment: dict[str, str]) -> tuple[object, ...]:
    """What a process takes from its start and keeps: of two that differ in it, neither can be
    forked from the server of the other."""
    read = {name: text for name, text in environment.items() if name.startswith(_READ_AT_LOAD)}
    status = Path("/proc/self/status").read_text().splitlines()
    return (
        tuple(sorted(read.items())),
        tuple(line for line in status if line.startswith(_READ_AT_START)),
        Path("/proc/self/limits").read_text(),
        Path("/proc/self/cgroup").read_text(),
        os.getpriority(os.PRIO_PROCESS, 0),
    )
