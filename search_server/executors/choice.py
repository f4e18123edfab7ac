"""Which executor a run gets."""

from __future__ import annotations

import os

from search_server.errors import JobError
from search_server.executors.base import Executor
from search_server.executors.inline import InlineExecutor
from search_server.spec import Resources

LOCAL, CLUSTER, WITHOUT_RAY = "local", "auto", "none"


def open_executor(
    resources: Resources, address: str | None = None, slots: int | None = None
) -> Executor:
    """The executor for a run; close it.

    Args:
        address: of a Ray cluster; `auto`: the one of this process; `local`: a Ray started on this
            machine; `none`: processes of this machine, without Ray. None: the cluster that
            RAY_ADDRESS names, as it does in a submitted job, else `local`.
        slots: trials at once on this machine; None: as many as its cores have room for.

    Raises:
        JobError: see `chosen_address` and `RayExecutor`.
    """
    address = chosen_address(address, slots)
    if address == WITHOUT_RAY:
        return InlineExecutor(slots or local_slots(resources))
    from search_server.executors.ray import RayExecutor

    cpus = None if slots is None else max(1, round(slots * resources.cpus))
    return RayExecutor(resources, address, cpus)


def chosen_address(address: str | None, slots: int | None) -> str:
    """Where the trials are to run; arguments: see `open_executor`.

    Raises:
        JobError: `slots` is given, but for a cluster, which has its own resources.
    """
    if address is None:
        address = CLUSTER if os.environ.get("RAY_ADDRESS") else LOCAL
    if slots is not None and address not in (LOCAL, WITHOUT_RAY):
        where = "the Ray cluster of RAY_ADDRESS" if address == CLUSTER else f"Ray at {address}"
        raise JobError(
            f"--slots is for this machine; on {where} its resources and `resources` in the spec "
            "decide. Leave --slots out, or give --address local"
        )
    return address


def local_slots(resources: Resources) -> int:
    """Trials that this machine's cores have room for, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, int((cores or 1) // resources.cpus))
