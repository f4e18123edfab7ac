"""What is to be done about a job that a service has taken on, from how it stands: no more than a
table, so that it can be read, and tested, as one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DELIBERATE = ("stopped by the user", "the limit of ")  # reasons of a job that is interrupted


@dataclass(frozen=True)
class Standing:
    """How a job stands.

    Attributes:
        state, reason: of the job.
        tries: controllers that a service has started since the job was ordered to run.
        controller: `live`, `gone`, or `unknown` where nobody can be asked.
        begins: a controller was started that may not have reached the store yet.
        status: exit status of the controller that this service started last, once it has ended.
    """

    state: str
    reason: str
    tries: int
    controller: str
    begins: bool = False
    status: int | None = None

    @property
    def occupied(self) -> bool:
        """Whether it takes one of the places of those that run at a time."""
        may_run = self.state in ("running", "cancelling") and self.controller == "unknown"
        return self.begins or self.controller == "live" or may_run


@dataclass(frozen=True)
class Decision:
    """What to do.

    Attributes:
        action: `leave` it alone, `start` a controller, `end` the job for good, or `settle` the
            request: there is nothing more to do.
        note: for people, about the job; empty if nothing is wrong.
        interrupt: the job's row says that it runs, which it does not.
    """

    action: Literal["leave", "start", "end", "settle"]
    note: str = ""
    interrupt: bool = False


def decide(job: Standing, tries: int) -> Decision:
    """What to do about a job.

    Args:
        tries: how often a controller that was lost is started again.
    """
    if job.state == "done":
        return Decision("settle")
    if job.state in ("cancelling", "cancelled"):
        return Decision("end")
    if job.begins or job.controller == "live":  # it may have begun a new attempt, and not said so
        return Decision("leave")
    if job.tries == 0:  # it was ordered to run, and nothing was done yet
        return Decision("start")
    if job.controller == "unknown":
        return Decision(
            "leave",
            "its controller is elsewhere, and nobody there answers; if it is gone for good, resume "
            "the job with force",
        )
    if job.state == "failed":
        return Decision("settle")
    if job.state == "interrupted" and job.reason.startswith(DELIBERATE):
        return Decision("settle")
    return _again(job, tries)


def _again(job: Standing, tries: int) -> Decision:
    """Its controller was lost."""
    how = "was lost"
    if job.state == "created":
        how = "never began" if job.status is None else f"ended with status {job.status} at once"
    elif job.state == "interrupted" and job.reason:
        how = f"stopped ({job.reason})"
    if job.tries <= tries:
        return Decision("start", f"its controller {how}; it is started again ({job.tries}/{tries})")
    times = "once" if job.tries == 1 else f"{job.tries} times"
    note = (
        f"its controller {how}, and was started {times}; the service's folder has its log. "
        "Resume the job once that is mended"
    )
    return Decision("settle", note, interrupt=job.state == "running")
