"""What the stages that judge say: paired differences, p values, shrunken estimates.

The seeds of `confirm` were used by no earlier stage, so what a candidate gains there is free of the
luck that it was picked for. Of several that were confirmed the best one has some luck again: the
corrected p value and the shrunken estimate answer to that. A reading of `test` answers to both, for
one row; the p values of several published rows are not corrected for their number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from search_server.paired_statistics import Paired, holm, paired
from search_server.seed_statistics import Spread, spread
from search_server.shrinkage import shrunken

CONFIRM, TEST = JUDGING = ("confirm", "test")
"""The stages whose seeds chose nothing."""
MEASURED = ("done", "diverged")
"""The states of a trial that say something about its loss."""
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
        gain: mean of the difference on `confirm`, 0.0 for the baseline; None without one.
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
    gain: float | None = None
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
    """The candidates of one job that have trials of `confirm` or `test`, by index.

    The store keeps what this says of `confirm` in columns: whoever changes a statistic writes them
    anew in a revision of the schema.
    """
    values: dict[tuple[int, str], dict[int, float]] = defaultdict(dict)
    origins: dict[int, str] = {}
    sources: dict[int, list[str]] = defaultdict(list)
    for trial in trials:
        values[trial.candidate, trial.stage][trial.seed] = trial.value
        origins[trial.candidate] = trial.origin
        if trial.reused_from is not None:
            sources[trial.candidate].append(trial.reused_from)
    base = values.get((0, CONFIRM), {})
    differences = {
        index: difference
        for index in sorted(origins)
        if index and (difference := paired(values.get((index, CONFIRM), {}), base)) is not None
    }
    family = [index for index in differences if origins[index] != RIVAL]
    estimates = shrunken(
        [
            {seed: ap - base[seed] for seed, ap in values[index, CONFIRM].items() if seed in base}
            for index in family
        ]
    )
    # one that has no p value yet, for want of seeds, is in the family all the same
    known = [(index, p) for index in family if (p := differences[index].p) is not None]
    lacking = [1.0] * (len(family) - len(known))
    corrected = holm([p for _, p in known] + lacking)
    p_values = {index: each.p for index, each in differences.items()}
    p_values |= {index: p for (index, _), p in zip(known, corrected, strict=False)}
    own = dict(zip(family, estimates, strict=True))
    gains = {index: each.mean for index, each in differences.items()} | ({0: 0.0} if base else {})
    return {
        index: Confirmation(
            confirm=reading(
                values.get((index, CONFIRM)), base if index else {}, differences.get(index)
            ),
            test=reading(values.get((index, TEST)), values.get((0, TEST), {}) if index else {}),
            gain=gains.get(index),
            p=p_values.get(index),
            family=len(family) if index in own else 0,
            shrunken=own.get(index),
            reused=tuple(sources[index]),
        )
        for index in sorted(origins)
    }


def reading(
    own: Mapping[int, float] | None,
    base: Mapping[int, float],
    difference: Paired | None = None,
) -> Reading | None:
    """One stage's reading of a candidate from the AP by seed of its own and of the baseline.

    Args:
        own: None, or empty, where it has no trial of the stage: there is no reading then.
        base: empty for the baseline itself.
        difference: where it is known already.
    """
    if not own:
        return None
    return Reading(spread(own), difference or paired(own, base), dict(own))
