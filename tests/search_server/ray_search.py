"""The search of `fake_search` on a Ray cluster: `python ray_search.py STORE JOB ADDRESS`.

A trial signs the list that $FAULTS_SIGNED names, with its key, its process, its node and what time
its clock says, and takes $FAULTS_SLEEP seconds.
"""

import importlib.util
import os
import select
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search_server.controller import run_job
from search_server.errors import ClusterGone
from search_server.executors.ray import RayExecutor
from search_server.spec import Resources
from search_server.store import Store


def slow_trial(spec_json: Mapping[str, Any], sent: Sequence[Any] = ()) -> dict[str, Any]:
    """The closed formula of `fake_search`, a while after its process has signed the list."""
    import ray

    from workers import TrialSpec

    spec = TrialSpec.from_json(spec_json)
    node = ray.get_runtime_context().get_node_id()
    with Path(os.environ["FAULTS_SIGNED"]).open("a") as file:
        file.write(f"{spec.key} {os.getpid()} {node} {time.time():.0f}\n")
    found = importlib.util.spec_from_file_location("fake_search", os.environ["FAULTS_PROGRAM"])
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    # `time.sleep` asks for a moment to wake up at, which libfaketime puts wrong as well.
    select.select([], [], [], float(os.environ["FAULTS_SLEEP"]))
    result: dict[str, Any] = module.fake_trial(spec).to_json()
    return result


def search(url: str, job: str, address: str) -> str:
    """Runs the job; its state, or that Ray is gone."""
    with (
        Store.open(url) as store,
        RayExecutor(Resources(cpus=1), address, trial=slow_trial) as executor,
    ):
        try:
            return run_job(store, job, executor, trace=1)
        except ClusterGone as error:
            return str(error)


if __name__ == "__main__":
    print(search(*sys.argv[1:]))
