"""Noise floors: what was measured of the noise of trial groups."""

from __future__ import annotations

from search_server.store import convert, models
from search_server.store.records import NoiseFloor
from search_server.store.sessions import Sessions, now, outlasting


class NoiseFloors(Sessions):
    """The store's methods about noise floors."""

    @outlasting
    def add_noise_floor(self, floor: NoiseFloor) -> None:
        """Write a noise floor in the place of the one that its trial group had."""
        row = models.NoiseFloor(
            trial_group=floor.trial_group,
            seeds=floor.seeds,
            mean=floor.mean,
            sd_single=floor.sd_single,
            sd_paired=floor.sd_paired,
            freedom=floor.freedom,
            losses=convert.storable(floor.losses),
            created_at=now(),
        )
        with self.changing() as session:
            session.merge(row)

    @outlasting
    def noise_floor(self, trial_group: str) -> NoiseFloor | None:
        """The noise floor of a trial group; None where it was not measured."""
        with self.reading() as session:
            row = session.get(models.NoiseFloor, trial_group)
            return None if row is None else convert.noise_floor_record(row)
