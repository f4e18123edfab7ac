"""What goes on at a service beside its readers: streams that are held, searches that write."""

import asyncio
import secrets
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, cycle
from typing import Self

from large_store import BBOX, CLS, definition
from sqlalchemy import func, select

from search_server.store import CandidateRecord, Store
from search_server.store.models import Candidate
from workers.result import TrialResult

PATIENCE = 900.0  # seconds; a machine may have other work


@dataclass
class Streams:
    """Event streams that are held, in a thread."""

    place: tuple[str, int]
    tokens: Sequence[str]
    jobs: Sequence[str]
    wanted: int
    held: int = 0
    events: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()))
        self._thread.start()
        until = time.monotonic() + PATIENCE
        while self.held < self.wanted and time.monotonic() < until:
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    async def _all(self) -> None:
        tasks = [asyncio.create_task(self._one(number)) for number in range(self.wanted)]
        while not self._ended.is_set():
            await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, number: int) -> None:
        reader, writer = await asyncio.open_connection(*self.place)
        path = f"/api/v1/jobs/{self.jobs[number % len(self.jobs)]}/events"
        token = self.tokens[number % len(self.tokens)]
        lines = (f"GET {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {token}")
        writer.write("".join(f"{line}\r\n" for line in (*lines, "")).encode())
        counted = False
        try:
            while line := await reader.readline():
                if line.startswith(b"data:"):
                    self.events += 1
                    if not counted:
                        counted = True
                        self.held += 1
        finally:
            if counted and not self._ended.is_set():
                self.held -= 1
            writer.close()


@contextmanager
def searching(url: str, jobs: Sequence[str], a_second: float) -> Iterator[list[int]]:
    """Running searches write so many results a second; the list's length is how many."""
    ended, written = threading.Event(), list[int]()

    def work() -> None:
        with Store.open(url) as store:
            for job, number in zip(cycle(jobs), count(), strict=False):
                if ended.wait(1 / a_second):
                    return
                _result(store, job, number)
                written.append(number)

    thread = threading.Thread(target=work)
    if a_second > 0:
        thread.start()
    try:
        yield written
    finally:
        ended.set()
        if a_second > 0:
            thread.join()


def _result(store: Store, job: str, number: int) -> None:
    """One more candidate, trained."""
    with store.reading() as session:
        found = select(func.max(Candidate.index)).where(Candidate.job_id == job)
        index = int(session.scalar(found) or 0) + 1
    name = f"{job}:{index}:{secrets.token_hex(4)}"
    record = CandidateRecord(
        *(index, "mutation", (1, 2), definition(name, index), name),
        name=None, cls_text=CLS.format(n=index), bbox_text=BBOX.format(n=index), size=20,
        stage="proxy",
    )  # fmt: skip
    store.add_candidate(job, record, {("mutation", "accepted"): 1, ("mutation", "flat"): 90})
    values = [0.2 + (number * 37 % 100) / 1000, 0.25]
    for seed, value in enumerate(values):
        store.start_trial(job, index, "proxy", seed, "k")
        curves = {"step": [float(step) for step in range(0, 400, 10)], "loss": [0.5] * 40}
        result = TrialResult("done", "", value, seed, 400, curves=curves)
        store.finish_trial(job, index, "proxy", seed, result)
    store.update_candidate(job, index, state="done", fitness=statistics.fmean(values))
