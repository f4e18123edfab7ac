"""What a comparison trains: several losses, all from the same seeds.

Trials of one seed differ in the loss alone: same batches, and the same initialisation where the
losses leave the head its layers (a softmax head has an output more than a ranked one, and then
every weight is drawn anew). What is compared is therefore the difference within each seed, which
mostly varies less than the APs themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from losses import LossDefinition, LossesError, apply_loss
from search_server.errors import JobError
from workers import TrialSpec
from workers.detector import parse_detector
from workers.spec import MAX_SEED

FEWEST_SEEDS = 2  # for an interval


@dataclass(frozen=True)
class Contender:
    """A loss as the tables name it, and what it is."""

    name: str
    definition: LossDefinition


@dataclass(frozen=True)
class Comparison:
    """What is trained and compared.

    Attributes:
        template: a trial of it; its definition and seed are replaced.
        contenders: at least one, names all different.
        baseline: index of the contender that the others are measured against.
        seeds: one trial of each contender per seed, at least two.

    Raises:
        JobError: too few seeds, a seed out of range, or two contenders of one name.
    """

    template: TrialSpec
    contenders: tuple[Contender, ...]
    baseline: int
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.seeds) < FEWEST_SEEDS:
            raise JobError(f"{len(self.seeds)} seed gives no interval; at least 2 are needed")
        if max(self.seeds) > MAX_SEED:
            raise JobError(f"seed {max(self.seeds)} is above {MAX_SEED}; lower --first-seed")
        names = [each.name for each in self.contenders]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise JobError(f"{twice!a} is given twice; each loss has to be there once")

    def trial(self, contender: int, seed: int) -> TrialSpec:
        """One trial."""
        definition = self.contenders[contender].definition.to_json()
        return replace(self.template, definition=definition, seed=seed)

    def trials(self) -> Iterator[tuple[int, int]]:
        """Contender and seed of every trial, seed by seed: what is there early is balanced."""
        for seed in self.seeds:
            for contender in range(len(self.contenders)):
                yield contender, seed

    def check(self) -> None:
        """Finds out what can be known before the first trial.

        Raises:
            JobError: a loss does not fit the detector.
            DetectorError: the detector is none.
        """
        config = parse_detector(self.template.detector)
        for each in self.contenders:
            try:
                apply_loss(config, each.definition)
            except LossesError as error:
                raise JobError(f"{each.name}: {error}") from error
