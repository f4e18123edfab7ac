"""Rows by their ids, and errors that name what there is instead."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from search_server.errors import JobError, StoreError
from search_server.store import convert, models
from search_server.store.records import LAST_INDEX, CandidateRecord


def job(session: Session, job_id: str, *, lock: bool = False) -> models.Job:
    """The row of a job, or a `JobError`; `lock` it where others may change it (PostgreSQL)."""
    row = session.get(models.Job, convert.plain(job_id), with_for_update=lock or None)
    if row is None:
        ids = session.scalars(select(models.Job.id).order_by(models.Job.serial.desc()).limit(6))
        known = ", ".join(ids) or "none yet"
        raise JobError(f"there is no job {job_id!r}; the newest jobs: {known}")
    return row


def candidate(session: Session, job_id: str, index: int, *, lock: bool = False) -> models.Candidate:
    """The row of a candidate, or a `JobError`; `lock` as in `job`."""
    row = None
    if 0 <= index <= LAST_INDEX:  # PostgreSQL would refuse to compare with others
        row = session.get(models.Candidate, (job_id, index), with_for_update=lock or None)
    if row is None:
        job(session, job_id)
        query = select(func.max(models.Candidate.index)).where(models.Candidate.job_id == job_id)
        last = session.scalar(query)
        has = "no candidates yet" if last is None else f"candidates 0 to {last}"
        raise JobError(f"job {job_id} has no candidate {index}; it has {has}")
    return row


def check_next(session: Session, job_id: str, candidate: CandidateRecord) -> None:
    """The candidate's index follows the last one, and its key is new to the job."""
    row = models.Candidate
    last = session.scalar(select(func.max(row.index)).where(row.job_id == job_id))
    expected = 0 if last is None else last + 1
    if candidate.index != expected:
        raise StoreError(f"job {job_id} expects candidate {expected} next, not {candidate.index}")
    same = select(row.index).where(
        row.job_id == job_id, row.key_hash == convert.key_hash(candidate.key)
    )
    twin = session.scalar(same)
    if twin is not None:
        raise StoreError(f"job {job_id} already has this loss: it is candidate {twin}")
