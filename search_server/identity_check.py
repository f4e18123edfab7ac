"""Checks over whole stores that no loss was trained twice, and that no two losses were made one.

Independent of what it checks: losses are measured another way and at other predictions
(`identity_measure`), and which trials are the same is read from the specs of the jobs.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from losses import LossDefinition, LossesError
from search_server.candidates import merged_with
from search_server.errors import JobError
from search_server.fingerprints import (
    CALIBRATED_SCALES_AGREE,
    SCALES_AGREE,
    Fingerprint,
    scales_agree,
)
from search_server.identity_measure import measured
from search_server.store import JobRecord, Store, TrialRecord
from search_server.store.records import SAME

AGREE = 1e-6
"""Directions that agree to this, with their scales, are one loss."""
DIFFER = 1e-5
"""What was made one may differ by this: the two ways of measuring differ by rounding as well."""

Name = tuple[str, int]  # job, candidate


@dataclass(frozen=True)
class Pair:
    """Two candidates, `JOB:INDEX`, or a candidate and a draw that was found to be it.

    Attributes:
        distance: of their directions; see `Fingerprint.distance`; None where they are of unlike
            forms, and so differ for certain.
        scales: of both, by branch.
        where: the trial that both were trained in, `proxy seed 0`; empty for a draw.
    """

    one: str
    other: str
    distance: float | None
    scales: tuple[Mapping[str, float], Mapping[str, float]]
    where: str = ""


@dataclass(frozen=True)
class Report:
    """What was found in one store.

    Attributes:
        candidates: how many were measured.
        unmeasured: those whose loss cannot be put into their detector any more.
        trained_twice: pairs that were trained separately though they are one loss.
        same_direction: number of pairs, of those trained separately, that differ in scale only.
        merges: draws and trials that were taken for a known loss, and were compared with it.
        merged_but_different: those that are not it.
    """

    store: str
    candidates: int
    unmeasured: tuple[str, ...]
    trained_twice: tuple[Pair, ...]
    same_direction: int
    merges: int
    merged_but_different: tuple[Pair, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.trained_twice and not self.merged_but_different


def check_store(store: Store, progress: Callable[[str], None] = lambda _: None) -> Report:
    """Measures every candidate of a store and compares those that should, or should not, be one.

    Args:
        progress: told what is done next.
    """
    checked = _Checked(store)
    trained: dict[str, dict[Name, str]] = defaultdict(dict)
    merges: list[tuple[Name, Name, str]] = []
    drawn: list[tuple[Name, str, Fingerprint | None]] = []
    for job in store.jobs():
        progress(job.id)
        checked.add(job)
        for trial in store.trials(job.id, curves=False):
            name, where = (job.id, trial.candidate), f"{trial.stage} seed {trial.seed}"
            if trial.reused_from is not None:
                source, number, _, _ = trial.reused_from.rsplit(":", 3)
                merges.append((name, (source, int(number)), where))
            elif trial.state in ("done", "diverged"):
                trained[_context(job, trial)][name] = where
        for draw in store.draws(job.id):
            if draw.outcome.startswith(SAME):
                index = int(draw.outcome.removeprefix(merged_with(0)[:-1]))
                drawn.append(((job.id, index), draw.text, checked.measure(job, draw.text)))
    twice, same_direction = [], 0
    for names in trained.values():
        for one, other in checked.alike(list(names)):
            if checked.scales_agree(one, other):
                twice.append(checked.pair(one, other, names[one]))
            else:
                same_direction += 1
    different = [
        checked.pair(one, other, where)
        for one, other, where in dict.fromkeys(merges)
        if not checked.may_be_one(one, other)
    ]
    for name, text, found in drawn:
        if found is not None and not checked.may_be(name, found):
            different.append(checked.pair_of(name, text, found))
    return Report(
        store=store.url,
        candidates=len(checked.prints),
        unmeasured=tuple(checked.unmeasured),
        trained_twice=tuple(twice),
        same_direction=same_direction,
        merges=len(merges) + len(drawn),
        merged_but_different=tuple(different),
    )


class _Checked:
    """The measured losses of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._calibrated: dict[str, bool] = {}
        self._known: dict[str, Fingerprint] = {}
        self.prints: dict[Name, Fingerprint] = {}
        self.unmeasured: list[str] = []

    def add(self, job: JobRecord) -> None:
        """Measure the candidates of a job."""
        self._calibrated[job.id] = bool(job.spec.get("calibrate", False))
        for candidate in self._store.candidates(job.id):
            found = self.measure(job, json.dumps(candidate.definition, sort_keys=True))
            if found is None:
                self.unmeasured.append(f"{job.id}:{candidate.index}")
            else:
                self.prints[job.id, candidate.index] = found

    def measure(self, job: JobRecord, definition: str) -> Fingerprint | None:
        """A definition, JSON text, in the job's detector; None where it does not fit."""
        data = {**json.loads(definition), "name": "checked"}
        key = json.dumps([data, job.detector], sort_keys=True)
        if key not in self._known:
            try:
                self._known[key] = measured(LossDefinition.from_json(data), job.detector)
            except LossesError:
                return None
        return self._known[key]

    def alike(self, names: Sequence[Name]) -> Iterator[tuple[Name, Name]]:
        """The pairs whose directions agree."""
        forms: dict[tuple[str, int], list[Name]] = defaultdict(list)
        for name in names:
            if name in self.prints:
                found = self.prints[name]
                forms[found.form, found.vector.size].append(name)
        for group in forms.values():
            ordered, places = _in_a_row([self.prints[name].vector for name in group])
            for place, first in enumerate(ordered):
                for later in range(place + 1, len(ordered)):
                    if places[later] - places[place] > AGREE:
                        break
                    one, other = group[first], group[ordered[later]]
                    if self.prints[one].distance(self.prints[other]) <= AGREE:
                        yield min(one, other), max(one, other)

    def scales_agree(self, one: Name, other: Name) -> bool:
        """Whether two candidates push equally hard, as far as their jobs can tell."""
        return scales_agree(
            self.prints[one].scales, self.prints[other].scales, self._tolerance(one, other)
        )

    def may_be_one(self, one: Name, other: Name) -> bool:
        """Whether a candidate and the one whose result it took are one loss."""
        if one not in self.prints or other not in self.prints:
            return True  # they are in `unmeasured`
        return _one(self.prints[one], self.prints[other], 10 * self._tolerance(one, other))

    def may_be(self, name: Name, found: Fingerprint) -> bool:
        """Whether a draw is the loss of a candidate."""
        known = self.prints.get(name)
        return known is None or _one(known, found, 10 * self._tolerance(name, name))

    def pair(self, one: Name, other: Name, where: str) -> Pair:
        """Two candidates for the report."""
        return _pair(_text(one), _text(other), self.prints[one], self.prints[other], where)

    def pair_of(self, name: Name, text: str, found: Fingerprint) -> Pair:
        """A candidate and a draw for the report."""
        return _pair(_text(name), text, self.prints[name], found)

    def _tolerance(self, *names: Name) -> float:
        calibrated = any(self._calibrated[job] for job, _ in names)
        return CALIBRATED_SCALES_AGREE if calibrated else SCALES_AGREE


def _in_a_row(vectors: list[Any]) -> tuple[list[int], list[float]]:
    """An order in which vectors that agree are close, and where they stand: entries that differ by
    at most d put their vectors at most d apart."""
    size = vectors[0].size
    if not size:
        return list(range(len(vectors))), [0.0] * len(vectors)
    along = np.random.default_rng(5).normal(size=size)
    places = np.stack(vectors) @ (along / np.abs(along).sum())
    order = np.argsort(places, kind="stable")
    return order.tolist(), places[order].tolist()


def _one(one: Fingerprint, other: Fingerprint, scales: float) -> bool:
    if one.form != other.form or one.vector.size != other.vector.size:
        return False
    return one.distance(other) <= DIFFER and scales_agree(one.scales, other.scales, scales)


def _pair(one: str, other: str, a: Fingerprint, b: Fingerprint, where: str = "") -> Pair:
    like = a.form == b.form and a.vector.size == b.vector.size
    return Pair(one, other, a.distance(b) if like else None, (a.scales, b.scales), where)


def _text(name: Name) -> str:
    return f"{name[0]}:{name[1]}"


def _context(job: JobRecord, trial: TrialRecord) -> str:
    """All of a trial but its loss, from the job's spec: equal for trials that differ in it alone.

    Raises:
        JobError: the spec is none.
    """
    spec = job.spec
    try:
        funnel, proxy = spec["funnel"], spec["funnel"]["proxy"]
        own = funnel.get(trial.stage) or proxy
        resources = spec.get("resources") or {}
        given = {
            "detector": job.detector,
            "classes": list(job.classes),
            "data": spec.get("data"),
            "resources": {name: resources.get(name) for name in ("device", "threads", "precision")},
            "trial": [trial.stage, trial.seed],
            "versions": {name: v for name, v in trial.versions.items() if name != "device"},
            "budget": [own.get(name) or proxy.get(name) for name in ("steps", "batch_size")],
        }
    except (KeyError, AttributeError, TypeError) as error:
        raise JobError(f"the spec of job {job.id} cannot be read: {error!r}") from error
    if trial.stage == "simulate":
        given["images"] = [own.get("images_per_class"), spec.get("seed")]
    else:
        given["rungs"] = proxy.get("rungs") if trial.stage == "proxy" else None
        warm = proxy.get("warm_start")
        given["warm_start"] = warm and [warm, spec.get("baseline"), spec.get("seed")]
    return json.dumps(given, sort_keys=True)
