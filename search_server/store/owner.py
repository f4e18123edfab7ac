"""Which process runs a job: a mark in the job's row, so that two never run one job at a time.

The mark can only be checked on the host that made it. On another host, or when the process is
gone, the job counts as abandoned and may be taken over.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path


def mark() -> str:
    """This process, as `host pid start`; `start` tells it from a later one with the same pid."""
    return f"{socket.gethostname()} {os.getpid()} {_started(os.getpid())}"


def alive(owner: str | None) -> bool:
    """Whether the marked process is another one, on this host, and still there."""
    if owner is None or owner == mark():
        return False
    host, pid, started = owner.rsplit(" ", 2)
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it exists and belongs to somebody else
    return _started(int(pid)) == started


def elsewhere(owner: str) -> bool:
    """Whether the marked process is, or was, on another host: nothing can be known of it here."""
    return owner.rsplit(" ", 2)[0] != socket.gethostname()


def pid_of(owner: str) -> str:
    """The process id in a mark, for messages."""
    return owner.rsplit(" ", 2)[1]


def _started(pid: int) -> str:
    """Start time of a process in kernel ticks; `-` where /proc does not tell, or for a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "-"
    return "-" if fields[0] == "Z" else fields[19]
