"""A Ray that does not answer is found out, and nothing waits for it without a limit."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from search_server.errors import ClusterGone, JobError
from search_server.executors import ray_cluster
from search_server.executors.ray_cluster import Watch, asked


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_answer_is_believed_for_a_while_then_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter([1, 2, 3])
    watch = Watch(lambda: next(answers))
    assert [watch(), watch()] == [1, 1]
    watch.forget()
    assert watch() == 2
    monkeypatch.setattr(ray_cluster, "LOOK_AGAIN", 0.0)
    watch.forget()
    assert watch() == 3


def test_the_last_answer_stands_while_the_next_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "LOOK_AGAIN", 0.0)
    asking, gate = threading.Event(), threading.Event()

    def ask() -> int:
        if not asking.is_set():
            return 1
        assert gate.wait(60)
        return 2

    watch = Watch(ask, silence=60)
    assert watch() == 1
    asking.set()
    assert [watch(), watch()] == [1, 1]
    watch.forget()  # nor is what was asked before it
    asking.clear()
    assert watch() == 1
    asking.set()
    assert watch() == 1
    gate.set()
    until(lambda: watch() == 2)


@pytest.mark.parametrize("how", ["hangs", "raises"])
def test_a_ray_without_an_answer_for_long_is_gone(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "LOOK_AGAIN", 0.0)
    monkeypatch.setattr(ray_cluster, "LAST_LOOK", 0.0)
    away, never = threading.Event(), threading.Event()

    def ask() -> int:
        if away.is_set():
            if how == "raises":
                raise RuntimeError("no answer")
            never.wait(60)
        return 1

    def gone() -> bool:
        try:
            return watch() != 1
        except ClusterGone:
            return True

    watch = Watch(ask, silence=0.2)
    assert watch() == 1
    away.set()
    assert not gone()  # it is given its time
    until(gone)
    with pytest.raises(ClusterGone, match=r"not answered for 0\.2 s.*lossforge resume JOB"):
        watch()
    never.set()


def test_without_a_first_answer_its_error_is_told() -> None:
    def ask() -> int:
        raise JobError("no such cluster")

    with pytest.raises(JobError, match="no such cluster"):
        Watch(ask)()


def test_nobody_need_wait_for_what_never_answers() -> None:
    never = threading.Event()
    answer: Future[bool] = asked(lambda: never.wait(60))
    assert not answer.done()
    never.set()
    assert answer.result(60) is True


def test_a_folder_that_is_gone_is_not_gone_back_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(here)
    with ray_cluster._inside(elsewhere):
        assert Path.cwd() == elsewhere
    assert Path.cwd() == here
    with ray_cluster._inside(elsewhere):
        here.rmdir()
    assert Path.cwd() == elsewhere
    here.mkdir()
    monkeypatch.chdir(here)
    here.rmdir()
    with ray_cluster._inside(elsewhere):
        assert Path.cwd() == elsewhere
    assert Path.cwd() == elsewhere
