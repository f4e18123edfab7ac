"""The supervisor: limits that kill, lost processes, cancellation, and what is left behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from processes import alive, called

from workers import (
    TrialCancelled,
    TrialSpec,
    TrialWorker,
    WorkersError,
    run_trial,
    train,
)
from workers.forks import SWITCH
from workers.modules import MODULES

MakeSpec = Callable[..., TrialSpec]
OddSpec = Callable[[str, str], TrialSpec]


def running(*words: str) -> set[int]:
    """Processes of this machine whose command line has all of `words` (Linux's /proc)."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            if set(words) <= set(entry.read_text().split("\0")):
                found.add(int(entry.parent.name))
    return found


def trials(under: int | None = None) -> set[int]:
    """Processes for trials that this process has started, or another."""
    return called("lossforge-trial", under)


def work_folders(home: Path) -> list[str]:
    return [path.name for path in (home / "work").iterdir() if path.is_dir()]


@pytest.fixture
def odd_spec(make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OddSpec:
    """A detector whose own module (`custom_imports`) does odd things."""
    monkeypatch.setenv(MODULES, str(tmp_path))

    def make(name: str, source: str) -> TrialSpec:
        (tmp_path / f"{name}.py").write_text(source)
        spec = make_spec()
        line = f"\ncustom_imports = dict(imports=['{name}'], allow_failed_imports=False)\n"
        return replace(spec, detector=spec.detector + line)

    return make


SLEEPS = "import time\ntime.sleep(10_000)\n"
HOLDS_THE_GIL = "import ctypes\nctypes.PyDLL(None).sleep(10_000)\n"
IGNORES_SIGNALS = (
    "import signal, subprocess, time\n"
    "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):\n"
    "    signal.signal(number, signal.SIG_IGN)\n"
    "subprocess.Popen(['sleep', '12345'])\n"
    "time.sleep(10_000)\n"
)


@pytest.mark.slow
@pytest.mark.parametrize("source", [HOLDS_THE_GIL, IGNORES_SIGNALS])
def test_the_limit_kills_whatever_the_trial_does(
    odd_spec: OddSpec, own_home: Path, source: str
) -> None:
    spec = odd_spec("hangs", source)
    with TrialWorker() as worker:
        worker.warm_up(device="cpu")
        began = time.monotonic()
        result = worker.run(replace(spec, time_limit=2.0))
        took = time.monotonic() - began
        assert (result.status, result.reason) == ("timeout", "stopped at the time limit of 2 s")
        assert result.fitness is None
        assert 2.0 <= took < 4.0
        assert trials() == set()
    assert running("sleep", "12345") == set()
    assert work_folders(own_home) == []


def test_the_limit_covers_the_start_of_the_process(
    make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SWITCH, "off")  # a fork begins at once
    began = time.monotonic()
    result = run_trial(make_spec(time_limit=0.5))
    assert result.status == "timeout"
    assert time.monotonic() - began < 5.0


@pytest.mark.slow
def test_a_process_that_dies_twice_is_a_failed_trial(odd_spec: OddSpec, tmp_path: Path) -> None:
    log = tmp_path / "attempts"
    spec = odd_spec(
        "dies",
        "import os, signal\n"
        f"open({str(log)!r}, 'a').write('x')\n"
        "os.write(2, b'the disk is full\\n')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n",
    )
    result = run_trial(spec)
    assert result.status == "failed"
    assert result.reason == ("the trial's process was killed by SIGKILL, twice: the disk is full")
    assert log.read_text() == "xx"


@pytest.mark.slow
def test_a_process_that_dies_once_is_replaced(odd_spec: OddSpec, tmp_path: Path) -> None:
    spec = odd_spec(
        "dies_once",
        "import os, pathlib\n"
        f"mark = pathlib.Path({str(tmp_path / 'mark')!r})\n"
        "if not mark.exists():\n"
        "    mark.touch()\n"
        "    print('no more', flush=True)\n"
        "    os._exit(7)\n",
    )
    result = run_trial(spec)
    assert result.status == "done"
    plain = train(replace(spec, detector=spec.detector.replace("'dies_once'", "'json'")))
    assert (result.fitness, result.curves) == (plain.fitness, plain.curves)


@pytest.mark.slow
def test_cancel_ends_the_trial_at_once_and_the_worker_goes_on(
    odd_spec: OddSpec, make_spec: MakeSpec, own_home: Path
) -> None:
    spec = odd_spec("sleeps", SLEEPS)
    with TrialWorker() as worker:
        worker.warm_up(device="cpu")
        worker.cancel()  # nothing runs: nothing happens
        asked: list[float] = []

        def cancel() -> None:
            asked.append(time.monotonic())
            worker.cancel()

        timer = threading.Timer(1.0, cancel)
        timer.start()
        with pytest.raises(TrialCancelled):
            worker.run(spec)
        assert time.monotonic() - asked[0] < 2.0
        assert worker.run(make_spec()).status == "done"
        # Closing, too, ends a trial that runs, from any thread.
        threading.Timer(1.0, worker.close).start()
        with pytest.raises(TrialCancelled):
            worker.run(make_spec(steps=100_000))
    assert trials() == set()
    assert work_folders(own_home) == []
    with pytest.raises(WorkersError, match="closed"):
        worker.run(make_spec())


@pytest.mark.slow
def test_processes_are_replaced_after_a_number_of_trials_and_with_the_environment(
    make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(steps=1, device="auto")
    with TrialWorker(recycle_after=2) as worker:
        started = ["start" in worker.run(spec).seconds for _ in range(3)]
        assert started == [True, False, True]
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert "start" in worker.run(spec).seconds


@pytest.mark.slow
def test_the_child_dies_with_its_parent(odd_spec: OddSpec, own_home: Path, tmp_path: Path) -> None:
    spec_file = tmp_path / "spec.json"
    mark = tmp_path / "child-is-busy"
    spec = odd_spec("hangs_on", f"open({str(mark)!r}, 'w').close()\n{HOLDS_THE_GIL}")
    spec_file.write_text(json.dumps(spec.to_json()))
    script = (
        "import json, sys, threading\n"
        "from workers import TrialSpec, run_trial\n"
        "spec = TrialSpec.from_json(json.load(open(sys.argv[1])))\n"
        "thread = threading.Thread(target=run_trial, args=(spec,))\n"
        "thread.start()\n"
        "thread.join()\n"
    )
    parent = subprocess.Popen([sys.executable, "-P", "-c", script, str(spec_file)])
    deadline = time.monotonic() + 60
    while not mark.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    started = trials(parent.pid) | called("lossforge-forks", parent.pid)
    assert len(trials(parent.pid)) == 1
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 5
    while any(map(alive, started)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # The work folder is left behind; the next one that is made removes it.
    assert len(work_folders(own_home)) == 1
    run_trial(replace(spec, time_limit=0.1))
    assert work_folders(own_home) == []


@pytest.mark.slow
def test_neither_prints_nor_folders_of_the_user_disturb_a_trial(
    odd_spec: OddSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    spec = odd_spec(
        "prints",
        "import os, sys\n"
        "print('hello from a trial')\n"
        "for descriptor in (1, 2):\n"
        '    os.write(descriptor, b\'{"kind": "result"}\' * 10_000)\n',
    )
    stands_in = tmp_path / "where the user stands"
    for name in ("losses", "workers", "primitives"):
        (stands_in / name).mkdir(parents=True)
        (stands_in / name / "__init__.py").write_text("raise RuntimeError('not this one')\n")
    monkeypatch.chdir(stands_in)
    monkeypatch.delenv(MODULES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert run_trial(spec).status == "done"
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As on a terminal; a shell starts what it puts into the background deaf to SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_leaves_no_process(make_spec: MakeSpec, own_home: Path) -> None:
    timer = threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run_trial(make_spec(steps=10_000))
    assert trials() == set()
    assert work_folders(own_home) == []
