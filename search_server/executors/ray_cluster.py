"""The Ray that this process is connected to: getting there, and finding out that it is gone.

A process whose Ray is gone learns it late or never. What was handed out fails only if this node's
own raylet has died; without Ray's global control service calls hang, until Ray ends the process
after 60 s. So nothing here waits for Ray without a limit.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from search_server.errors import ClusterGone, JobError
from search_server.executors.choice import CLUSTER, LOCAL
from search_server.ray_token import TOKEN_CURE
from workers import lossforge_home

LOOK_AGAIN = 10.0  # seconds that an answer of Ray's is believed
SILENCE = 45.0  # seconds without an answer that mean that there will be none; Ray ends us after 60
KNOCK_SECONDS = 10.0
LAST_LOOK = 1.0  # seconds; this process may have been held for a while, and not Ray

T = TypeVar("T")


def connected(address: str, cpus: int | None) -> Any:
    """The ray module, connected; its own output stays out of the user's sight.

    Args:
        address, cpus: of `RayExecutor`.

    Raises:
        JobError: there is no cluster, or it wants a token.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray  # takes a second, and reads the environment

    if address not in (LOCAL, CLUSTER):
        _knock(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        options |= {"num_cpus": cpus, "include_dashboard": False}
    # Ray puts the folder it is started from first on its workers' import path: a user's own
    # `losses/` there would be taken for ours.
    neutral = lossforge_home()
    neutral.mkdir(parents=True, exist_ok=True)
    try:
        with _inside(neutral):
            ray.init(address=address, **options)
    except ray.exceptions.AuthenticationError as error:
        raise JobError(TOKEN_CURE) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        if "oken" in str(error):  # some paths of Ray tell of a missing token in a RuntimeError
            raise JobError(TOKEN_CURE) from error
        raise JobError(f"no Ray cluster at {address}: {error}") from error
    return ray


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Another current folder for a while, for good if the one before has gone meanwhile: of several
    nodes on one machine each unpacks what was submitted, in the place of what is there."""
    before = folder
    with contextlib.suppress(FileNotFoundError):
        before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.chdir(before)


def _knock(address: str) -> None:
    """Raise a JobError if nobody listens at HOST:PORT; Ray would try again for many minutes."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        socket.create_connection((parts.hostname or "", parts.port or 0), KNOCK_SECONDS).close()
    except (OSError, ValueError) as error:
        raise JobError(f"no Ray cluster at {address}: {error}") from error


def check_answers(ray: Any) -> None:
    """Return if the cluster can still run a task, one that needs no room.

    Raises:
        ClusterGone: it cannot.
    """
    nothing = ray.remote(num_cpus=0, max_retries=0)(lambda: None)
    try:
        ray.get(nothing.remote(), timeout=SILENCE)
    except ray.exceptions.RayError as error:
        raise ClusterGone(f"it runs no task any more ({type(error).__name__})") from error


def asked(ask: Callable[[], T]) -> Future[T]:
    """The answer to a question that may never get one; nothing waits for its thread."""
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return answer


class Watch(Generic[T]):
    """What Ray answers to a question, which is asked again now and then.

    Args:
        ask: the question; later errors of it count as no answer.
        silence: seconds without an answer after which Ray is gone.
    """

    def __init__(self, ask: Callable[[], T], silence: float = SILENCE) -> None:
        self._ask = ask
        self._silence = silence
        self._question: Future[T] | None = None
        self._known: tuple[T] | None = None
        self._again = float("-inf")  # when to ask next; as all times, of `time.monotonic`
        self._since: float | None = None  # when the question without an answer was asked first

    def forget(self) -> None:
        """Have the next answer be a new one."""
        self._known, self._again = None, float("-inf")
        self._question = self._since = None

    def __call__(self) -> T:
        """The newest answer; none but the first is waited for.

        Raises:
            ClusterGone: Ray does not answer.
        """
        if self._question is None and time.monotonic() >= self._again:
            self._question = asked(self._ask)
            self._since = self._since or time.monotonic()
        self._look(0.0 if self._known else self._silence)
        if self._since is not None and time.monotonic() - self._since >= self._silence:
            self._look(LAST_LOOK)
            if self._since is not None:
                raise ClusterGone(f"it has not answered for {self._silence:g} s")
        assert self._known is not None
        return self._known[0]

    def _look(self, seconds: float) -> None:
        """Take the answer if one is due and comes in time."""
        if self._question is None:
            return
        wait([self._question], seconds)
        if not self._question.done():
            return
        answer, self._question = self._question, None
        if answer.exception() is None:
            self._known = (answer.result(),)
            self._again, self._since = time.monotonic() + LOOK_AGAIN, None
        elif self._known is None:
            answer.result()
