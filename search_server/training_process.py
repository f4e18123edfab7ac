"""One process of a training: ``python -P -m search_server.training_process FOLDER``, by torchrun.

The folder holds the order; into it go the answer, or what went wrong.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

ORDER, ANSWER = "training.json", "trained.json"


def error_file(folder: Path, rank: int) -> Path:
    """Where a process says in one line what went wrong."""
    return folder / f"error-{rank}.txt"


def output_file(folder: Path, rank: int) -> Path:
    """What a silent process prints."""
    return folder / f"output-{rank}.txt"


def main(folder: Path) -> int:
    """The life of the process; returns its exit status."""
    order = json.loads((folder / ORDER).read_text(encoding="utf-8"))
    rank = int(os.environ["RANK"])
    threading.Thread(target=_watch, args=(int(order["parent"]),), daemon=True).start()
    _mute(output_file(folder, rank), speaks=rank == 0)

    import torch.distributed

    from losses import LossesError
    from search_server.errors import SearchError
    from search_server.full_training import Training, train_fully
    from workers import WorkersError
    from workers.data import DataError
    from workers.detector import one_line
    from workers.joining import gathering, join, join_on_cpu

    training = Training.from_json(order["training"])
    try:
        if training.cpu:
            torch.distributed.init_process_group("gloo")  # mmengine's way in asks for a GPU
        trained = train_fully(
            training,
            Path(order["work_dir"]),
            _speak if rank == 0 else _be_silent,
            join_on_cpu if training.cpu else join,
            [gathering(folder / "gathered")],
        )
    except (SearchError, LossesError, WorkersError, DataError) as error:
        return _tell(folder, rank, str(error))
    except Exception as error:
        return _tell(folder, rank, one_line(error))
    if rank == 0:
        (folder / ANSWER).write_text(json.dumps(trained.to_json()), encoding="utf-8")
    torch.distributed.destroy_process_group()
    return 0


def leave(code: int) -> NoReturn:
    """Ends this process without taking the interpreter down piece by piece.

    gloo's threads may still hold Python objects; one that wants to let go of them while the
    interpreter is being taken down aborts the process, after all its work was done.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _speak(text: str) -> None:
    print(" ".join(text.split()), file=sys.stderr, flush=True)


def _be_silent(text: str) -> None:
    del text


def _tell(folder: Path, rank: int, text: str) -> int:
    error_file(folder, rank).write_text(text, encoding="utf-8")
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
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # torchrun passes a Ctrl-C on; no traceback
    leave(main(Path(sys.argv[1])))
