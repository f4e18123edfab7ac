"""A trial in several processes of this machine, seen from the one that starts and watches them.

Each process is a `workers.rank`. Nobody who waits for a dead one in the middle of an exchange is
waited for in turn: as soon as one has ended badly, or alone, the others are killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from workers.errors import WorkersError
from workers.first_cause import death, first_cause, named
from workers.forks import start
from workers.isolation import LogTail
from workers.oom_killer import kernel_kills
from workers.pausing import forget
from workers.result import LOST, Status, TrialResult
from workers.spec import TrialSpec
from workers.starting import Order, Started
from workers.warm_start import provide_weights

ORDER = "order.json"
ENDS: tuple[Status, ...] = ("done", "paused")
_LOOK_EVERY = 0.05  # seconds
_FEW = 1.0  # seconds in which the others may end as badly as one has
_GRACE = 60.0  # seconds in which the others come to their end, once one has
_ATTEMPTS = 2


class _Unusable(Exception):  # noqa: N818 - an event
    """What was kept of the training at a pause could not be used by all."""


def answer_file(folder: Path, rank: int) -> Path:
    """Where a process leaves its result."""
    return folder / f"answer-{rank}.json"


def output_file(folder: Path, rank: int) -> Path:
    """What a process prints."""
    return folder / f"output-{rank}.txt"


def train_together(spec: TrialSpec, log: LogTail) -> TrialResult:
    """`train` in `spec.processes` processes; the result is that of the first, unless another one
    has ended otherwise.

    To be called inside `isolated`: a warm start that is missing is trained in this process, alone.

    Raises:
        WorkersError: by the training of the warm start, or a checkpoint cannot be removed.
    """
    began = time.monotonic()
    if spec.warm_start is not None:
        provide_weights(spec)
    for _ in range(_ATTEMPTS):
        try:
            return _once(spec, began, log)
        except _Unusable:
            forget(spec)
    raise WorkersError("what was kept at a pause cannot be used, nor removed")


def _once(spec: TrialSpec, began: float, log: LogTail) -> TrialResult:
    with TemporaryDirectory(prefix="lossforge-") as name:
        folder = Path(name)
        (folder / ORDER).write_text(json.dumps(spec.to_json()), encoding="utf-8")
        kills = kernel_kills()
        with _started(folder, spec.processes) as processes:
            answers, dead = _answers(folder, processes)
        if any(each.get("unusable") for each in answers.values()):
            raise _Unusable
        told = {rank: TrialResult.from_json(each) for rank, each in answers.items()}
        alone = [each for each in told.values() if each.status == "diverged"]
        sound = [each for each in told.values() if each.status not in LOST]
        if alone or len(sound) == spec.processes:
            return alone[0] if alone else told[0]
        found = _broken(spec, folder, told, dead, log)
        if -signal.SIGKILL in dead.values() and kernel_kills() > kills:
            found = replace(found, status="out_of_memory")
        return replace(found, seconds={"total": time.monotonic() - began})


def _broken(
    spec: TrialSpec,
    folder: Path,
    told: Mapping[int, TrialResult],
    dead: Mapping[int, int],
    log: LogTail,
) -> TrialResult:
    """What is left of a training of which not all processes came to the end.

    Args:
        told: by rank, what the processes answered.
        dead: by rank, how those ended that did not answer.
    """
    lost = {rank: answer_file(folder, rank) for rank, each in told.items() if each.status in LOST}
    if not lost and not dead:
        late = named(min(set(range(spec.processes)) - set(told)), spec.processes)
        reason = f"{late} had not come to its end {_GRACE:g} s after the others"
        return TrialResult("failed", reason, None, spec.seed, spec.steps, log=log.text)
    rank = first_cause(lost, dead)
    if rank in dead:
        return _buried(spec, folder, rank, dead[rank], log)
    return replace(told[rank], reason=f"{named(rank, spec.processes)}: {told[rank].reason}")


def _buried(spec: TrialSpec, folder: Path, rank: int, code: int, log: LogTail) -> TrialResult:
    """What is left of a training that ended with a process which died without a word."""
    output = output_file(folder, rank).read_text(encoding="utf-8", errors="replace").strip()
    log.write(output)
    reason = death(rank, spec.processes, code, output)
    return TrialResult("failed", reason, None, spec.seed, spec.steps, log=log.text)


@contextmanager
def _started(folder: Path, number: int) -> Iterator[list[Started]]:
    """The processes, which are gone when the block ends: told to end, or killed."""
    processes: list[Started] = []
    inputs: list[int] = []
    try:
        for rank in range(number):
            theirs, ours = os.pipe()
            inputs.append(ours)
            with open(theirs, "rb") as its, output_file(folder, rank).open("wb") as output:
                order = Order(
                    entry="rank",
                    arguments=(str(folder), str(rank)),
                    environment=dict(os.environ),
                    stdin=its.fileno(),
                    output=output.fileno(),
                    own_group=False,  # killed with this one's, or by the fork server after its end
                )
                processes.append(start(order))
        yield processes
    finally:
        for ours in inputs:
            os.close(ours)  # who has answered waits for that
        for rank, process in enumerate(processes):
            if not answer_file(folder, rank).exists():
                process.kill()
        for process in processes:
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_GRACE)
            process.release()


def _answers(
    folder: Path, processes: Sequence[Started]
) -> tuple[dict[int, dict[str, Any]], dict[int, int]]:
    """By rank, what the processes answered, and how those ended that died without an answer.
    Returns when no other answer can come."""
    found: dict[int, dict[str, Any]] = {}
    dead: dict[int, int] = {}
    deadline = float("inf")
    while len(found) + len(dead) < len(processes) and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY)
        for rank, process in enumerate(processes):
            code, path = process.poll(), answer_file(folder, rank)  # in this order
            if rank not in found and path.exists():
                found[rank] = json.loads(path.read_text(encoding="utf-8"))
            elif rank not in found and code is not None:
                dead[rank] = code
        lonely = dead or any(each.get("status") not in ENDS for each in found.values())
        if found or dead:
            wait = _FEW if lonely else _GRACE  # the others wait for one that will not come
            deadline = min(deadline, time.monotonic() + wait)
    return found, dead
