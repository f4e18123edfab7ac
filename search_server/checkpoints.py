"""Where the paused trials of a job keep their state, on the machine of its controller.

The files are a cache: a trial whose file is gone is trained anew, to the same result. So on a
cluster, where a trial may go on at another node, nothing but time is lost.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

from workers import TrialSpec, lossforge_home


class Checkpoints:
    """The folder of one job.

    Args:
        store: which store the job is in.

    Attributes:
        folder: absolute; made by the first trial that is paused.
    """

    def __init__(self, job_id: str, store: str) -> None:
        # Every store has jobs of the same names.
        mark = hashlib.sha256(store.encode()).hexdigest()[:12]
        self.folder: Path = lossforge_home() / "checkpoints" / f"{job_id}-{mark}"

    def drop(self, spec: TrialSpec) -> None:
        """Deletes the state of a trial that does not go on, if there is one."""
        file = replace(spec, checkpoint=str(self.folder)).checkpoint_file
        if file is not None:
            for each in self.folder.glob(f"{file.stem}.*"):  # each process of a trial has one
                each.unlink(missing_ok=True)

    def clear(self) -> None:
        """Deletes all of them."""
        shutil.rmtree(self.folder, ignore_errors=True)
