"""Trials as Ray tasks, on a real Ray."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workers import TrialResult, TrialSpec, train
from workers.ray_task import remote_trial

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def started_ray(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import ray

    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # a token would be written to the user's home
    ray.init(address="local", num_cpus=1, num_gpus=0, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_a_task_gives_what_a_process_here_gives(
    started_ray: None, make_spec: Callable[..., TrialSpec]
) -> None:
    import ray

    task = ray.remote(num_cpus=1, max_retries=1, retry_exceptions=False)(remote_trial)
    specs = [make_spec(steps=3, seed=1), make_spec(steps=3, seed=2)]
    results = [
        TrialResult.from_json(ray.get(task.remote(spec.to_json()), timeout=120)) for spec in specs
    ]
    assert [result.status for result in results] == ["done", "done"]
    assert ["start" in result.seconds for result in results] == [True, False]
    here = train(specs[0])
    assert (results[0].fitness, results[0].curves) == (here.fitness, here.curves)
