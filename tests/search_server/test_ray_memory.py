"""A Ray that is short of memory ends workers; their trials get the smaller batch, then give up."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from search_server.executors.ray import RayExecutor
from search_server.funnel.outcomes import TrialKey
from search_server.spec import Resources
from workers import Split, TrialResult, TrialSpec

HANG = "import time\ntime.sleep(10_000)\n"


@pytest.fixture(scope="module")
def short_of_memory() -> Iterator[RayExecutor]:
    """Its memory monitor takes a node that uses any memory at all for one that has none left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # a token would be written to the user's home
        patch.setenv("RAY_memory_usage_threshold", "0.001")
        patch.setenv("RAY_memory_monitor_refresh_ms", "200")
        patch.delenv("RAY_ADDRESS", raising=False)
        with RayExecutor(Resources(cpus=1), cpus=1) as executor:
            yield executor


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("smaller", [None, 2])
def test_a_trial_ends_as_out_of_memory(short_of_memory: RayExecutor, smaller: int | None) -> None:
    nowhere = Split("/nowhere.json", "/nowhere")
    spec = TrialSpec(HANG, {"name": "a", "cls": None}, nowhere, nowhere, 1, 3, 4, ("x",))
    short_of_memory.submit(TrialKey(0, "proxy", 1), replace(spec, smaller_batch=smaller))
    ended: list[tuple[TrialKey, TrialResult]] = []
    deadline = time.monotonic() + 150
    while not ended and time.monotonic() < deadline:
        ended = short_of_memory.wait(1.0)
    ((key, result),) = ended
    assert key == TrialKey(0, "proxy", 1)
    assert (result.status, result.batch_size) == ("out_of_memory", smaller)
    assert "memory" in result.reason
