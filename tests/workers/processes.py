"""Which processes of Lossforge's own there are (Linux's /proc)."""

import os
from pathlib import Path


def ancestors(pid: int) -> list[int]:
    """A process and those above it."""
    found = []
    while pid > 1:
        found.append(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return found


def called(name: str, under: int | None = None) -> set[int]:
    """The living processes of a name, as `lossforge-trial`, below this one or another."""
    top = os.getpid() if under is None else under
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            pid = int(entry.name)
            named = (entry / "comm").read_text().strip() == name
            if named and top in ancestors(pid) and alive(pid):
                found.add(pid)
        except OSError:  # it has just ended
            continue
    return found


def alive(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
