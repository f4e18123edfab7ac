"""Trials for which memory does not suffice: told apart, tried again with the smaller batch."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from workers import TrialSpec, TrialSpecError, run_trial, train
from workers.modules import MODULES
from workers.out_of_memory import ran_out

MakeSpec = Callable[..., TrialSpec]
MEMORY = Path("/sys/fs/cgroup/memory")

# A hook that asks the real allocators for more than there is, as soon as a batch has two images.
GREEDY = """
import torch
from mmengine.hooks import Hook
from mmdet.registry import HOOKS

@HOOKS.register_module()
class Greedy(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if len(data_batch['inputs']) > 1:
            {greed}
"""
TOO_MUCH = "torch.empty(2**46)"  # more than any address space
HOARD = "self.hoard = [b'x' * 2**24 for _ in range(200)]"  # 3.3 GB, touched


@pytest.fixture
def greedy(
    make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], TrialSpec]:
    monkeypatch.setenv(MODULES, str(tmp_path))

    def make(greed: str) -> TrialSpec:
        name = f"greedy_{len(greed)}"
        (tmp_path / f"{name}.py").write_text(GREEDY.format(greed=greed))
        spec = make_spec(batch_size=2)
        lines = (
            f"\ncustom_imports = dict(imports=['{name}'], allow_failed_imports=False)\n"
            "custom_hooks = [dict(type='Greedy')]\n"
        )
        return replace(spec, detector=spec.detector + lines)

    return make


@pytest.mark.slow
def test_it_is_a_status_of_its_own(greedy: Callable[[str], TrialSpec]) -> None:
    result = run_trial(greedy(TOO_MUCH))
    assert (result.status, result.fitness, result.batch_size) == ("out_of_memory", None, None)
    assert "allocate memory" in result.reason
    assert "before_train_iter" in result.log


@pytest.mark.slow
def test_the_smaller_batch_is_trained_and_said(greedy: Callable[[str], TrialSpec]) -> None:
    spec = greedy(TOO_MUCH)
    result = run_trial(replace(spec, smaller_batch=1))
    assert (result.status, result.batch_size) == ("done", 1)
    plain = train(replace(spec, batch_size=1, detector=_without_hook(spec.detector)))
    assert (result.fitness, result.curves) == (plain.fitness, plain.curves)


@pytest.mark.slow
def test_who_has_room_is_trained_with_the_first_batch(make_spec: MakeSpec) -> None:
    spec = make_spec(batch_size=2)
    results = [run_trial(each) for each in (spec, replace(spec, smaller_batch=1))]
    assert [each.batch_size for each in results] == [None, None]
    assert results[0].curves == results[1].curves


def test_the_smaller_batch_is_no_part_of_a_trials_name(make_spec: MakeSpec) -> None:
    spec = make_spec(batch_size=2)
    assert replace(spec, smaller_batch=1).key == spec.key
    assert TrialSpec.from_json(replace(spec, smaller_batch=1).to_json()).smaller_batch == 1
    for wrong in (0, 2, 1.0, True):
        with pytest.raises(TrialSpecError, match="smaller_batch"):
            replace(spec, smaller_batch=wrong)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_says_so(error: Exception, expected: bool) -> None:
    assert ran_out(error) is expected
    wrapper = KeyError("a hook failed")
    wrapper.__cause__ = error
    assert ran_out(wrapper) is expected


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group of 2 GB, where this user may make one."""
    group = MEMORY / f"lossforge-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(2 * 2**30))
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        pytest.skip(f"no control group with a limit can be made here: {error}")
    yield group
    group.rmdir()


@pytest.mark.slow
def test_killed_by_the_kernel(
    greedy: Callable[[str], TrialSpec], small_group: Path, tmp_path: Path
) -> None:
    """The whole supervision runs inside of the limit, as it does in a container."""
    spec = replace(greedy(HOARD), smaller_batch=1)
    program = tmp_path / "supervise.py"
    program.write_text(
        textwrap.dedent(
            f"""
            import json, os, sys
            open({str(small_group / "cgroup.procs")!r}, "w").write(str(os.getpid()))
            from workers import TrialSpec, run_trial
            spec = TrialSpec.from_json(json.load(sys.stdin))
            for each in (spec, TrialSpec.from_json({{**spec.to_json(), "smaller_batch": None}})):
                result = run_trial(each)
                print(result.status, result.batch_size, result.reason)
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(program)],
        input=json.dumps(spec.to_json()),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    kind, killed = done.stdout.splitlines()
    assert kind.strip() == "done 1"
    assert killed == (
        "out_of_memory None the trial's process was killed by SIGKILL, for the machine is out of "
        "memory"
    )


def _without_hook(detector: str) -> str:
    return detector.replace("custom_hooks = [dict(type='Greedy')]", "").replace(
        "custom_imports", "unused_imports"
    )
