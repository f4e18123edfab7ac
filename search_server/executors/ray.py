"""Trials as Ray tasks, on a cluster or on a Ray of this machine started for the purpose."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from search_server.errors import ClusterGone, JobError
from search_server.executors.choice import LOCAL
from search_server.executors.ray_cluster import Watch, asked, check_answers, connected
from search_server.funnel.stages import TrialKey
from search_server.spec import Resources
from workers import Split, TrialResult, TrialSpec, lossforge_home
from workers.data import DataError
from workers.data.digest import content_digest
from workers.data.parcels import digest, pack
from workers.gpu_share import share_of_gpu
from workers.ray_task import Sent, remote_trial
from workers.result import Status

MAX_LOSSES = 3  # of Ray workers or nodes that a trial survives; see `RayExecutor`
END_SECONDS = 30.0  # that Ray may take to end trials, or itself
GONE_SECONDS = 3.0  # the same where Ray is gone, and may take forever
GIB = 2**30


@dataclass(frozen=True)
class _Task:
    """A trial under way; `losses` counts the workers and nodes that it has outlived."""

    key: TrialKey
    spec: TrialSpec
    losses: int = 0
    batch_size: int | None = None


class RayExecutor:
    """Runs every trial as one Ray task; Ray decides where.

    Two things can die. The process that trains is a child of Ray's worker; `run_trial` retries it
    once, there. When Ray's own worker or its node is lost, the trial is handed out again, which it
    survives `MAX_LOSSES` times; beyond that it is `failed`. When Ray ends a worker because its node
    is short of memory, the trial is `out_of_memory`, or tried once more with the spec's smaller
    batch. Ray itself retries nothing: it would count the shortage of memory apart, without an end.
    A trial that ends by itself is never retried.

    When all of Ray is gone, which nobody would call a trial's fault, `wait` or `slots` raises
    `ClusterGone`.

    Must be closed: it holds this process's connection to Ray.

    Args:
        resources: what one trial takes.
        address: of a cluster, `auto` for the one this process belongs to, or `local`, which starts
            a Ray of its own on this machine.
        cpus: CPUs of a local Ray; None: all.
        trial: what a task does; takes and gives what `remote_trial` does.

    Raises:
        JobError: there is no cluster, it wants a token, or a local Ray has no room for a trial.
    """

    def __init__(
        self,
        resources: Resources,
        address: str = LOCAL,
        cpus: int | None = None,
        trial: Callable[..., dict[str, Any]] = remote_trial,
    ) -> None:
        self._resources = resources
        self._refs: dict[Any, _Task] = {}
        self._gone: ClusterGone | None = None
        self._ray = connected(address, cpus)
        self._fitting = Watch(self._room)
        options: dict[str, Any] = {
            "num_cpus": resources.cpus,
            "num_gpus": resources.gpus,
            "max_retries": 0,
            "runtime_env": {"env_vars": {"PYTHONSAFEPATH": "1", **share_of_gpu(resources.gpus)}},
        }
        if resources.memory_gb is not None:
            options["memory"] = int(resources.memory_gb * GIB)
        self._task = self._ray.remote(**options)(trial)
        self._sent: dict[Split, Sent | None] = {}
        self._shares = address == LOCAL  # one machine, one file system: nothing need be sent
        if address == LOCAL and self._room() < 1:
            self._ray.shutdown()
            raise JobError(
                f"a trial takes {self._needed}, more than this machine has; "
                "lower `resources` in the spec"
            )

    def submit(self, key: TrialKey, spec: TrialSpec) -> None:
        """See `Executor.submit`."""
        self._hand_out(_Task(key, spec))

    def wait(self, timeout: float) -> list[tuple[TrialKey, TrialResult]]:
        """See `Executor.wait`."""
        if self._gone is not None:
            raise self._gone
        if not self._refs:
            time.sleep(max(0.0, timeout))
            return []
        waiting = list(self._refs)
        ready, rest = self._ray.wait(waiting, num_returns=1, timeout=max(0.0, timeout))
        if ready and rest:
            more, _ = self._ray.wait(rest, num_returns=len(rest), timeout=0)
            ready += more
        ended = []
        for ref in ready:
            try:
                found = self._result(ref)
            except ClusterGone as error:  # what others came to is known all the same
                self._gone = error
                continue
            if found is not None:
                ended.append(found)
        if self._gone is not None and not ended:
            raise self._gone
        return ended

    def slots(self) -> int:
        """Trials that fit the cluster as it is now; looked up again now and then. At least 1:
        what waits for room is what makes an autoscaler start nodes."""
        return max(1, self._fit())

    def lacks(self) -> str:
        """See `Executor.lacks`: the node that an autoscaler, or somebody, has to start."""
        return "" if self._fit() else f"a node with {self._needed}"

    def cancel_all(self) -> None:
        """See `Executor.cancel_all`; ends Ray's worker processes, and with them the trials."""
        refs = list(self._refs)
        self._refs.clear()
        if refs and self._gone is None:  # else they end with their owner, which this process is
            cancel = self._ray.cancel
            wait([asked(lambda: [cancel(ref, force=True) for ref in refs])], END_SECONDS)

    def close(self) -> None:
        """See `Executor.close`; a local Ray is shut down."""
        self.cancel_all()
        wait([asked(self._ray.shutdown)], END_SECONDS if self._gone is None else GONE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _hand_out(self, task: _Task) -> None:
        offered: list[Sent] | None = None
        if not self._shares:
            sent = [self._send(split) for split in {task.spec.train, task.spec.evaluate}]
            offered = [each for each in sent if each is not None]
        self._refs[self._task.remote(task.spec.to_json(), offered)] = task

    def _send(self, split: Split) -> Sent | None:
        """What nodes fetch a split from; None where they are to have it themselves.

        What lies in the home folder was made by Lossforge on this machine, so it is sent if it can
        be. The few images of a simulation are such a split, but with images of the user's, who may
        have asked for nothing to be sent.
        """
        if split not in self._sent:
            own = Path(split.annotations).is_relative_to(lossforge_home())
            self._sent[split] = None
            if self._resources.send_data:
                self._sent[split] = self._put(split)
            elif own:
                with contextlib.suppress(DataError):
                    self._sent[split] = self._put(split)
        return self._sent[split]

    def _put(self, split: Split) -> Sent:
        parcel = pack(split)
        content = content_digest(split.annotations)
        return Sent(split, content, digest(parcel), self._ray.put(parcel))

    def _result(self, ref: Any) -> tuple[TrialKey, TrialResult] | None:
        """How a task ended; None: it has been handed out again.

        Raises:
            ClusterGone: it did not end, and no task of this process ever will.
        """
        task, errors = self._refs.pop(ref), self._ray.exceptions
        spec = task.spec
        try:
            result = TrialResult.from_json(self._ray.get(ref))
        except errors.OutOfMemoryError as error:
            if spec.smaller_batch is not None:
                smaller = replace(spec, batch_size=spec.smaller_batch, smaller_batch=None)
                self._hand_out(replace(task, spec=smaller, batch_size=smaller.batch_size))
                return None
            result = _lost(spec, "out_of_memory", error)
        except errors.RayError as error:
            if type(error) is errors.LocalRayletDiedError:  # not one that a task has met
                raise ClusterGone("the node that this process is on has died") from error
            if not self._own(error):
                if task.losses < MAX_LOSSES:
                    self._hand_out(replace(task, losses=task.losses + 1))
                    return None
                check_answers(self._ray)
            result = _lost(spec, "failed", error)
        if task.batch_size is not None:
            result = replace(result, batch_size=task.batch_size)
        return task.key, result

    def _own(self, error: Exception) -> bool:
        """Whether an error is one of the trial's code; all others of Ray's are losses."""
        errors = self._ray.exceptions
        if not isinstance(error, errors.RayTaskError):
            return False
        # what cannot be pickled comes as a plain RayError; others mean that the task has lost
        # something that it had asked Ray for
        return type(error.cause) is errors.RayError or not isinstance(error.cause, errors.RayError)

    @property
    def _needed(self) -> str:
        """What one trial takes, for people."""
        needed = f"{self._resources.cpus:g} CPUs, {self._resources.gpus:g} GPUs"
        memory = self._resources.memory_gb
        return needed if memory is None else f"{needed}, {memory:g} GiB of memory"

    def _fit(self) -> int:
        """`_room`, counted anew now and then.

        Raises:
            ClusterGone: Ray does not answer.
        """
        try:
            return self._fitting()
        except ClusterGone as error:
            self._gone = error
            raise

    def _room(self) -> int:
        """How many trials the nodes of the cluster have resources for; each trial is on one."""
        needs = {"CPU": self._resources.cpus, "GPU": self._resources.gpus}
        if self._resources.memory_gb is not None:
            needs["memory"] = self._resources.memory_gb * GIB
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return sum(
            min(int(has.get(name, 0.0) // need) for name, need in needs.items() if need > 0)
            for has in nodes
        )


def _lost(spec: TrialSpec, status: Status, error: Exception) -> TrialResult:
    """The result of a trial that could not give its own."""
    cause = getattr(error, "cause", None)  # of an exception raised in the task
    shown = cause if isinstance(cause, Exception) else error
    lines = str(shown).strip().splitlines()
    reason = f"{type(shown).__name__}: {lines[0] if lines else 'lost'}"
    return TrialResult(status, reason, None, spec.seed, spec.steps)
