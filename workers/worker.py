"""The supervisor of trials: gives them to a child process, one at a time, and answers for it."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from typing import Self

from workers.errors import TrialCancelled, WorkersError
from workers.process import LimitReached, Process, ProcessDied, child_environment
from workers.result import LOST, Status, TrialResult, package_versions
from workers.spec import TrialSpec
from workers.warm_start import time_limit

RECYCLE_AFTER = 50  # trials; bounds what a leak in any library can take
_ATTEMPTS = 2


class TrialWorker:
    """Owns one reusable child process and trains specs in it.

    The process starts with the first trial, forked from a server that has imported torch and mmdet
    (`forks`; seconds for the first that this process starts), and is used again.
    It is replaced after `recycle_after` trials, after a trial that failed, ran out of time or was
    cancelled, when CUDA_VISIBLE_DEVICES, the thread count or the device changes, and when another
    detector comes along whose config imports modules of its own.

    `run` may be called from any thread and waits for a run that is under way; `cancel` and `close`
    act from any thread at once. When this process ends, however it ends, the child ends too.

    Args:
        recycle_after: trials per process, at least 1.
    """

    def __init__(self, recycle_after: int = RECYCLE_AFTER) -> None:
        if recycle_after < 1:
            raise ValueError(f"recycle_after = {recycle_after}; at least 1")
        self._recycle_after = recycle_after
        self._process: Process | None = None
        self._environment: tuple[object, ...] = ()
        self._turn = threading.Lock()  # held by the run that is under way
        self._state = threading.Lock()  # guards the three below
        self._running = False
        self._cancelled = False
        self._closed = False

    def run(self, spec: TrialSpec) -> TrialResult:
        """Trains `spec` in the child process; what happens to that process is part of the result.

        A process that dies is replaced and the trial tried once more; a second death is "failed".
        At the time limit the process and all it started get SIGKILL: "timeout". A trial for which
        memory does not suffice, by an exception or because the kernel killed its process, is
        tried once more with `spec.smaller_batch` if there is one, in a fresh process.

        Raises:
            TrialCancelled: `cancel` or `close` was called meanwhile.
            WorkersError: the worker is closed.
        """
        with self._turn:
            with self._state:
                if self._closed:
                    raise WorkersError("the trial worker is closed")
                self._running, self._cancelled = True, False
            try:
                return self._supervise(spec)
            except BaseException:
                self._drop()
                raise
            finally:
                with self._state:
                    self._running = False

    def warm_up(self, threads: int = 1, device: str = "auto") -> None:
        """Starts the process ahead of the first trial and waits until it is ready.

        Raises:
            WorkersError: it could not be started; the message ends with its last line of output.
        """
        with self._turn:
            try:
                self._ready_process(threads, device, None, None)
            except ProcessDied as error:
                end, log = self._bury()
                raise WorkersError(f"the process for trials {end}: {_last_line(log)}") from error

    def cancel(self) -> None:
        """Ends the trial that is running; does nothing when there is none."""
        with self._state:
            if self._running:
                self._cancelled = True
                process = self._process
                if process is not None:
                    process.signal_kill()

    def close(self) -> None:
        """Ends the trial that is running and the process; the worker takes no further trial."""
        with self._state:
            self._closed = True
        self.cancel()
        with self._turn:
            self._drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _supervise(self, spec: TrialSpec) -> TrialResult:
        began = time.monotonic()
        limit = time_limit(spec)
        deadline = None if limit is None else began + limit
        result = self._attempts(spec, began, limit, deadline)
        if result.status != "out_of_memory" or spec.smaller_batch is None:
            return result
        smaller = replace(spec, batch_size=spec.smaller_batch, smaller_batch=None)
        again = self._attempts(smaller, began, limit, deadline)
        return replace(again, batch_size=smaller.batch_size)

    def _attempts(
        self, spec: TrialSpec, began: float, limit: float | None, deadline: float | None
    ) -> TrialResult:
        """One batch size; a process that dies is replaced, once, unless memory is the cause."""
        end, log = "", ""
        for _ in range(_ATTEMPTS):
            try:
                starting = self._ready_process(spec.threads, spec.device, spec.detector, deadline)
                assert self._process is not None
                answer = self._process.train(spec, deadline, self._is_cancelled)
            except LimitReached:
                self._drop()
                reason = f"stopped at the time limit of {limit:g} s"
                return _no_answer(spec, "timeout", reason, time.monotonic() - began)
            except ProcessDied:
                starved = self._process is not None and self._process.starved()
                end, log = self._bury()
                if self._is_cancelled():
                    raise TrialCancelled("the trial was cancelled") from None
                if starved:
                    reason = f"the trial's process {end}"
                    return _no_answer(spec, "out_of_memory", reason, time.monotonic() - began, log)
                continue
            result = TrialResult.from_json(answer)
            if result.status in LOST or self._process.trials >= self._recycle_after:
                self._drop()
            seconds = {**result.seconds, "total": time.monotonic() - began}
            if starting is not None:
                seconds["start"] = starting
            return replace(result, seconds=seconds)
        line = _last_line(log)
        reason = f"the trial's process {end}, twice" + (f": {line}" if line else "")
        return _no_answer(spec, "failed", reason, time.monotonic() - began, log)

    def _ready_process(
        self, threads: int, device: str, detector: str | None, deadline: float | None
    ) -> float | None:
        """Has a fitting process ready; the seconds its start took, None when it was there."""
        environment = (os.environ.get("CUDA_VISIBLE_DEVICES"), threads, device == "cpu")
        process = self._process
        if process is not None and (
            environment != self._environment or _clash(process.detector, detector)
        ):
            self._drop()
        if self._process is not None:
            return None
        began = time.monotonic()
        fresh = Process(child_environment(threads, device))
        with self._state:
            self._process, self._environment = fresh, environment
        fresh.wait_ready(deadline, self._is_cancelled)
        return time.monotonic() - began

    def _is_cancelled(self) -> bool:
        with self._state:
            return self._cancelled

    def _drop(self) -> None:
        """Ends the process, if there is one."""
        with self._state:
            process, self._process = self._process, None
        if process is not None:
            process.close()

    def _bury(self) -> tuple[str, str]:
        """Ends a process that has died; how it died, and the tail of its output."""
        process = self._process
        words = ("did not start", "") if process is None else process.last_words()
        self._drop()
        return words


def _clash(before: str | None, now: str | None) -> bool:
    """Whether two detectors must not share a process: modules of their own stay registered."""
    if before is None or now is None or before == now:
        return False
    return "custom_imports" in before or "custom_imports" in now


def _no_answer(
    spec: TrialSpec, status: Status, reason: str, total: float, log: str = ""
) -> TrialResult:
    return TrialResult(
        status=status,
        reason=reason,
        fitness=None,
        seed=spec.seed,
        steps=spec.steps,
        seconds={"total": total},
        versions=dict(package_versions()),
        log=log,
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
