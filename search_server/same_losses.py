"""Which candidates of a job are one loss, and what names a trial up to what makes no difference."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from losses import LossDefinition
from search_server.fingerprints import (
    CALIBRATED_SCALES_AGREE,
    SCALES_AGREE,
    Fingerprint,
    Known,
)
from search_server.identity import fingerprint
from search_server.jobs import Job
from workers import TrialSpec


class SameLosses:
    """The losses of one job, to be asked whether one more is among them.

    Attributes:
        scales: largest relative difference of scales that counts as none.
    """

    def __init__(self, job: Job) -> None:
        self._detector = job.detector
        self.scales = CALIBRATED_SCALES_AGREE if job.spec.calibrate else SCALES_AGREE
        self._known = Known(self.scales)

    def fingerprint(self, definition: LossDefinition | Mapping[str, Any]) -> Fingerprint:
        """The fingerprint of a definition, or of its JSON."""
        if not isinstance(definition, LossDefinition):
            definition = LossDefinition.from_json(definition)
        return fingerprint(definition, self._detector)

    def add(self, index: int, found: Fingerprint) -> None:
        """Candidate `index` is in the job."""
        self._known.add(index, found)

    def find(self, definition: LossDefinition) -> int | None:
        """The first candidate that is this loss; None where it is new."""
        return self._known.find(self.fingerprint(definition))


def trained_key(spec: TrialSpec, loss_id: int | None) -> str | None:
    """What a trial would train: equal, in one store, for trials whose results differ by no more
    than rounding. None where it is not known which loss it is.

    The loss stands in it as its row of the table `losses`, all else as `TrialSpec.key` has it:
    seed, steps, data, detector, rungs, arithmetic.
    """
    if loss_id is None:
        return None
    rest = replace(spec, definition={}, pause_after=None, checkpoint=None).key
    return hashlib.sha256(f"{rest} {loss_id}".encode()).hexdigest()
