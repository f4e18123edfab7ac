"""What the stages that judge say: paired differences, p values, shrunken estimates.

The seeds of `confirm` were used by no earlier stage, so what a candidate gains there is free of the
luck that it was picked for. Of several that were confirmed the best one has some luck again: the
corrected p value and the shrunken estimate answer to that. A reading of `test` answers to both, for
one row; the p values of several published rows are not corrected for their number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import and_, case, select

from search_server.paired_statistics import Paired, holm, paired
from search_server.seed_statistics import Spread, spread
from search_server.shrinkage import shrunken
from search_server.store.models import Candidate, Trial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from search_server.store import Store

CONFIRM, TEST = "confirm", "test"
ENDED = ("done", "diverged")
RIVAL = "rival"


@dataclass(frozen=True)
class Reading:
    """One candidate's trials of one stage.

    Attributes:
        ap: mean and spread over its seeds; a diverged training counts as AP 0.
        difference: to the baseline, paired by seed; None for the baseline, and without a common
            seed.
        by_seed: AP in [0, 1] by seed.
    """

    ap: Spread
    difference: Paired | None
    by_seed: Mapping[int, float]


@dataclass(frozen=True)
class Confirmation:
    """What is known of a candidate beyond the stages that chose it.

    Attributes:
        confirm, test: its readings; None without a trial of the stage.
        p: of the difference on `confirm`, two-sided, corrected by Holm for `family`; None without
            an interval, and for the baseline. A rival's is not corrected: it was chosen before
            anything was trained, and is in no family.
        family: how many candidates of the job were confirmed, the baseline and the rivals not
            counted; 0 for those.
        shrunken: empirical-Bayes estimate of the difference on `confirm`, over the family (see
            `shrinkage.shrunken`); None for the baseline and rivals, and where it cannot be told.
        reused: `JOB:candidate:stage:seed` of the trials whose results were taken over.
    """

    confirm: Reading | None = None
    test: Reading | None = None
    p: float | None = None
    family: int = 0
    shrunken: float | None = None
    reused: tuple[str, ...] = ()

    @property
    def confirmed(self) -> bool:
        """Whether it has a difference to the baseline on `confirm`."""
        return self.confirm is not None and self.confirm.difference is not None


@dataclass(frozen=True)
class Judged:
    """One ended trial of a judging stage, as the statistics read it; `value` is an AP in [0, 1]."""

    candidate: int
    origin: str
    stage: str
    seed: int
    value: float
    reused_from: str | None = None


def confirmations(trials: Iterable[Judged]) -> dict[int, Confirmation]:
    """The candidates of one job that have trials of `confirm` or `test`, by index."""
    values: dict[tuple[int, str], dict[int, float]] = defaultdict(dict)
    origins: dict[int, str] = {}
    sources: dict[int, list[str]] = defaultdict(list)
    for trial in trials:
        values[trial.candidate, trial.stage][trial.seed] = trial.value
        origins[trial.candidate] = trial.origin
        if trial.reused_from is not None:
            sources[trial.candidate].append(trial.reused_from)
    found = {
        index: Confirmation(
            _reading(values, index, CONFIRM), _reading(values, index, TEST), reused=tuple(own)
        )
        for index in sorted(origins)
        for own in [sources[index]]
    }
    for index, one in found.items():
        if one.confirm is not None and one.confirm.difference is not None:
            found[index] = replace(one, p=one.confirm.difference.p)
    family = [i for i, one in found.items() if one.confirmed and origins[i] != RIVAL]
    base = values[0, CONFIRM]
    differences = [
        {seed: ap - base[seed] for seed, ap in values[index, CONFIRM].items() if seed in base}
        for index in family
    ]
    for index, estimate in zip(family, shrunken(differences), strict=True):
        found[index] = replace(found[index], shrunken=estimate, family=len(family))
    tested = [(index, p) for index in family if (p := found[index].p) is not None]
    # one that has no p value yet, for want of seeds, is in the family all the same
    lacking = [1.0] * (len(family) - len(tested))
    corrected = holm([p for _, p in tested] + lacking)
    for (index, _), p in zip(tested, corrected, strict=False):
        found[index] = replace(found[index], p=p)
    return found


def judged(store: Store, jobs: Sequence[str] | None = None) -> dict[str, list[Judged]]:
    """The ended trials of `confirm` and `test` by job, in one query that reads no other trial.

    Args:
        jobs: only of these; None: of all.
    """
    measured = case((Trial.state == "diverged", 0.0), else_=Trial.fitness)
    query = (
        select(
            Trial.job_id, Trial.candidate, Candidate.origin, Trial.stage, Trial.seed, measured,
            Trial.reused_from,
        )
        .join(
            Candidate,
            and_(Candidate.job_id == Trial.job_id, Candidate.index == Trial.candidate),
        )
        .where(Trial.stage.in_((CONFIRM, TEST)), Trial.state.in_(ENDED))
        .order_by(Trial.job_id, Trial.candidate, Trial.stage, Trial.seed)
    )  # fmt: skip
    if jobs is not None:
        query = query.where(Trial.job_id.in_(jobs))
    found: dict[str, list[Judged]] = defaultdict(list)
    with store.reading() as session:
        for job, candidate, origin, stage, seed, value, source in session.execute(query):
            if value is not None:
                found[job].append(Judged(candidate, origin, stage, seed, value, source))
    return dict(found)


def _reading(
    values: Mapping[tuple[int, str], Mapping[int, float]], index: int, stage: str
) -> Reading | None:
    own = values.get((index, stage))
    if not own:
        return None
    base = values.get((0, stage), {})
    difference = paired(own, base) if index and base else None
    return Reading(spread(own), difference, dict(own))
