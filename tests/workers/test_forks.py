"""Processes that train are forked from a server, and are as if they had been started for it."""

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from processes import alive, called

from workers import TrialSpec, TrialWorker, run_trial
from workers.forks import SWITCH
from workers.modules import MODULES

MakeSpec = Callable[..., TrialSpec]
OddSpec = Callable[[str], TrialSpec]
ODD = "odd_one_out"

# What a process finds around it, written to a file that its environment names.
LOOKS = """
import json, os, random, signal, threading
import numpy, torch

found = {
    "python": random.random(),
    "numpy": numpy.random.random(),
    "torch": torch.initial_seed(),
    "environment": dict(os.environ),
    "folder": os.getcwd(),
    "group": os.getpgid(0) == os.getsid(0) == os.getpid(),
    "threads": torch.get_num_threads(),
    "open": sorted(
        os.path.basename(os.readlink(f"/proc/self/fd/{each}").split(":")[0])
        for each in os.listdir("/proc/self/fd")
        if os.path.islink(f"/proc/self/fd/{each}")
    ),
    "mask": [int(each) for each in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    "started": [each.name for each in threading.enumerate()],
    "umask": os.umask(0),
}
os.umask(found["umask"])
with open(os.environ["LOSSFORGE_TEST_FILE"], "w") as file:
    json.dump(found, file)
"""


def forks() -> set[int]:
    """The fork servers of this process."""
    return called("lossforge-forks")


@pytest.fixture
def odd_spec(make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OddSpec:
    """A detector with a module of the user's, `ODD`, of which the source is given."""
    monkeypatch.setenv(MODULES, str(tmp_path))

    def make(source: str) -> TrialSpec:
        (tmp_path / f"{ODD}.py").write_text(source)
        spec = make_spec(steps=1)
        line = f"\ncustom_imports = dict(imports=['{ODD}'], allow_failed_imports=False)\n"
        return replace(spec, detector=spec.detector + line)

    return make


@pytest.mark.slow
def test_a_process_is_as_if_it_had_been_started_for_its_trial(
    odd_spec: OddSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = odd_spec(LOOKS)
    seen: dict[str, dict[str, Any]] = {}
    fitness = set()
    for name, switch in (("first", "on"), ("second", "on"), ("anew", "off")):
        monkeypatch.setenv(SWITCH, switch)
        monkeypatch.setenv("LOSSFORGE_TEST_FILE", str(tmp_path / name))
        monkeypatch.setenv("SOMETHING_ELSE", name)
        (tmp_path / f"folder of {name}").mkdir()
        monkeypatch.chdir(tmp_path / f"folder of {name}")
        result = run_trial(spec)
        assert result.status == "done", result.reason
        fitness.add(result.fitness)
        seen[name] = json.loads((tmp_path / name).read_text())
    assert len(fitness) == 1
    for kind in ("python", "numpy", "torch"):
        assert len({each[kind] for each in seen.values()}) == 3
    varying = {SWITCH, "LOSSFORGE_TEST_FILE", "SOMETHING_ELSE", "PWD"}
    for name, each in seen.items():
        assert each["environment"]["SOMETHING_ELSE"] == name
        assert each["folder"] == str(tmp_path / f"folder of {name}")
        assert each["group"]
        control = ["socket"] if name != "anew" else []  # to ask its server for processes
        assert each["open"] == sorted([*seen["anew"]["open"], *control])
        for same in ("threads", "mask", "started", "umask"):
            assert each[same] == seen["anew"][same], same
        assert {
            variable: value
            for variable, value in each["environment"].items()
            if variable not in varying
        } == {
            variable: value
            for variable, value in seen["anew"]["environment"].items()
            if variable not in varying
        }


@pytest.mark.slow
def test_a_module_that_changes_is_read_again(odd_spec: OddSpec, tmp_path: Path) -> None:
    told = tmp_path / "told"
    for word in ("before", "afterwards"):
        assert run_trial(odd_spec(f"open({str(told)!r}, 'a').write('{word} ')")).status == "done"
    assert told.read_text() == "before afterwards "


@pytest.mark.slow
def test_a_server_that_dies_is_replaced(make_spec: MakeSpec) -> None:
    spec = make_spec(steps=1)
    with TrialWorker() as worker, TrialWorker() as other:
        fitness = worker.run(spec).fitness
        assert other.run(spec).fitness == fitness
        (server,) = forks()
        children = called("lossforge-trial")
        assert len(children) == 2
        os.kill(server, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while any(map(alive, children)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert worker.run(spec).fitness == fitness
        assert other.run(spec).fitness == fitness
        assert len(forks() - {server}) == 1


@pytest.mark.slow
def test_another_kind_of_process_takes_another_server(make_spec: MakeSpec) -> None:
    spec = make_spec(steps=1)
    with TrialWorker() as one, TrialWorker() as two:
        assert one.run(spec).status == "done"
        assert two.run(replace(spec, threads=2)).status == "done"
        assert len(forks()) == 2  # the first one stays as long as what it has forked
        assert "start" not in one.run(spec).seconds
    deadline = time.monotonic() + 10
    while len(forks()) != 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["a thread", "no torch"])
def test_without_a_server_processes_start_from_nothing(
    make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    if what == "a thread":  # which a fork would lose
        (tmp_path / "sitecustomize.py").write_text(
            "import threading, time\n"
            "threading.Thread(target=time.sleep, args=(10_000,), daemon=True).start()\n"
        )
    else:
        (tmp_path / "torch.py").write_text("raise ImportError('a torch that is broken')\n")
    result = run_trial(make_spec(steps=1))
    assert not [
        each for each in forks() if str(tmp_path) in Path(f"/proc/{each}/environ").read_text()
    ]
    if what == "a thread":
        assert result.status == "done"
    else:
        assert result.reason == (
            "the trial's process ended with exit status 1, twice: ImportError: "
            "a torch that is broken"
        )
