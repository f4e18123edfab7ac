"""A row of the leaderboard from what the queries know of a candidate."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from search_server.confirmation import CONFIRM, TEST, Confirmation, reading
from search_server.leaderboard_keys import STAGE, Trials, Values
from search_server.leaderboard_query import Line
from search_server.leaderboard_rows import LeaderboardRow, Paired
from search_server.ranking_text import is_joint, ranking_text
from search_server.rounds import Rounds
from search_server.seed_statistics import deviation

NONE = Trials()


def made_row(
    line: Line,
    own: Trials,
    beside: Trials,
    base: Values,
    *,
    baseline: bool,
    rank: int | None,
    rounds: Rounds | None,
    front: bool,
) -> LeaderboardRow:
    """One candidate.

    Args:
        own: its trials.
        beside: those of its job's baseline; none for that one itself.
        base: AP by seed of what its fitness is compared with; empty for that one itself.
        baseline, rank, front: see `LeaderboardRow`.
        rounds: of its job.
    """
    proxy = own.values(STAGE)
    branch = line.definition.get("rpn")
    return LeaderboardRow(
        rank=rank,
        job=line.job_id,
        index=line.number,
        name=line.name,
        origin=line.origin,
        cls=line.cls_text,
        bbox=line.bbox_text,
        size=line.size,
        stage=line.stage,
        state=line.state,
        reason=line.reason,
        simulate_score=line.simulate_score,
        fitness=line.fitness,
        deviation=deviation([*proxy.values()]),
        seeds=len(proxy),
        difference=_paired(proxy, base),
        baseline=baseline,
        rpn=ranking_text(branch) if isinstance(branch, Mapping) else None,
        joint=is_joint(line.definition.get("cls")),
        round=None if rounds is None else rounds.round(line.number),
        judged=_judged(line, own, beside),
        front=front,
        reused=own.reused(),
    )


def _judged(line: Line, own: Trials, beside: Trials) -> Confirmation | None:
    """What the stages that judge say; None where it has no trial of them."""
    if not (own.values(CONFIRM) or own.values(TEST)):
        return None
    return Confirmation(
        confirm=reading(own.values(CONFIRM), beside.values(CONFIRM)),
        test=reading(own.values(TEST), beside.values(TEST)),
        gain=line.gain,
        p=line.p,
        family=line.family or 0,
        shrunken=line.shrunken,
        reused=own.reused(proxy=False),
    )


def _paired(values: Values, base: Values) -> Paired | None:
    both = [value - base[seed] for seed, value in values.items() if seed in base]
    return Paired(fmean(both), deviation(both), len(both)) if both else None
