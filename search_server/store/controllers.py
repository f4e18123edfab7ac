"""Leases: the right of one process to write as the controller of a job, checked in every write.

Each transaction of a controller replaces a random word in the job's row of `controllers`, and only
if the word is still its own. So a process that was replaced, be it on a machine that nobody could
reach for a while, cannot write any more; and after a commit whose answer was lost, the word tells
whether the transaction took place, whatever the server went through.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass
from typing import cast

from sqlalchemy import CursorResult, Delete, Update, delete, select, update
from sqlalchemy.orm import Session

from search_server.errors import TakenOver
from search_server.store.models import Controller


@dataclass(frozen=True)
class Seal:
    """What one transaction does to a lease.

    Attributes:
        old: the word that must be there; None: whatever is there, the lease is taken.
        new: the word that it leaves; None: the lease ends.
    """

    job_id: str
    old: str | None
    new: str | None

    def write(self, session: Session) -> None:
        """Write the new word in the place of the old one, last of all that the transaction does.

        Raises:
            TakenOver: the old one is not there any more.
        """
        row = Controller
        if self.old is None:
            session.merge(row(job_id=self.job_id, wrote=self.new))
            session.flush()
            return
        own = (row.job_id == self.job_id, row.wrote == self.old)
        change: Delete | Update = delete(row).where(*own)
        if self.new is not None:
            change = update(row).where(*own).values(wrote=self.new)
        options = {"synchronize_session": False}  # no object of the session is concerned
        done = session.execute(change, execution_options=options)
        if cast("CursorResult[None]", done).rowcount != 1:
            raise TakenOver(self.job_id)

    def check(self, session: Session) -> None:
        """See that the lease is still held.

        Raises:
            TakenOver: it is not.
        """
        query = select(Controller.wrote).where(Controller.job_id == self.job_id)
        if session.scalar(query) != self.old:
            raise TakenOver(self.job_id)

    def was_written(self, session: Session) -> bool:
        """Whether the transaction took place; waits for one that is not over.

        Raises:
            TakenOver: another process has the lease now.
        """
        query = select(Controller.wrote).where(Controller.job_id == self.job_id)
        found = session.scalar(query.with_for_update())
        if found == self.new:
            return True
        if self.old is not None and found != self.old:
            raise TakenOver(self.job_id)
        return False


class Leases:
    """The leases that one store object holds. `lock` is held during a transaction of theirs."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._words: dict[str, str] = {}

    def taking(self, job_id: str) -> Seal:
        """Take the lease of a job from whoever has it."""
        return Seal(job_id, None, secrets.token_hex(16))

    def renewal(self, job_id: str) -> Seal | None:
        """Go on as the controller of a job; None for one whose controller this is not."""
        word = self._words.get(job_id)
        return None if word is None else Seal(job_id, word, secrets.token_hex(16))

    def ending(self, job_id: str) -> Seal | None:
        """Give the lease of a job back; None where there is none."""
        word = self._words.get(job_id)
        return None if word is None else Seal(job_id, word, None)

    def note(self, seal: Seal) -> None:
        """A transaction took place."""
        if seal.new is None:
            del self._words[seal.job_id]
        else:
            self._words[seal.job_id] = seal.new
