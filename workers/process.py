"""One child process for trials: started, asked, and killed for real."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
import weakref
from collections.abc import Callable
from typing import Any

from workers.folders import WorkFolder
from workers.forks import start
from workers.oom_killer import kernel_kills
from workers.spec import TrialSpec
from workers.starting import Order, Started
from workers.wire import Inbox, pack

_LOOK_EVERY = 0.5  # seconds between looks at the process's state while waiting for its answer
_REAP_WITHIN = 5.0  # seconds; a process that got SIGKILL takes milliseconds
_LOG = "output.log"


class ProcessDied(Exception):  # noqa: N818 - an event
    """The child process ended without an answer."""


class LimitReached(Exception):  # noqa: N818 - an event
    """The deadline came before the answer."""


class Process:
    """A child in a session and process group of its own, with a socket and a work folder.

    Attributes:
        trials: how many trials it has been given.
        detector: text of the detector it was given last.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self.trials = 0
        self.detector: str | None = None
        self._inbox = Inbox()
        self._ready = False
        self._kills = kernel_kills()
        self._folder = WorkFolder()
        ours, theirs = socket.socketpair()
        self._socket = ours
        with (
            theirs,
            (self._folder.path / _LOG).open("ab") as log,
            open(os.devnull, "rb") as nothing,
        ):
            order = Order(
                "child", (), environment, nothing.fileno(), log.fileno(), (theirs.fileno(),)
            )
            try:
                self._process = start(order)
            except BaseException:
                ours.close()
                self._folder.remove()
                raise
        self._destroy = weakref.finalize(self, _destroy, self._process, ours, self._folder)

    def wait_ready(self, deadline: float | None, cancelled: Callable[[], bool]) -> None:
        """Waits until the process has imported all it needs.

        Args:
            deadline: on the clock of `time.monotonic`.
            cancelled: asked now and then; True ends the waiting with `ProcessDied`.

        Raises:
            ProcessDied, LimitReached
        """
        if not self._ready:
            self._answer(deadline, cancelled)
            self._ready = True

    def train(
        self, spec: TrialSpec, deadline: float | None, cancelled: Callable[[], bool]
    ) -> dict[str, Any]:
        """Has one trial trained; the result as JSON data. Arguments and errors: `wait_ready`."""
        self.trials += 1
        self.detector = spec.detector
        self._kills = kernel_kills()
        work_dir = self._folder.path / "trial"
        order = pack({"kind": "trial", "spec": spec.to_json(), "work_dir": str(work_dir)})
        try:
            self._socket.sendall(order)
        except OSError as error:
            raise ProcessDied from error
        result: dict[str, Any] = self._answer(deadline, cancelled)["result"]
        return result

    def signal_kill(self) -> None:
        """Kills the process and all it started; returns at once. Any thread may call it."""
        self._process.kill()

    def close(self) -> None:
        """Kills the process, waits for its end and removes its work folder."""
        self._destroy()

    def last_words(self) -> tuple[str, str]:
        """How the process ended, for people, and the tail of what it printed."""
        try:
            code = self._process.wait(_REAP_WITHIN)
        except subprocess.TimeoutExpired:
            return "lost its connection", self._log_tail()
        if code >= 0:
            return f"ended with exit status {code}", self._log_tail()
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = ", for the machine is out of memory" if self.starved() else ""
        return f"was killed by {name}{hint}", self._log_tail()

    def starved(self) -> bool:
        """Whether the process, which is dying, was killed by the kernel for want of memory."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_REAP_WITHIN)
        return self._process.poll() == -signal.SIGKILL and kernel_kills() > self._kills

    def _log_tail(self, size: int = 4000) -> str:
        try:
            content = (self._folder.path / _LOG).read_bytes()
        except OSError:
            return ""
        return content[-size:].decode(errors="replace").strip()

    def _answer(self, deadline: float | None, cancelled: Callable[[], bool]) -> dict[str, Any]:
        while (message := self._inbox.pop()) is None:
            wait = _LOOK_EVERY
            if deadline is not None:
                wait = min(wait, deadline - time.monotonic())
                if wait <= 0:
                    raise LimitReached
            if cancelled():
                raise ProcessDied
            # Asked before the socket is read: what a dead process sent is still in the socket.
            dead = self._process.poll() is not None
            if select.select([self._socket], [], [], 0 if dead else wait)[0]:
                dead = not self._receive()
            if dead:
                raise ProcessDied
        return message

    def _receive(self) -> bool:
        try:
            data = self._socket.recv(65536)
        except ConnectionError:
            return False
        self._inbox.feed(data)
        return bool(data)


def child_environment(threads: int, device: str) -> dict[str, str]:
    """The environment of a child process: this one's, with what the trial's numbers need.

    Thread counts are set before torch loads; ``device="cpu"`` hides GPUs; the current folder never
    comes before installed packages; the store's address stays here.
    """
    environment = dict(os.environ)
    environment.pop("LOSSFORGE_STORE", None)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environment[name] = str(threads)
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    environment["PYTHONSAFEPATH"] = "1"
    environment["PYTHONUNBUFFERED"] = "1"
    # glibc asks for huge pages: a tenth of a training's time on a CPU goes into page faults
    environment.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    # cuBLAS reads it when CUDA starts; configs with `deterministic=True` need it.
    environment.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return environment


def _destroy(process: Started, connection: socket.socket, folder: WorkFolder) -> None:
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_REAP_WITHIN)
    process.release()
    connection.close()
    folder.remove()
