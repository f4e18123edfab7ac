"""Requests: the jobs that the service has taken on, and which service is starting one of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select, update

from search_server.store import convert, models
from search_server.store.records import RequestRecord
from search_server.store.sessions import Sessions, clock


@dataclass(frozen=True)
class Asked:
    """Who submits a job through the service: see `RequestRecord`."""

    by: str
    key: str | None = None


class Requests(Sessions):
    """The store's methods about requests. A request is written with its job, in `create_job`."""

    def request_of(self, job_id: str) -> RequestRecord | None:
        """The request of a job; None: it was not submitted through a service."""
        with self.reading() as session:
            row = session.get(models.Request, job_id)
            return None if row is None else _record(row)

    def request_with(self, key: str) -> RequestRecord | None:
        """The request that was made with this key."""
        with self.reading() as session:
            row = session.scalar(select(models.Request).where(models.Request.key == key))
            return None if row is None else _record(row)

    def open_requests(self) -> list[RequestRecord]:
        """Those that are not settled, the oldest first."""
        query = (
            select(models.Request)
            .join(models.Job, models.Job.id == models.Request.job_id)
            .where(models.Request.settled.is_(False))
            .order_by(models.Job.serial)
        )
        with self.reading() as session:
            return [_record(row) for row in session.scalars(query)]

    def hold_request(self, job_id: str, holder: str, seconds: float) -> bool:
        """Whether this service may start the job's controller: no other one is at it.

        Args:
            holder: names this service.
            seconds: for how long; a service that dies holds nothing for longer.
        """
        with self.changing() as session:
            at = clock(session)
            free = or_(models.Request.held_until.is_(None), models.Request.held_until < at)
            mine = models.Request.held_by == holder
            taken = session.execute(
                update(models.Request)
                .where(models.Request.job_id == job_id, or_(free, mine))
                .values(held_by=holder, held_until=at + timedelta(seconds=seconds))
            )
            return bool(taken.rowcount)  # type: ignore[attr-defined]

    def note_request(
        self,
        job_id: str,
        *,
        note: str = "",
        tried: int = 0,
        settled: bool = False,
        keep: bool = False,
    ) -> None:
        """Write down what became of a request, and let go of it.

        Args:
            tried: by how many its tries have grown; -1: the last one was none.
            keep: do not let go of it.
        """
        row = models.Request
        free: dict[str, None] = {} if keep else {"held_by": None, "held_until": None}
        with self.changing() as session:
            session.execute(
                update(row)
                .where(row.job_id == job_id)
                .values(note=convert.plain(note), tries=row.tries + tried, settled=settled, **free)
            )

    def reopen_request(self, job_id: str, by: str) -> None:
        """Have the service see to a job: one that is to be resumed, whoever created it."""
        with self.changing() as session:
            row = session.get(models.Request, job_id)
            if row is None:
                session.add(new_request(job_id, None, by, clock(session)))
            else:
                row.settled, row.tries, row.note = False, 0, ""

    def waiting_requests(self) -> int:
        """How many jobs are waiting for their first controller."""
        query = (
            select(func.count())
            .select_from(models.Request)
            .join(models.Job, models.Job.id == models.Request.job_id)
            .where(models.Request.settled.is_(False), models.Job.state == "created")
        )
        with self.reading() as session:
            return int(session.scalar(query) or 0)


def new_request(job_id: str, key: str | None, by: str, at: datetime) -> models.Request:
    """The row of a request that nothing was done for yet."""
    return models.Request(
        job_id=job_id, key=key, by=by, settled=False, tries=0, note="", created_at=at,
        held_by=None, held_until=None,
    )  # fmt: skip


def _record(row: models.Request) -> RequestRecord:
    return RequestRecord(
        *(row.job_id, row.by, row.settled, row.tries, row.note, row.created_at, row.key),
        *(row.held_by, row.held_until),
    )
