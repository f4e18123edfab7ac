"""One training in several processes of this machine: torchrun's launcher starts and watches them,
mmengine's `pytorch` launcher joins them, and `MMDistributedDataParallel` averages their gradients.

``python -P -m search_server.distributed_training FOLDER`` is one of the processes.
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
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from losses import LossesError
from search_server.errors import JobError, SearchError
from search_server.full_training import Say, Trained, Training, full_config, train_fully
from workers import WorkersError
from workers.data import DataError
from workers.detector import one_line

_ORDER, _ANSWER = "training.json", "trained.json"
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
        (folder / _ORDER).write_text(json.dumps(order), encoding="utf-8")
        say(f"{processes.number} processes are starting")
        _launch(folder, processes)
        answer = json.loads((folder / _ANSWER).read_text(encoding="utf-8"))
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
    command = ["-P", "-m", "search_server.distributed_training", str(folder)]
    try:
        with _surroundings(processes):
            elastic_launch(config, sys.executable)(*command)
    except SignalException as event:
        if event.sigval == signal.SIGINT:
            raise KeyboardInterrupt from event
        raise SystemExit(128 + int(event.sigval)) from event
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        raise JobError(_why(folder, processes.number, failure)) from error


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


def _why(folder: Path, number: int, failure: Any) -> str:
    """What ended a training, for people: the first error that a process wrote down, else its end.

    Args:
        failure: torchrun's, of the process that ended first.
    """
    told = sorted(folder.glob("error-*.txt"), key=lambda file: file.stat().st_mtime_ns)
    if told:
        rank = int(told[0].stem.removeprefix("error-"))
        text = told[0].read_text(encoding="utf-8")
    else:
        rank, code = int(failure.local_rank), int(failure.exitcode)
        text = f"it ended with status {code}"
        if code < 0:
            text = f"it was ended by {signal.Signals(-code).name}"
        log = _log(folder, rank)
        lines = log.read_text(errors="replace").split("\n") if log.is_file() else []
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        text += f": {last[:300]}" if last else ""
    return f"process {rank + 1} of {number}: {text}"


def _log(folder: Path, rank: int) -> Path:
    return folder / f"output-{rank}.txt"


def main(folder: Path) -> int:
    """The life of one process, started by torchrun; returns its exit status."""
    order = json.loads((folder / _ORDER).read_text(encoding="utf-8"))
    rank = int(os.environ["RANK"])
    threading.Thread(target=_watch, args=(int(order["parent"]),), daemon=True).start()
    _mute(_log(folder, rank), speaks=rank == 0)
    training = Training.from_json(order["training"])
    try:
        if order["cpu"]:
            torch.distributed.init_process_group("gloo")  # mmengine's way in asks for a GPU
        work_dir, say = Path(order["work_dir"]), _speak if rank == 0 else _be_silent
        adapt, hooks = _Joined(bool(order["cpu"])), [_Gathering(folder / "gathered")]
        trained = train_fully(training, work_dir, say, adapt, hooks)
    except (SearchError, LossesError, WorkersError, DataError) as error:
        return _tell(folder, rank, str(error))
    except Exception as error:
        return _tell(folder, rank, one_line(error))
    if rank == 0:
        (folder / _ANSWER).write_text(json.dumps(trained.to_json()), encoding="utf-8")
    torch.distributed.destroy_process_group()
    return 0


class _Joined:
    """Changes a config so that `Runner` trains with the other processes."""

    def __init__(self, cpu: bool) -> None:
        self._cpu = cpu

    def __call__(self, config: Config) -> None:
        config.launcher = "pytorch"
        if self._cpu:
            wrapper = dict(config.get("model_wrapper_cfg") or {})
            unused = bool(config.get("find_unused_parameters", False))
            wrapper.setdefault("type", "MMDistributedDataParallel")
            wrapper.setdefault("broadcast_buffers", False)
            wrapper.setdefault("find_unused_parameters", unused)
            config.model_wrapper_cfg = {**wrapper, "device_ids": None}


class _Gathering(Hook):
    """Has an evaluation gathered in a folder of ours; mmengine would leave one where it runs."""

    priority = "VERY_HIGH"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def before_val(self, runner: Any) -> None:
        """Names the folder to every metric."""
        for number, metric in enumerate(runner.val_loop.evaluator.metrics):
            if metric.collect_device == "cpu" and metric.collect_dir is None:
                metric.collect_dir = str(self._folder / str(number))


def _speak(text: str) -> None:
    print(" ".join(text.split()), file=sys.stderr, flush=True)


def _be_silent(text: str) -> None:
    del text


def _tell(folder: Path, rank: int, text: str) -> int:
    (folder / f"error-{rank}.txt").write_text(text, encoding="utf-8")
    return 1


def _mute(log: Path, *, speaks: bool) -> None:
    """Standard output is for the answer; what the silent processes print goes to a file."""
    sys.stdout.flush()
    if not speaks:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, 2)
    os.dup2(2, 1)


def _watch(parent: int) -> None:
    """Ends this process when the one that launched it is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
