"""Where trials run: in processes of this machine, or on Ray; both behind one protocol."""

from __future__ import annotations

from search_server.executors.base import Executor
from search_server.executors.choice import local_slots, open_executor
from search_server.executors.inline import InlineExecutor

__all__ = ["Executor", "InlineExecutor", "local_slots", "open_executor"]
