"""What the board knows of jobs. None of it ever changes, so that of all jobs is kept until there
are more of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from sqlalchemy import Connection, func, select

from search_server.rounds import Rounds
from search_server.service.recent import Recent
from search_server.store.models import Job


@dataclass(frozen=True)
class JobLine:
    """One job.

    Attributes:
        detector: as the service calls it.
        spaces: that its branches are searched in.
        rounds: of a policy search; None elsewhere.
        board: all jobs of one are ranked together, see `store.models.Job`.
    """

    id: str
    serial: int
    detector: str
    spaces: tuple[str, ...]
    rounds: Rounds | None
    board: int


_recent: Recent[list[JobLine]] = Recent(most=8)


def all_jobs(connection: Connection, url: str, shown: Callable[[str], str]) -> list[JobLine]:
    """All jobs of the store at a URL, the oldest first.

    Args:
        shown: a detector as a spec names it -> as the service calls it.
    """
    count, last = connection.execute(select(func.count(), func.max(Job.serial))).one()
    kept = _recent.get(url, (count, last), lambda: _read(connection, None))
    names = {name: shown(name) for name in {line.detector for line in kept}}
    if all(name == given for given, name in names.items()):
        return kept
    return [replace(line, detector=names[line.detector]) for line in kept]


def job_lines(connection: Connection, job: str, shown: Callable[[str], str]) -> list[JobLine]:
    """The one job; nothing where there is none."""
    return [replace(line, detector=shown(line.detector)) for line in _read(connection, job)]


def _read(connection: Connection, job: str | None) -> list[JobLine]:
    """The jobs, or the one, the oldest first, with their detectors as their specs name them."""
    query = select(
        Job.id, Job.serial, Job.spec["detector"].as_string(), Job.spec["branches"],
        Job.rounds, Job.samples, Job.board,
    ).order_by(Job.serial)  # fmt: skip
    if job is not None:
        query = query.where(Job.id == job)
    found = []
    for job_id, serial, detector, branches, rounds, samples, board in connection.execute(query):
        policy = None if rounds is None else Rounds(rounds, samples)
        name = str(detector or "")
        found.append(JobLine(job_id, serial, name, _spaces(branches), policy, board))
    return found


def _spaces(branches: object) -> tuple[str, ...]:
    """The names of the spaces that a spec's branches are searched in."""
    found = []
    for branch in branches.values() if isinstance(branches, Mapping) else ():
        space = branch.get("space") if isinstance(branch, Mapping) else None
        found.append(space.get("name") if isinstance(space, Mapping) else space)
    return tuple(str(each) for each in found if each is not None)
