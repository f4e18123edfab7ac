"""`run_trial`: one trial under supervision."""

from __future__ import annotations

from workers.result import TrialResult
from workers.spec import TrialSpec
from workers.worker import TrialWorker


def run_trial(spec: TrialSpec, worker: TrialWorker | None = None) -> TrialResult:
    """Trains `spec` in a child process that is killed at the time limit.

    Args:
        spec: what to train.
        worker: whose process to use; None: a fresh one, ended afterwards.

    Returns:
        The result, whatever happened: a broken config, an exception, a lost process and a reached
        limit are statuses, not exceptions.

    Raises:
        TrialCancelled: the worker was cancelled or closed meanwhile.
    """
    if worker is not None:
        return worker.run(spec)
    with TrialWorker() as own:
        return own.run(spec)
