"""What `confirm` says of a job's candidates, kept in their columns with the trials that say it."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy.orm import Session

from search_server.confirmation import CONFIRM, MEASURED, confirmations
from search_server.store import lookup, models
from search_server.store.judged import judged_trials


def renew(session: Session, job_id: str, ended: Iterable[models.Trial]) -> None:
    """Write what has changed by the end of trials of `confirm`: the statistics of all that the job
    has confirmed, for they are corrected for each other."""
    if not any(each.stage == CONFIRM and each.state in MEASURED for each in ended):
        return
    # Two trials that end at once would each miss the other: the baseline's row is the lock.
    lookup.candidate(session, job_id, 0, lock=True)
    trials = judged_trials(session, [job_id]).get(job_id, [])
    found = confirmations(each for each in trials if each.stage == CONFIRM)
    for index, one in sorted(found.items()):
        row = lookup.candidate(session, job_id, index, lock=True)
        row.gain, row.p, row.shrunken = one.gain, one.p, one.shrunken
        row.family = one.family
