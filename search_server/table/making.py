"""Makes the plan of a table: which losses, from the spec and a seed."""

from __future__ import annotations

import hashlib
import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from losses import CATALOG, ExpressionBranch, LossDefinition, detector_family
from primitives import SPACES, Expression, parse
from search_server.fingerprints import CALIBRATED_SCALES_AGREE, Fingerprint, Known
from search_server.funnel.verification import verify
from search_server.identity import fingerprint
from search_server.loss_choice import detector_path
from search_server.table.draws import WAYS, Drawn, Seen, draw
from search_server.table.expressions import BOX, SIGMOID, SOFTMAX
from search_server.table.grid import grid_points
from search_server.table.plan import DrawCount, PlannedLoss, TablePlan
from search_server.table.spec import Group, TableSpec, Tuned
from workers import load_detector
from workers.detector import parse_detector

LEAST_DRAWS = {"random": 20_000, "mutation": 3_000, "crossover": 3_000}
HAND_MADE = "hand-made"

Calibrate = Callable[[str, LossDefinition], LossDefinition]


def make_plan(
    spec: TableSpec, seed: int, calibrate: Calibrate | None = None, max_draws: int | None = None
) -> TablePlan:
    """The losses of a table; the same for the same spec, seed and version of the code.

    Args:
        calibrate: gives a loss of a group the scales of its expressions; None: all are 1.
        max_draws: instead of the spec's.
    """
    losses: list[PlannedLoss] = []
    counts: list[DrawCount] = []
    pools: dict[str, dict[str, tuple[str, ...]]] = {}
    baselines: dict[str, str] = {}
    for name, group in spec.groups.items():
        made = _Maker(name, group, seed, max_draws or spec.max_draws)
        own = list(made.losses())
        counts += made.counts
        if group.subspace is not None:
            pools[name] = {"cls": made.texts("cls"), "bbox": made.texts("bbox")}
        if calibrate is not None:
            own = [_calibrated(each, calibrate) for each in own]
        baselines[name] = own[0].id
        losses += _different(own, made.detector)
    data = spec.model_dump(mode="json")
    return TablePlan(data, seed, tuple(losses), tuple(counts), pools, baselines)


def _different(losses: Sequence[PlannedLoss], detector: str) -> Iterator[PlannedLoss]:
    """Of losses that train alike the first; the pairs of a sub-space are all kept."""

    def mark_of(number: int) -> Fingerprint:
        return fingerprint(LossDefinition.from_json(losses[number].definition), detector)

    known = Known(mark_of, CALIBRATED_SCALES_AGREE)
    for number, loss in enumerate(losses):
        mark = mark_of(number)
        if loss.pair is not None or known.find(mark) is None:
            known.add(number, mark)
            yield loss


def _calibrated(loss: PlannedLoss, calibrate: Calibrate) -> PlannedLoss:
    if loss.kind in ("named", "tuned"):  # their numbers are what they are named and tuned for
        return loss
    definition = calibrate(loss.group, LossDefinition.from_json(loss.definition))
    return replace(loss, id=_id(loss.group, definition), definition=definition.to_json())


def _id(group: str, definition: LossDefinition) -> str:
    return hashlib.sha256(f"{group} {definition.key}".encode()).hexdigest()[:10]


class _Maker:
    """Makes the losses of one group."""

    def __init__(self, name: str, group: Group, seed: int, max_draws: int) -> None:
        self.name, self.group = name, group
        self.seed, self.max_draws = seed, max_draws
        self.detector = load_detector(detector_path(group.detector))
        sigmoid = detector_family(parse_detector(self.detector)).cls_space == "binary_cls"
        self.spaces = {
            "cls": SPACES["binary_cls" if sigmoid else "multi_cls"],
            "bbox": SPACES["box"],
        }
        self.hand = {"cls": dict(SIGMOID if sigmoid else SOFTMAX), "bbox": dict(BOX)}
        self.counts: list[DrawCount] = []
        self.parsed = {
            branch: [parse(text, self.spaces[branch]) for text in texts.values()]
            for branch, texts in self.hand.items()
        }
        self.sound = {
            branch: [each for each in found if verify(each).accepted]
            for branch, found in self.parsed.items()
        }
        self.seen = {branch: Seen() for branch in self.parsed}
        for branch, found in self.parsed.items():
            for each in found:
                self.seen[branch].add(each)
        self.drawn = {branch: self._draw(branch) for branch in ("cls", "bbox")}
        self.pool = {branch: self._pool(branch) for branch in ("cls", "bbox")}

    def texts(self, branch: str) -> tuple[str, ...]:
        """The expressions of the sub-space."""
        return tuple(str(expression) for expression, _ in self.pool[branch])

    def losses(self) -> Iterator[PlannedLoss]:
        """All losses, the baseline first."""
        if self.group.subspace is None:
            yield self._catalogued("default")
        else:
            yield from self._subspace()
        yield from self._pairs()
        for kind, count in (("random", self.group.random), ("evolved", self.group.evolved)):
            yield from self._drawn_pairs(kind, count)
        yield from self._rejected()
        for name in self.group.named:
            if name != "default" or self.group.subspace is not None:
                yield self._catalogued(name)
        for tuned in self.group.tuned:
            yield from self._tuned(tuned)

    def rng(self, *words: object) -> Generator:
        """A generator of its own for every purpose, so that one count does not steer another."""
        label = " ".join(map(str, (self.name, *words)))
        return np.random.default_rng([self.seed, zlib.crc32(label.encode())])

    def _draw(self, branch: str) -> dict[str, Drawn]:
        """By way; first mutation and crossover, which need fewer draws."""
        rejects = self.group.rejects
        wanted = max(4, self.group.random // 3, self.group.evolved // 2)
        found = {}
        for way in WAYS:
            reject = {"random": rejects.random, "mutation": rejects.mutation}.get(way, 0)
            share = self.max_draws if way == "random" else max(1, self.max_draws // 10)
            found[way] = draw(
                way,
                self.sound[branch],
                self.rng(branch, way),
                accept=wanted,
                reject=reject,
                least=min(LEAST_DRAWS[way], share),
                most=share,
                seen=self.seen[branch],
            )
            drawn = found[way]
            self.counts.append(
                DrawCount(
                    self.name,
                    branch,
                    way,
                    drawn.draws,
                    drawn.passed,
                    dict(sorted(drawn.conditions.items())),
                )
            )
        return found

    def _pool(self, branch: str) -> list[tuple[Expression, str]]:
        """The expressions of the sub-space with the way they were made."""
        if self.group.subspace is None:
            return []
        size = getattr(self.group.subspace, branch)
        drawn = self.drawn[branch]
        turns = itertools.zip_longest(drawn["mutation"].accepted, drawn["random"].accepted)
        more = [
            (expression, way)
            for turn in turns
            for expression, way in zip(turn, ("mutation", "random"), strict=True)
            if expression is not None
        ]
        whole = [(each, "hand-made") for each in self.sound[branch]] + more
        return whole[:size]

    def _subspace(self) -> Iterator[PlannedLoss]:
        for i, (cls, how) in enumerate(self.pool["cls"]):
            for j, (bbox, why) in enumerate(self.pool["bbox"]):
                yield self._pair("subspace", _ways(how, why), cls, bbox, pair=(i, j))

    def _pairs(self) -> Iterator[PlannedLoss]:
        whole = list(itertools.product(self.sound["cls"], self.sound["bbox"]))
        order = self.rng("pairs").permutation(len(whole))[: self.group.pairs]
        for place in sorted(order):
            yield self._pair("pair", "hand-made", *whole[place])

    def _drawn_pairs(self, kind: str, count: int) -> Iterator[PlannedLoss]:
        """Pairs of accepted draws; each expression is used about equally often."""
        ways = ("random",) if kind == "random" else ("mutation", "crossover")
        rng = self.rng(kind)
        sides = []
        for branch in ("cls", "bbox"):
            found = [(each, way) for way in ways for each in self.drawn[branch][way].accepted]
            if kind == "evolved":  # what was not changed in one branch stays a parent's
                found += [(each, "hand-made") for each in self.sound[branch][:2]]
            if not found:
                return
            sides.append(found)
        pairs = list(itertools.product(*sides))
        pairs = [pair for pair in pairs if {pair[0][1], pair[1][1]} != {"hand-made"}]
        pooled = {branch: {each for each, _ in self.pool[branch]} for branch in self.pool}
        pairs = [
            pair
            for pair in pairs
            if pair[0][0] not in pooled["cls"] or pair[1][0] not in pooled["bbox"]
        ]
        for place in rng.permutation(len(pairs))[:count]:
            (cls, how), (bbox, why) = pairs[place]
            yield self._pair(kind, _ways(how, why), cls, bbox)

    def _rejected(self) -> Iterator[PlannedLoss]:
        """Rejected in one branch; the other branch is the first hand-made one."""
        for branch in ("cls", "bbox"):
            other = self.sound["bbox" if branch == "cls" else "cls"][0]
            rejects = [
                (way, condition, each)
                for way, drawn in self.drawn[branch].items()
                for condition, each in drawn.rejected
            ]
            rejects += [
                ("hand-made", str(verify(each).condition), each)
                for each in self.parsed[branch]
                if each not in self.sound[branch]
            ]
            for way, condition, each in rejects:
                cls, bbox = (each, other) if branch == "cls" else (other, each)
                loss = self._pair("rejected", way, cls, bbox)
                yield replace(loss, accepted=False, condition=condition, branch=branch)

    def _catalogued(self, name: str) -> PlannedLoss:
        return self._loss("named", "catalogue", CATALOG[name])

    def _tuned(self, tuned: Tuned) -> Iterator[PlannedLoss]:
        for definition in grid_points(tuned, self.rng("tuned", tuned.loss)):
            yield self._loss("tuned", "grid", definition)

    def _pair(
        self,
        kind: str,
        way: str,
        cls: Expression,
        bbox: Expression,
        pair: tuple[int, int] | None = None,
    ) -> PlannedLoss:
        definition = LossDefinition(
            f"{self._named('cls', cls)} + {self._named('bbox', bbox)}",
            cls=ExpressionBranch(cls),
            bbox=ExpressionBranch(bbox, self.group.bbox_weight),
        )
        return self._loss(kind, way, definition, pair, accepted=True)

    def _named(self, branch: str, expression: Expression) -> str:
        text = str(expression)
        names = {str(parse(t, self.spaces[branch])): n for n, t in self.hand[branch].items()}
        return names.get(text, text)

    def _loss(
        self,
        kind: str,
        way: str,
        definition: LossDefinition,
        pair: tuple[int, int] | None = None,
        accepted: bool | None = None,
    ) -> PlannedLoss:
        given = definition.expressions.values()
        if accepted is None and given:
            accepted = all(verify(each).accepted for each in given)
        return PlannedLoss(
            _id(self.name, definition),
            self.name,
            kind,
            way,
            definition.name,
            definition.to_json(),
            accepted,
            pair=pair,
        )


def _ways(cls: str, bbox: str) -> str:
    return cls if cls == bbox else f"{cls} + {bbox}"
