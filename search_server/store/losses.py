"""The losses that a store has: candidates of any jobs that are the same loss share a row."""

from __future__ import annotations

import numpy as np
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from search_server.fingerprints import Fingerprint, near
from search_server.store import models

# Any constant will do: the lock that keeps two processes from adding one loss at once.
_POSTGRES_LOCK = 7_313_502


def loss_id(session: Session, fingerprint: Fingerprint, scales: float) -> int:
    """The row of a loss; a new one where the store does not have it yet.

    Args:
        scales: largest relative difference of scales; see `Fingerprint.same`.
    """
    if session.get_bind().dialect.name == "postgresql":  # SQLite has one writer at a time
        session.execute(text(f"SELECT pg_advisory_xact_lock({_POSTGRES_LOCK})"))
    row = models.Loss
    close = select(row).where(
        row.form == fingerprint.form_hash, row.bucket.in_(near(fingerprint.bucket))
    )
    for found in session.scalars(close.order_by(row.id)):
        if _fingerprint(found, fingerprint.form).same(fingerprint, scales):
            return found.id
    made = models.Loss(
        form=fingerprint.form_hash,
        bucket=fingerprint.bucket,
        vector=fingerprint.vector.astype("<f8").tobytes(),
        scales=dict(fingerprint.scales),
    )
    session.add(made)
    session.flush()
    return made.id


def _fingerprint(row: models.Loss, form: str) -> Fingerprint:
    """A row whose hash says that it is of this form."""
    return Fingerprint(form, np.frombuffer(row.vector, "<f8").astype(np.float64), row.scales)
