"""The process that trains: ``python -P -m workers.child SOCKET PARENT``, started by `Process`.

It imports torch and mmdet once, says ``ready``, then trains one trial per message until its
parent closes the socket or dies. Standard output and error belong to a log file, so that nothing a
trial prints can reach the messages.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import queue
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from workers.gpu_share import hold_to_share
from workers.modules import add_user_modules
from workers.wire import Inbox, pack, receive

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Has the kernel kill this process when its parent ends, even inside a C call.

    Linux only; elsewhere the end of the socket does it, as soon as Python runs again.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(0)


def _listen(connection: socket.socket, orders: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Passes messages on; ends the process when the parent is gone, whatever it is doing."""
    inbox = Inbox()
    while (message := receive(connection, inbox)) is not None:
        orders.put(message)
    os._exit(0)


def _preload() -> None:
    """Imports what takes seconds, so that trials need not."""
    import losses  # noqa: F401, I001 - before mmdet: installs the stand-in for mmcv's ops
    import mmdet.datasets
    import mmdet.engine
    import mmdet.evaluation
    import mmdet.models  # noqa: F401

    import workers.training  # noqa: F401


def serve(connection: socket.socket) -> None:
    """Trains what arrives, one trial after the other; never returns."""
    orders: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, orders), daemon=True).start()
    _preload()
    hold_to_share()
    from workers.spec import TrialSpec
    from workers.training import train

    gc.collect()
    gc.freeze()  # what was imported stays; later collections need not look at it
    connection.sendall(pack({"kind": "ready"}))
    while True:
        order = orders.get()
        os.ftruncate(sys.stdout.fileno(), 0)
        result = train(TrialSpec.from_json(order["spec"]), Path(order["work_dir"]))
        connection.sendall(pack({"kind": "result", "result": result.to_json()}))


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are the socket's file descriptor and the parent's process id."""
    descriptor, parent = map(int, arguments)
    die_with_parent(parent)
    os.set_inheritable(descriptor, False)
    faulthandler.enable()
    add_user_modules()
    serve(socket.socket(fileno=descriptor))


if __name__ == "__main__":
    main(sys.argv[1:])
