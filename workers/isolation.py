"""Keeps a trial to itself: what it changes in this process is put back when it ends."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import cv2
import mmengine.device.utils
import torch
import torch.multiprocessing
from mmengine.config import ConfigDict
from mmengine.utils import ManagerMixin

from workers.generators import kept_generators

_LOG_SIZE = 4000


class LogTail(io.TextIOBase):
    """A text stream that remembers its last characters."""

    def __init__(self, size: int = _LOG_SIZE) -> None:
        self._size = size
        self._text = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._text = (self._text + text)[-self._size :]
        return len(text)

    @property
    def text(self) -> str:
        """What was written last."""
        return self._text.strip()


@contextlib.contextmanager
def isolated(threads: int, device: str) -> Iterator[LogTail]:
    """Runs its body as if nothing of mmengine had run in this process before.

    Inside, mmengine has no MessageHub, logger, visualiser or scope of an earlier run (two runs
    that start in the same second would share them and mix their curves), torch has `threads`
    threads, and standard output and error go to the log that is yielded. Afterwards all of these
    are as before, as are the generators of Python, NumPy and torch, determinism flags, OpenCV's
    threads and the start method of processes.

    Args:
        threads: of torch, on the CPU.
        device: "auto", "cpu" or "cuda"; where mmengine puts the model.
    """
    with contextlib.ExitStack() as stack:
        log = LogTail()
        stack.callback(_collect)
        stack.enter_context(kept_generators())
        stack.enter_context(_torch_settings(threads))
        stack.enter_context(_mmengine_globals())
        stack.enter_context(_mmengine_device(device))
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(contextlib.redirect_stdout(log))
        stack.enter_context(contextlib.redirect_stderr(log))
        yield log


@contextlib.contextmanager
def _torch_settings(threads: int) -> Iterator[None]:
    cudnn = torch.backends.cudnn
    flags = (cudnn.benchmark, cudnn.deterministic)
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    grad, own_threads, dtype = (
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
    )
    anomaly, cv2_threads = torch.is_anomaly_enabled(), cv2.getNumThreads()
    start_method = torch.multiprocessing.get_start_method(allow_none=True)
    environment = dict(os.environ)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = flags
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.set_grad_enabled(grad)
        torch.set_num_threads(own_threads)
        torch.set_default_dtype(dtype)
        torch.autograd.set_detect_anomaly(anomaly)
        cv2.setNumThreads(cv2_threads)
        torch.multiprocessing.set_start_method(start_method, force=True)
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)


@contextlib.contextmanager
def _mmengine_globals() -> Iterator[None]:
    kept = {kind: OrderedDict(kind._instance_dict) for kind in _managers(ManagerMixin)}
    for kind in kept:
        kind._instance_dict.clear()
    try:
        yield
    finally:
        ConfigDict.lazy = False
        for kind in _managers(ManagerMixin):
            for instance in kind._instance_dict.values():
                for handler in getattr(instance, "handlers", ()):  # of a logger: its log file
                    handler.close()
            kind._instance_dict.clear()
            kind._instance_dict.update(kept.get(kind, {}))


@contextlib.contextmanager
def _mmengine_device(device: str) -> Iterator[None]:
    module = mmengine.device.utils
    before = module.DEVICE
    if device != "auto":
        module.DEVICE = device
    try:
        yield
    finally:
        module.DEVICE = before


def _managers(kind: Any) -> Iterator[Any]:
    """`kind` and its subclasses; each keeps its own instances."""
    yield kind
    for child in kind.__subclasses__():
        yield from _managers(child)


def _collect() -> None:
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
