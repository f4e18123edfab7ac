"""The trials of a table as specs for this machine: its data, its detectors, the fixed budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from losses import LossDefinition
from search_server.loss_choice import detector_path
from search_server.table.spec import TableSpec
from workers import Split, TrialSpec, load_detector, lossforge_home
from workers.data import digits, one_image_per_class, read_classes
from workers.warm_start import WarmStart

OWN = LossDefinition("default")  # the detector's own losses


@dataclass(frozen=True)
class Trials:
    """Makes the trials of a table for this machine."""

    spec: TableSpec
    _texts: dict[str, str] = field(default_factory=dict, repr=False)

    @cached_property
    def splits(self) -> Mapping[str, Split]:
        """The splits of the data set, which is written if need be."""
        return digits().splits

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Of the data set."""
        return read_classes(self.splits["search_train"].annotations)

    @cached_property
    def few(self) -> Split:
        """The images of the simulation."""
        simulate = self.spec.simulate
        return one_image_per_class(
            self.splits["search_train"],
            lossforge_home() / "subsets",
            simulate.images_per_class,
            simulate.seed,
        )

    def detector(self, group: str) -> str:
        """Text of a group's detector."""
        if group not in self._texts:
            self._texts[group] = load_detector(detector_path(self.spec.groups[group].detector))
        return self._texts[group]

    def trial(self, group: str, definition: Mapping[str, Any], stage: str, seed: int) -> TrialSpec:
        """One trial of a loss of a group; stage `simulate` or `proxy`."""
        spec = self.spec
        common: dict[str, Any] = {
            "detector": self.detector(group),
            "definition": definition,
            "seed": seed,
            "classes": self.classes,
            "device": spec.device,
            "time_limit": spec.trial_seconds,
            "precision": spec.precision,
        }
        if stage == "simulate":
            return TrialSpec(
                train=self.few,
                evaluate=self.few,
                steps=spec.simulate.steps,
                batch_size=spec.simulate.batch_size,
                **common,
            )
        warm = spec.warm_start
        if warm is not None:
            common["warm_start"] = WarmStart(OWN.to_json(), warm.seed, warm.steps, warm.parts)
        return TrialSpec(
            train=self.splits["search_train"],
            evaluate=self.splits["search_val"],
            steps=spec.steps,
            batch_size=spec.batch_size,
            rungs=spec.rungs,
            **common,
        )
