"""Which candidates of a job are one loss, and what names a trial up to what makes no difference."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
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
from workers.data.digest import content_digest
from workers.result import package_versions


class SameLosses:
    """The losses of one job, to be asked whether one more is among them.

    Args:
        definition_of: gives the JSON of a candidate's definition. Not the table `losses`: the
            vector there may be that of another job's candidate, which differs by rounding.

    Attributes:
        scales: largest relative difference of scales that counts as none.
    """

    def __init__(self, job: Job, definition_of: Callable[[int], Mapping[str, Any]]) -> None:
        self._detector = job.detector
        self.scales = CALIBRATED_SCALES_AGREE if job.spec.calibrate else SCALES_AGREE
        self._known = Known(lambda index: self.fingerprint(definition_of(index)), self.scales)

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

    The loss stands in it as its row of the table `losses`; beside it stand all that `TrialSpec.key`
    has (seed, steps, data, detector, rungs, arithmetic), the content of the annotation files, so
    that changed data are other data, and the versions of the packages that decide the numbers.
    """
    if loss_id is None:
        return None
    parts = {
        "spec": replace(spec, definition={}, pause_after=None, checkpoint=None).key,
        "loss": loss_id,
        "data": [content_digest(split.annotations) for split in (spec.train, spec.evaluate)],
        "versions": dict(package_versions()),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
