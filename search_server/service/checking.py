"""Checks specs against detectors and data: what that takes, torch and mmdet, is loaded once, aside.

It is processor time and not thread safe, so one spec is checked at a time; who would have to wait
for long is told to come back.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from search_server.errors import SearchError, SpecError
from search_server.service.problems import Problem, of_specs
from search_server.spec import DataSpec, JobSpec

if TYPE_CHECKING:
    from search_server.jobs import Job

log = logging.getLogger(__name__)

LONGEST_WAIT = 1.5  # seconds


class Checker:
    """Checks the specs of one service.

    Args:
        data: the data sets of its settings, which are looked at before anybody asks for one.
    """

    def __init__(self, data: Mapping[str, str | DataSpec]) -> None:
        self._data = data
        self._one = threading.Lock()
        self._spaces: dict[str, str] = {}  # by detector
        self._loaded = threading.Event()
        self._loading: threading.Thread | None = None

    def start(self) -> None:
        """Begin to load what checking takes, in a thread; without it the first check does."""
        if self._loading is None:
            self._loading = threading.Thread(target=self._load, name="load", daemon=True)
            self._loading.start()

    def job(self, spec: JobSpec) -> Job:
        """The job of a spec, which is in no store yet.

        Raises:
            Problem: 422, it fits no detector or data; 503, not now.
        """
        with self._turn():
            from search_server.jobs import prepare_job

            try:
                return prepare_job(spec)
            except SpecError as error:
                raise of_specs([error]) from None
            except SearchError:
                raise
            except Exception as error:  # a library's: a spec that it cannot take, or our fault
                log.exception("a spec could not be checked")
                raise Problem(422, "this spec cannot be checked; the log says why") from error

    def cls_space(self, detector: str | None) -> str:
        """The classification space of a detector's head; some space where there is none.

        Args:
            detector: what a spec means by it.

        Raises:
            Problem: 503, not now.
        """
        if detector is None:
            return "binary_cls"
        if detector not in self._spaces:
            from search_server.spec.detector_head import detector_of
            from search_server.spec.places import ANYWHERE

            with self._turn():
                try:
                    _, family = detector_of(detector, ANYWHERE, "the form")
                except ValueError as error:
                    log.warning("the detector %s cannot be used: %s", detector, error)
                    return "binary_cls"
            self._spaces[detector] = family.cls_space
        return self._spaces[detector]

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Raises: Problem, 503."""
        deadline = time.monotonic() + LONGEST_WAIT
        if self._loading is not None and not self._loaded.wait(LONGEST_WAIT):
            raise _later("the service has only just begun and cannot check specs yet")
        if not self._one.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise _later("other specs are being checked")
        try:
            yield
        finally:
            self._one.release()

    def _load(self) -> None:
        began = time.monotonic()
        try:
            from search_server.checked_data import look_at
            from search_server.jobs import named_splits  # loads torch and mmdet
            from search_server.service.pages.svg import drawn
            from workers.data import DataError, digits

            drawn(lambda axes: None, wide=4.0, high=3.0)  # looks for fonts, seconds the first time
            digits()  # drawn once, some seconds
            for name, given in self._data.items():
                try:
                    if isinstance(given, DataSpec):
                        look_at(named_splits(given))
                except DataError as error:
                    log.warning("the data set %s of the settings cannot be used: %s", name, error)
        except Exception:
            log.exception("what checks specs could not be loaded")
        finally:
            # All of it stays: a collection that looked at it would hold every answer up by a third
            # of a second.
            gc.freeze()
            self._loaded.set()
        log.info("specs can be checked, after %.0f s", time.monotonic() - began)


def _later(why: str) -> Problem:
    return Problem(503, f"{why}; try again in some seconds", headers={"Retry-After": "5"})
