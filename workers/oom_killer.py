"""The kernel's count of processes that it killed for want of memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def kernel_kills() -> int:
    """How many processes the kernel has killed for want of memory in this process's cgroup: that
    of its container, job or session.

    Only its growth means something. 0 where it cannot be read, as on other systems than Linux.
    """
    for path in _counters():
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return 0


def _counters() -> Iterator[Path]:
    """Where the count can be, of both versions of cgroups; inside a container the paths of
    /proc may be the host's, and its own cgroup is the root of what is mounted."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, name = _CGROUPS, "memory.events"
        elif "memory" in controllers.split(","):
            root, name = _CGROUPS / controllers, "memory.oom_control"
        else:
            continue
        yield root / path.lstrip("/") / name
        yield root / name
