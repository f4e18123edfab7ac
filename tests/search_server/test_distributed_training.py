"""Training in several processes: the answer is one, and no end leaves a process behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from losses import LossDefinition, configs_dir
from search_server.config_options import change_config, read_options
from search_server.distributed_training import Processes
from search_server.errors import JobError
from search_server.full_training import Trained, Training, full_config

LONG = 400  # seconds until a test gives up, on a machine that is busy
COMMAND = (sys.executable, "-P", "-m", "search_server.cli", "train")
# A hook in a user's own module: notes the process, then does what the test wants at the first step.
TROUBLE = """
import os, pathlib, signal, time
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class Trouble(Hook):
    def __init__(self, folder, kind):
        self.folder, self.kind = pathlib.Path(folder), kind

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        rank = os.environ["RANK"]
        (self.folder / f"pid-{rank}").write_text(str(os.getpid()))
        if self.kind == "wait":
            time.sleep(300)
        if rank == "1" and self.kind == "raise":
            raise RuntimeError("the second one is out of memory")
        if rank == "1" and self.kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def start(own_home: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts `lossforge train` with two processes on the CPU, in a folder of its own."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "trouble.py").write_text(TROUBLE)
    environment = {
        **os.environ,
        "LOSSFORGE_HOME": str(own_home),
        "PYTHONPATH": str(tmp_path / "modules"),
        "OMP_NUM_THREADS": "1",
    }
    started: list[subprocess.Popen] = []

    def starting(*arguments: object) -> subprocess.Popen:
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments), "--cpu-processes", "2"],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield starting
    for process in started:
        process.kill()
        process.communicate()


def troubled(tmp_path: Path, kind: str) -> list[str]:
    """Arguments that train the digits with the hook above in the config."""
    base = configs_dir() / "detectors" / "digits" / "retinanet.py"
    config = tmp_path / "troubled.py"
    config.write_text(
        f"_base_ = {str(base)!r}\n"
        "custom_imports = dict(imports=['trouble'], allow_failed_imports=False)\n"
        f"custom_hooks = [dict(type='Trouble', folder={str(tmp_path)!r}, kind={kind!r})]\n"
    )
    return [str(config), "--data", "digits", "--steps", "2", "--batch-size", "1"]


def pids(tmp_path: Path, seconds: float = LONG) -> list[int]:
    """The two processes, once they train."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        files = [tmp_path / f"pid-{rank}" for rank in (0, 1)]
        if all(file.is_file() and file.read_text() for file in files):
            return [int(file.read_text()) for file in files]
        time.sleep(0.05)
    raise AssertionError("the processes did not start to train")


def gone(pid: int, seconds: float = 60) -> bool:
    """Whether a process ends in time; a zombie has."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_two_processes_give_one_answer(tmp_path: Path, start) -> None:
    arguments = ("digits/retinanet", "--loss", "focal-giou", "--steps", "2", "--batch-size", "1")
    rate = ("--cfg-options", "optim_wrapper.optimizer.lr=0.003")
    process = start(*arguments, *rate, "--seed", "1", "--work-dir", "out", "--json")
    out, err = process.communicate(timeout=LONG)
    assert process.returncode == 0, err
    found = json.loads(out)
    assert found["loss"]["name"] == "focal-giou"
    assert 0 <= found["fitness"] <= 1
    assert found["checkpoint"] == str(tmp_path / "out" / "iter_2.pth")
    assert [path.name for path in tmp_path.glob("out/*.pth")] == ["iter_2.pth"]
    assert err.count("step 2/2") == 1  # one of them speaks
    assert err.count("evaluation at step 2") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"modules", "out"}
    saved = torch.load(found["checkpoint"], weights_only=False)
    assert not any(name.startswith("module.") for name in saved["state_dict"])
    assert saved["optimizer"]["param_groups"][0]["initial_lr"] == pytest.approx(0.003)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("raise", "process 2 of 2: .*RuntimeError: the second one is out of memory"),
        ("die", "process 2 of 2 was ended by SIGKILL"),
    ],
)
def test_a_process_that_breaks_off_ends_all(tmp_path: Path, start, kind: str, message: str) -> None:
    process = start(*troubled(tmp_path, kind))
    out, err = process.communicate(timeout=LONG)
    assert process.returncode == 2, err
    assert out == ""
    assert re.search(message, err.splitlines()[-1])
    assert "Traceback" not in err
    assert all(gone(pid) for pid in pids(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_a_signal_ends_all(tmp_path: Path, start, number: signal.Signals, status: int) -> None:
    process = start(*troubled(tmp_path, "wait"))
    both = pids(tmp_path)
    process.send_signal(number)
    _, err = process.communicate(timeout=LONG)
    assert process.returncode == status
    assert "Traceback" not in err
    assert all(gone(pid) for pid in both)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there are GPUs")
def test_no_gpus_names_the_way_without() -> None:
    with pytest.raises(JobError, match=r"--gpus 2: torch finds 0 here; --cpu-processes 2 trains"):
        Processes(2)


@pytest.mark.parametrize(("processes", "steps"), [(1, 600), (2, 300), (3, 201)])
def test_an_epoch_is_shared_by_the_processes(tmp_path: Path, processes: int, steps: int) -> None:
    """Three epochs of 800 images, four a step and process."""
    base, config = configs_dir() / "detectors" / "digits" / "retinanet.py", tmp_path / "epochs.py"
    schedule = "dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=3)"
    config.write_text(f"_base_ = {str(base)!r}\ntrain_cfg = {schedule}\n")
    training = Training(
        str(config), LossDefinition("x"), "digits", batch_size=4, processes=processes
    )
    assert full_config(training).train_cfg.max_iters == steps


def test_orders_and_answers_travel_as_json(tmp_path: Path) -> None:
    training = Training(
        "digits/atss", LossDefinition("x"), "digits", 3, 2, 1, ("a.b=1",), processes=2, cpu=True
    )
    assert Training.from_json(json.loads(json.dumps(training.to_json()))) == training
    for checkpoint in (None, tmp_path / "x.pth"):
        answer = Trained(0.1, {"coco/bbox_mAP": 0.1}, 2.5, tmp_path, checkpoint)
        assert Trained.from_json(json.loads(json.dumps(answer.to_json()))) == answer


class TestConfigOptions:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("1", 1),
            ("1e-2", 0.01),
            ("true", True),
            ("None", None),
            ("[1,2]", [1, 2]),
            ("(1,a)", (1, "a")),
            ("1,2", [1, 2]),
            ("a=b", "a=b"),
            ("", ""),
        ],
    )
    def test_values_are_read_by_mmengines_rules(self, text: str, value: object) -> None:
        assert read_options([f"--x.y={text}"]) == {"--x.y": value}

    def test_values_are_changed_in_place(self) -> None:
        config = Config({"optim_wrapper": {"optimizer": {"lr": 1}}, "hooks": [{"a": 1}, {"a": 2}]})
        change_config(config, ["optim_wrapper.optimizer.lr=0.5", "hooks.1.a=7", "load_from=x.pth"])
        assert config.optim_wrapper.optimizer.lr == 0.5
        assert [hook.a for hook in config.hooks] == [1, 7]
        assert config.load_from == "x.pth"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("foo", "must be key=value"),
            ("=1", "must be key=value"),
            ("model.x=[1,", "Imbalanced brackets"),
            ("modell.x=1", "the config has no 'modell'; it has hooks, model"),
            ("hooks.7.a=1", "Index 7 exceeds"),
            ("hooks.a.b=1", "hooks.a.b"),
            ("work_dir=x", "use --work-dir"),
            ("launcher=pytorch", "use --gpus or --cpu-processes"),
        ],
    )
    def test_what_cannot_be_changed(self, text: str, message: str) -> None:
        config = Config({"model": {"type": "X"}, "hooks": [{"a": 1}]})
        with pytest.raises(JobError, match=message):
            change_config(config, [text])
