"""Starts the controller of a job: a process of this machine that outlives the service, or an
attempt on a Ray cluster."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from search_server.errors import JobError
from search_server.service.settings import Runs
from workers import lossforge_home

BEGIN_SECONDS = 5.0  # that a cluster is given to begin before others are seen to


class Started(Protocol):
    """A controller that was started and may not have reached the store yet."""

    def poll(self) -> int | None:
        """Its exit status; None: it runs, or nothing is known."""


class Runner(Protocol):
    """Starts controllers."""

    def start(self, job_id: str) -> Started | None:
        """Start the controller of a job; None: where it runs is in the store.

        Raises:
            SearchError: it cannot be started.
        """


@dataclass(frozen=True)
class HereRunner:
    """Controllers as processes of this machine, each in a session of its own: they go on when the
    service ends, and get none of its signals.

    Attributes:
        store_url: in full; it is handed on in a file that only this user reads.
        slots: trials at a time; None: as many as there is room for.
    """

    store_url: str
    slots: int | None = None

    def start(self, job_id: str) -> Started:
        """Raises: JobError, the process cannot be started."""
        slots = [] if self.slots is None else ["--slots", str(self.slots)]
        try:
            folder = lossforge_home() / "service"
            folder.mkdir(parents=True, exist_ok=True)
            file = _url_file(folder, self.store_url)
            command = [
                *(sys.executable, "-P", "-m", "search_server.cli", "resume"),
                *("--store-file", str(file), "--address", "local", *slots, "--", job_id),
            ]
            with (folder / f"{job_id}.log").open("ab") as log:
                return subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=folder,
                    start_new_session=True,
                )
        except OSError as error:
            raise JobError(f"its controller cannot be started ({error.strerror})") from error


@dataclass(frozen=True)
class ClusterRunner:
    """Controllers on a Ray cluster, through its Jobs API."""

    store_url: str
    address: str

    def start(self, job_id: str) -> None:
        """Raises: see `submission.resubmit`."""
        from search_server.submission import Wishes, resubmit

        resubmit(job_id, self.store_url, self.address, Wishes(patience=BEGIN_SECONDS, force=True))


def make_runner(runs: Runs, store_url: str) -> Runner:
    """What the settings say.

    Args:
        store_url: in full, with its password.
    """
    if runs.where == "here":
        return HereRunner(store_url, runs.slots)
    return ClusterRunner(store_url, runs.where)


def _url_file(folder: Path, url: str) -> Path:
    """A file with the store's URL; services over several stores share the folder."""
    file = folder / f"store-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
    if not file.exists():
        handle, name = tempfile.mkstemp(dir=folder)  # for this user alone
        with os.fdopen(handle, "w", encoding="utf-8") as made:
            made.write(url)
        Path(name).replace(file)
    return file
