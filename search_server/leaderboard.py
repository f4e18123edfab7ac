"""The leaderboard: the candidates of a job, or of all jobs by trial spec, best first.

A difference to the baseline is paired: the mean, over the seeds that both have, of candidate minus
baseline, because one seed's luck is as large as what a loss can gain. Confirmed candidates stand
before all others, for what the others show is the luck, too, that they were picked for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from search_server.leaderboard_page import groups
from search_server.leaderboard_query import Page
from search_server.leaderboard_rows import LeaderboardGroup, LeaderboardRow, Paired
from search_server.store.convert import plain

if TYPE_CHECKING:
    from search_server.store import Store
    from workers import TrialSpec

__all__ = [
    "LeaderboardGroup",
    "LeaderboardRow",
    "Paired",
    "leaderboard",
    "leaderboard_row",
    "trial_group",
]


def trial_group(spec: TrialSpec) -> str:
    """Identity of a trial spec without loss definition, seed and rungs: SHA-256, hex.

    Two trials of one group differ in nothing but these, so their APs can be compared.
    """
    return replace(spec, definition={}, seed=0, rungs=(), pause_after=None).key


def leaderboard(
    store: Store,
    job_id: str | None = None,
    *,
    limit: int = 20,
    offset: int = 0,
    state: str | None = None,
    pareto: bool = False,
) -> list[LeaderboardGroup]:
    """The candidates of one job (one group), or of all jobs, the group of the newest job first.

    Args:
        limit: rows per group, after `offset`.
        state: only candidates in this state.
        pareto: only those on the front of AP and size.

    Raises:
        JobError: no such job.
    """
    job = None if job_id is None else plain(job_id)
    found = groups(store, Page(job, limit, offset, state, pareto=pareto))
    if job_id is not None and not found:
        store.job(job_id)
    return found


def leaderboard_row(store: Store, job_id: str, index: int) -> LeaderboardRow:
    """One candidate as it stands on its job's leaderboard.

    Raises:
        JobError: no such job, or it has no such candidate.
    """
    store.candidate(job_id, index)
    return groups(store, Page(job_id, index=index))[0].rows[0]
