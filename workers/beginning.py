"""What every process that trains does first."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15


def die_with_parent(parent: int) -> None:
    """Has the kernel kill this process when its parent ends, even inside a C call.

    Linux only; elsewhere the end of the socket does it, as soon as Python runs again.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(0)


def call_it(name: str) -> None:
    """Has lists of processes call this one so, where the system can; at most 15 characters."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def preload() -> None:
    """Imports what takes seconds, so that trials need not."""
    import losses  # noqa: F401, I001 - before mmdet: installs the stand-in for mmcv's ops
    import mmdet.datasets
    import mmdet.engine
    import mmdet.evaluation
    import mmdet.models  # noqa: F401

    import workers.training  # noqa: F401

    gc.collect()
    gc.freeze()  # what was imported stays; later collections need not look at it
