"""Scales of the table's expressions: gradient norms matched to each detector's own losses."""

from __future__ import annotations

from functools import cache

from losses import LossDefinition, detector_family
from search_server.calibration import Captured, calibrated, captured
from search_server.table.making import Calibrate
from search_server.table.spec import TableSpec
from search_server.table.trials import OWN, Trials
from workers.detector import parse_detector


def calibrator(spec: TableSpec) -> Calibrate:
    """What gives a loss of a group its scales, as the trials of the table's first seed start.

    Raises, when it is first called for a group:
        JobError: the detector cannot be run.
    """
    trials = Trials(spec)

    @cache
    def given(group: str) -> Captured:
        family = detector_family(parse_detector(trials.detector(group)))
        roles = {"cls": family.cls_space, "bbox": "box"}
        return captured(trials.trial(group, OWN.to_json(), "proxy", spec.seeds[0]), roles)

    def scaled(group: str, definition: LossDefinition) -> LossDefinition:
        return calibrated(definition, given(group))

    return scaled
