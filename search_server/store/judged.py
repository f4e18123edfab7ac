"""The trials of the stages that judge, as the statistics read them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from search_server.confirmation import JUDGING, MEASURED, Judged
from search_server.store.models import Candidate, Trial

if TYPE_CHECKING:
    from search_server.store.store import Store


def judged(store: Store, jobs: Sequence[str] | None = None) -> dict[str, list[Judged]]:
    """The ended trials of `confirm` and `test` by job, in one query that reads no other trial.

    Args:
        jobs: only of these; None: of all.
    """
    with store.reading() as session:
        return judged_trials(session, jobs)


def judged_trials(session: Session, jobs: Sequence[str] | None) -> dict[str, list[Judged]]:
    """What `judged` gives, as a transaction that is under way sees it."""
    # Neither the order nor the state is asked for: for their sake SQLite would look through all
    # trials of a job instead of those of the stages.
    query = (
        select(
            Trial.job_id, Trial.candidate, Trial.stage, Trial.seed, Candidate.origin, Trial.state,
            Trial.fitness, Trial.reused_from,
        )
        .join(
            Candidate,
            and_(Candidate.job_id == Trial.job_id, Candidate.index == Trial.candidate),
        )
        .where(Trial.stage.in_(JUDGING))
    )  # fmt: skip
    if jobs is not None:
        query = query.where(Trial.job_id.in_(jobs))
    found: dict[str, list[Judged]] = defaultdict(list)
    lines = sorted(session.execute(query), key=lambda line: line[:4])
    for job, candidate, stage, seed, origin, state, fitness, source in lines:
        value = 0.0 if state == "diverged" else fitness
        if state in MEASURED and value is not None:
            found[job].append(Judged(candidate, origin, stage, seed, value, source))
    return dict(found)
