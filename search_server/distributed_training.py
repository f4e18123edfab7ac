"""One training in several processes of this machine: torchrun's launcher starts and watches them,
mmengine's `pytorch` launcher joins them, and `MMDistributedDataParallel` averages their gradients.
`training_process` is what each of them does.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from search_server.errors import JobError
from search_server.full_training import Say, Trained, Training, full_config
from search_server.training_process import ANSWER, ORDER, error_file, output_file
from workers.first_cause import death, first_cause, named

_HERE = "127.0.0.1"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@dataclass(frozen=True)
class Processes:
    """How many processes train together, and where.

    Attributes:
        number: at least 1.
        cpu: on the CPU, by gloo; else each on a GPU of its own, by NCCL.
        threads: CPU threads of each; None: the cores dealt out, or OMP_NUM_THREADS where it is set.

    Raises:
        JobError: there are fewer GPUs.
    """

    number: int
    cpu: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not self.cpu and self.number > found:
            raise JobError(
                f"--gpus {self.number}: torch finds {found} here; --cpu-processes {self.number} "
                "trains in as many processes on the CPU"
            )


def train_in_processes(
    training: Training, work_dir: Path, processes: Processes, say: Say
) -> Trained:
    """`train_fully` in several processes; the batch size is that of each process.

    The process of rank 0 speaks and saves. When one process ends badly the others are ended.
    Ctrl-C and SIGTERM end them all; when this process is killed, they end by themselves.

    Raises:
        JobError: a process broke off; says which, and why.
    """
    full_config(training)  # what is wrong with it is said before any process starts
    with tempfile.TemporaryDirectory(prefix="lossforge-") as name:
        folder = Path(name)
        order = {
            "training": training.to_json(),
            "work_dir": str(work_dir),
            "cpu": processes.cpu,
            "parent": os.getpid(),
        }
        (folder / ORDER).write_text(json.dumps(order), encoding="utf-8")
        say(f"{processes.number} processes are starting")
        _launch(folder, processes)
        answer = json.loads((folder / ANSWER).read_text(encoding="utf-8"))
    return Trained.from_json(answer)


def _launch(folder: Path, processes: Processes) -> None:
    """Starts the processes and waits for them."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes.number,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint=f"{_HERE}:0",
        local_addr=_HERE,
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder / "torchrun")),
    )
    command = ["-P", "-m", "search_server.training_process", str(folder)]
    try:
        with _surroundings(processes):
            elastic_launch(config, sys.executable)(*command)
    except SignalException as event:
        if event.sigval == signal.SIGINT:
            raise KeyboardInterrupt from event
        raise SystemExit(128 + int(event.sigval)) from event
    except ChildFailedError as error:
        raise JobError(_why(folder, processes.number, error.failures)) from error


@contextlib.contextmanager
def _surroundings(processes: Processes) -> Iterator[None]:
    """The environment that the processes inherit; torchrun's handlers and logs stay inside."""
    before = dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    disabled = logging.root.manager.disable
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    share = max(1, (cores or 1) // processes.number)
    if processes.threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(processes.threads)
    else:
        os.environ.setdefault("OMP_NUM_THREADS", str(share))
    if processes.cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        if sys.platform == "linux":  # a machine's own name need not lead anywhere
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)
        os.environ.clear()
        os.environ.update(before)
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _why(folder: Path, number: int, failures: Mapping[int, Any]) -> str:
    """What ended a training, for people.

    Args:
        failures: torchrun's, by rank, of the processes that ended badly before it ended the rest.
    """
    told = {rank: error_file(folder, rank) for rank in range(number)}
    told = {rank: file for rank, file in told.items() if file.is_file()}
    dead = {rank: int(each.exitcode) for rank, each in failures.items() if rank not in told}
    rank = first_cause(told, dead)
    if rank in told:
        return f"{named(rank, number)}: {told[rank].read_text(encoding='utf-8')}"
    output = output_file(folder, rank)
    said = output.read_text(encoding="utf-8", errors="replace") if output.is_file() else ""
    return death(rank, number, dead[rank], said)
