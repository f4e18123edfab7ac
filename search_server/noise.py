"""The noise floor of a job spec: how much its trials vary, and how many seeds a gain needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from losses import CATALOG, LossDefinition, LossesError, apply_loss, detector_family
from search_server.comparison_rows import Row
from search_server.leaderboard import trial_group
from search_server.noise_floor import Residual, deviation_limit, residual
from search_server.power import LEVEL, detectable_gain, seeds_needed
from search_server.spec_trials import SpecTrials
from workers.detector import parse_detector

if TYPE_CHECKING:
    from search_server.comparison import Comparison
    from search_server.store import NoiseFloor

GAINS = (0.25, 0.5, 1.0, 2.0, 4.0)  # points of AP
HOPELESS = 0.5  # of the baseline's AP: a loss below does not vary as those that train well do
#: Hand-made losses to measure with, by what the head takes, unlike any detector's own.
_EXPRESSIONS = {"binary_cls": ("focal-iou", "qfl-giou"), "multi_cls": ("ce-giou", "ce-iou")}
_RANKING = {False: ("rank-sort", "alrp"), True: ("rank-sort-faster-rcnn", "alrp-faster-rcnn")}


def noise_losses(trials: SpecTrials) -> list[str]:
    """Names of the catalogue to measure with beside the baseline: such as fit the detector."""
    config = parse_detector(trials.template.detector)
    family = detector_family(config)
    ranking = bool(trials.job.spec.parameterized)
    names = _RANKING[family.two_stage] if ranking else _EXPRESSIONS[family.cls_space]
    return [name for name in names if _fits(config, CATALOG[name], trials.baseline)]


def _fits(config: object, definition: LossDefinition, baseline: LossDefinition) -> bool:
    if definition.key == baseline.key:
        return False
    try:
        apply_loss(config, definition)
    except LossesError:
        return False
    return True


@dataclass(frozen=True)
class Need:
    """How many paired seeds a gain needs, for a power of 0.8; None: more than 100,000.

    Attributes:
        gain: points of AP.
        one: of one loss, at level 0.05.
        best: of the best of those that are confirmed, at 0.05 by their number (Holm's first).
        cautious: as `best`, if the standard deviation is at its 80% limit.
    """

    gain: float
    one: int | None
    best: int | None
    cautious: int | None


@dataclass(frozen=True)
class Noise:
    """What was measured; APs and deviations in [0, 1].

    Attributes:
        group: the trial group of its trials.
        base: the baseline's row.
        rows: those of the losses, the baseline's too.
        left_out: why a loss did not count for the paired noise, by its name.
        paired: of the losses that count; None with fewer than two, or two common seeds.
        limit: what the paired deviation is below with a confidence of 80%.
        confirm_seeds, top: of the spec's stage `confirm`.
        detectable: smallest gain that these seeds find, for the best of `top`; points of AP.
        needs: by gain.
        seconds: mean wall clock of a trial; None where nothing was trained.
    """

    name: str
    group: str
    base: Row
    rows: tuple[Row, ...]
    left_out: dict[str, str]
    paired: Residual | None
    limit: float | None
    confirm_seeds: int
    top: int
    detectable: float | None
    needs: tuple[Need, ...]
    seconds: float | None

    @property
    def ratio(self) -> float | None:
        """The baseline's AP by the deviation of a single trial of it."""
        deviation = self.base.spread.deviation
        return None if not deviation else self.base.spread.mean / deviation

    def floor(self) -> NoiseFloor | None:
        """As the store keeps it; None before the baseline has two seeds."""
        from search_server.store import NoiseFloor

        spread = self.base.spread
        if spread.deviation is None:
            return None
        losses = [
            {
                "name": row.name,
                "mean": row.spread.mean if row.spread.count else None,
                "sd": row.spread.deviation,
                "left_out": self.left_out.get(row.name),
            }
            for row in self.rows
        ]
        return NoiseFloor(
            trial_group=self.group,
            seeds=spread.count,
            mean=spread.mean,
            sd_single=spread.deviation,
            sd_paired=None if self.paired is None else self.paired.paired_deviation,
            freedom=spread.count - 1 if self.paired is None else self.paired.freedom,
            losses=losses,
        )


def measured(
    name: str,
    trials: SpecTrials,
    comparison: Comparison,
    rows: Sequence[Row],
    gains: Sequence[float] = GAINS,
    seconds: float | None = None,
) -> Noise:
    """The noise floor from the rows of a comparison.

    The paired deviation is that of a difference of any two of the losses, pooled: the residual of
    losses by seeds. A loss that diverged somewhere, that stays below half of the baseline's AP,
    or that trains exactly as another one does, does not count: it does not vary as those do that
    are compared in the end.
    """
    base = rows[comparison.baseline]
    counted, left_out = _counted(base, rows)
    paired = residual([row.by_seed for row in counted])
    limit = detectable = None
    needs: tuple[Need, ...] = ()
    level = LEVEL / trials.top
    if paired is not None:
        limit = deviation_limit(paired.paired_deviation, paired.freedom)
        sd, high = 100 * paired.paired_deviation, 100 * limit
        if trials.seeds > 1:
            detectable = detectable_gain(sd, trials.seeds, level)
        needs = tuple(
            Need(
                gain, seeds_needed(gain, sd), seeds_needed(gain, sd, level),
                seeds_needed(gain, high, level),
            )
            for gain in sorted(set(gains))
        )  # fmt: skip
    return Noise(
        name=name,
        group=trial_group(trials.template),
        base=base,
        rows=tuple(rows),
        left_out=left_out,
        paired=paired,
        limit=limit,
        confirm_seeds=trials.seeds,
        top=trials.top,
        detectable=detectable,
        needs=needs,
        seconds=seconds,
    )


def _counted(base: Row, rows: Sequence[Row]) -> tuple[list[Row], dict[str, str]]:
    """The rows that count for the paired noise, and why the others do not."""
    counted: list[Row] = []
    left_out: dict[str, str] = {}
    for row in (base, *(row for row in rows if row is not base)):
        twin = next((c for c in counted if c.by_seed == row.by_seed and row.by_seed), None)
        if row.diverged:
            left_out[row.name] = "diverged"
        elif not row.by_seed:
            left_out[row.name] = "not trained"
        elif row is not base and row.spread.mean < HOPELESS * base.spread.mean:
            left_out[row.name] = "AP below half of the baseline's"
        elif twin is not None:
            left_out[row.name] = f"the same loss as {twin.name}"
        else:
            counted.append(row)
    return counted, left_out
