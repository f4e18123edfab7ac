"""The process that trains, started by `Process`: forked from a `fork_server`, or by
``python -P -m workers.child SOCKET PARENT``.

It imports torch and mmdet if it has not got them, says ``ready``, then trains one trial per message
until its supervisor closes the socket or dies. Standard output and error belong to a log file, so
that nothing a trial prints can reach the messages.
"""

from __future__ import annotations

import faulthandler
import os
import queue
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from workers.beginning import call_it, die_with_parent, preload
from workers.gpu_share import hold_to_share
from workers.modules import add_user_modules
from workers.wire import Inbox, pack, receive


def _listen(connection: socket.socket, orders: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Passes messages on; ends the process when the parent is gone, whatever it is doing."""
    inbox = Inbox()
    while (message := receive(connection, inbox)) is not None:
        orders.put(message)
    os._exit(0)


def serve(connection: socket.socket) -> None:
    """Trains what arrives, one trial after the other; never returns."""
    orders: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, orders), daemon=True).start()
    preload()
    hold_to_share()
    from workers.spec import TrialSpec
    from workers.training import train

    connection.sendall(pack({"kind": "ready"}))
    while True:
        order = orders.get()
        os.ftruncate(sys.stdout.fileno(), 0)
        result = train(TrialSpec.from_json(order["spec"]), Path(order["work_dir"]))
        connection.sendall(pack({"kind": "result", "result": result.to_json()}))


def main(descriptor: str) -> None:
    """Entry point.

    Args:
        descriptor: of the socket.
    """
    call_it("lossforge-trial")
    os.set_inheritable(int(descriptor), False)
    faulthandler.enable()
    add_user_modules()
    serve(socket.socket(fileno=int(descriptor)))


if __name__ == "__main__":
    die_with_parent(int(sys.argv[2]))
    main(sys.argv[1])
