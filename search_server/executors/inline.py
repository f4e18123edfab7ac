"""Trials in processes of this machine, without Ray: one thread per slot, each with its worker."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from search_server.funnel.stages import TrialKey
from workers import TrialCancelled, TrialResult, TrialSpec, TrialWorker, run_trial

Run = Callable[[TrialSpec], TrialResult]
_Ended = tuple[int, TrialKey, TrialResult]


class InlineExecutor:
    """Runs trials in `slots` threads; each owns a `TrialWorker`, a child process that is reused.

    Args:
        slots: trials at once, at least 1.
        run: what runs a trial, in the thread itself; None: a supervised child process.
    """

    def __init__(self, slots: int = 1, run: Run | None = None) -> None:
        if slots < 1:
            raise ValueError(f"slots is {slots}; at least 1 is needed")
        self._run = run
        self._slots = slots
        self._round = 0  # a cancelled trial that still ends belongs to an earlier round
        self._todo: queue.SimpleQueue[tuple[int, TrialKey, TrialSpec] | None] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[_Ended] = queue.SimpleQueue()
        self._workers: list[TrialWorker] = []
        self._threads: list[threading.Thread] = []

    def submit(self, key: TrialKey, spec: TrialSpec) -> None:
        """See `Executor.submit`; the threads start with the first trials."""
        if len(self._threads) < self._slots:
            self._start_thread()
        self._todo.put((self._round, key, spec))

    def wait(self, timeout: float) -> list[tuple[TrialKey, TrialResult]]:
        """See `Executor.wait`."""
        ended: list[tuple[TrialKey, TrialResult]] = []
        while True:
            try:
                if ended or timeout <= 0:
                    number, key, result = self._ended.get_nowait()
                else:
                    number, key, result = self._ended.get(timeout=timeout)
            except queue.Empty:
                return ended
            if number == self._round:
                ended.append((key, result))

    def slots(self) -> int:
        """The number of threads."""
        return self._slots

    def lacks(self) -> str:
        """Nothing: threads take whatever comes."""
        return ""

    def cancel_all(self) -> None:
        """See `Executor.cancel_all`; kills the processes of running trials."""
        self._round += 1
        while True:
            try:
                self._todo.get_nowait()
            except queue.Empty:
                break
        for worker in self._workers:
            worker.cancel()

    def close(self) -> None:
        """See `Executor.close`."""
        self.cancel_all()
        for _ in self._threads:
            self._todo.put(None)
        for worker in self._workers:
            worker.close()
        for thread in self._threads:
            thread.join(timeout=10)
        self._threads.clear()
        self._workers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start_thread(self) -> None:
        run = self._run
        if run is None:
            worker = TrialWorker()
            self._workers.append(worker)
            run = _supervised(worker)
        thread = threading.Thread(target=self._serve, args=(run,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self, run: Run) -> None:
        """A thread's life: take a trial, run it, put its result down; None ends it."""
        while (task := self._todo.get()) is not None:
            number, key, spec = task
            try:
                result = run(spec)
            except TrialCancelled:
                continue
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                result = TrialResult("failed", reason, None, spec.seed, spec.steps)
            self._ended.put((number, key, result))


def _supervised(worker: TrialWorker) -> Run:
    return lambda spec: run_trial(spec, worker)
