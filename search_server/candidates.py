"""Makes candidates: draws from what a searcher proposes until one is new and verified."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from numpy.random import Generator

from losses import LossDefinition
from primitives import Expression, canonical
from search_server.errors import JobError
from search_server.formulas import branch_text
from search_server.funnel.filters import Filters
from search_server.searchers import Observation, Problem, Proposal
from search_server.spec import Verify
from search_server.store import CandidateRecord
from search_server.store.records import SAME, Origin, Stage

if TYPE_CHECKING:
    from search_server.calibration import Calibration

WHOLE = {"policy", "mean", "tuned"}  # origins of candidates that are proposed whole, not drawn
ACCEPTED, KNOWN, EQUIVALENT = "accepted", "known", "equivalent"
MERGES_KEPT = 8  # draws found to be a known loss that are kept as text, for each candidate
DEFAULT_FILTERS = Filters(Verify())
LOOK_EVERY = 64  # draws between two looks at whether to stop


class Stopped(Exception):  # noqa: N818 - an event
    """The search was asked to stop while a candidate was being drawn."""


class NothingNew(JobError):  # noqa: N818 - an event
    """No way of the searcher's led to a candidate within its draws."""

    def __init__(self, index: int, counts: Counter[tuple[str, str]]) -> None:
        if counts and {origin for origin, _ in counts} <= WHOLE:
            super().__init__(f"what candidate {index} is to be, is in the job already")
            return
        worst = ", ".join(f"{why} {count}" for (_, why), count in counts.most_common(3))
        super().__init__(
            f"no new loss for candidate {index} in {counts.total()} draws ({worst}); "
            "raise funnel.verify.max_draws, or widen the search space"
        )


@dataclass
class Draws:
    """The draws that led to one candidate: how many had which outcome, and a sample of them.

    Every expression that was rejected is a draw; those that passed together, one per branch, are
    one draw, which is `accepted`, `known`, `equivalent` to a known one or the `same loss`.
    """

    keep: int = 0
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    traced: list[tuple[str, str, str]] = field(default_factory=list)

    def note(self, origin: str, drawn: Iterable[Expression], outcome: str) -> None:
        """Count one draw; the first `keep` of every kind of outcome are kept as text."""
        self.counts[origin, outcome] += 1
        if self.counts[origin, outcome] <= self.keep:
            self.traced.append((origin, " ; ".join(map(str, drawn)), outcome))

    def merge(self, origin: str, definition: LossDefinition, index: int) -> None:
        """Count one draw that is the loss of candidate `index`. Its definition is kept as JSON,
        so that it can be checked later that it is that loss indeed."""
        self.counts[origin, SAME] += 1
        if self.counts[origin, SAME] <= MERGES_KEPT:
            text = json.dumps(definition.to_json(), sort_keys=True)
            self.traced.append((origin, text, merged_with(index)))


def merged_with(index: int) -> str:
    """The outcome of a kept draw that is the loss of candidate `index`."""
    return f"{SAME} as {index}"


def is_new(_: LossDefinition) -> int | None:
    """Finds no candidate that is the same loss."""
    return None


def baseline_record(definition: LossDefinition) -> CandidateRecord:
    """Candidate 0: what all others are measured against; it starts at the proxy task."""
    return _record(0, "baseline", (), definition, stage="proxy", name=definition.name)


def rival_record(index: int, definition: LossDefinition) -> CandidateRecord:
    """A loss that the found ones have to beat; it is trained by the stage `confirm` alone."""
    return _record(index, "rival", (), definition, stage="confirm", name=definition.name)


def find_candidate(
    index: int,
    proposals: Iterable[Proposal],
    problem: Problem,
    rng: Generator,
    known: Collection[str],
    draws: Draws,
    max_draws: int,
    first_stage: str,
    stopped: Callable[[], bool],
    filters: Filters = DEFAULT_FILTERS,
    same: Callable[[LossDefinition], int | None] = is_new,
    calibration: Calibration | None = None,
) -> CandidateRecord:
    """The first draw that is verified in every branch and not known; every draw is counted.

    Args:
        known: keys of the loss definitions that the job has already.
        filters: what verifies, and whether a definition is equivalent to a known one.
        same: the candidate that is the same loss as a definition, None where it is new.
        calibration: gives every draw that passed its factors; None: none has any.

    Raises:
        NothingNew: all proposals were used up.
        Stopped: `stopped` said so.
    """
    for proposal in proposals:
        if proposal.origin == "named" and filters.leave_out(proposal.start, problem):
            continue
        limit = max_draws if proposal.limit is None else proposal.limit
        found = _draw(
            index, proposal, problem, rng, known, draws, limit, stopped, filters, same, calibration
        )
        if found is not None:
            name = proposal.start.name if proposal.origin == "named" else None
            record = _record(index, proposal.origin, proposal.parents, found, first_stage, name)
            return _with_factors(record, found, calibration)
    raise NothingNew(index, draws.counts)


def _draw(
    index: int,
    proposal: Proposal,
    problem: Problem,
    rng: Generator,
    known: Collection[str],
    draws: Draws,
    limit: int,
    stopped: Callable[[], bool],
    filters: Filters,
    same: Callable[[LossDefinition], int | None],
    calibration: Calibration | None,
) -> LossDefinition | None:
    """Draws branch by branch until all passed and the whole is new; `limit` holds per branch."""
    left = dict.fromkeys(proposal.draws, limit)
    while True:
        passed: dict[str, Expression] = {}
        for branch, draw in proposal.draws.items():
            while branch not in passed:
                if left[branch] == 0:
                    return None
                if left[branch] % LOOK_EVERY == 0 and stopped():
                    raise Stopped
                left[branch] -= 1
                drawn = draw(rng)
                verdict = filters.verdict(drawn)
                if verdict.accepted:
                    passed[branch] = drawn
                else:
                    draws.note(proposal.origin, (drawn,), str(verdict.condition))
        definition = proposal.start
        if proposal.origin != "named":
            definition = problem.filled(proposal.start, passed, f"candidate-{index}")
        if calibration is not None:
            definition = calibration.applied(definition)
        outcome = ACCEPTED
        if definition.key in known:
            outcome = KNOWN
        elif filters.equivalent(definition, known):
            outcome = EQUIVALENT
        elif (twin := same(definition)) is not None:
            draws.merge(proposal.origin, definition, twin)
            outcome = SAME
        if outcome != SAME:
            draws.note(proposal.origin, passed.values(), outcome)
        if outcome == ACCEPTED:
            return definition
        if not passed:
            return None


def observation(
    record: CandidateRecord, problem: Problem, rungs: Mapping[int, float] | None = None
) -> Observation:
    """What a searcher sees of a resolved candidate; `rungs` as in `Observation`."""
    definition = LossDefinition.from_json(record.definition)
    return Observation(
        record.index,
        definition,
        problem.expressions(definition),
        record.fitness,
        record.simulate_score,
        dict(rungs or {}),
    )


def _record(
    index: int,
    origin: str,
    parents: tuple[int, ...],
    definition: LossDefinition,
    stage: str,
    name: str | None,
) -> CandidateRecord:
    return CandidateRecord(
        index=index,
        origin=cast(Origin, origin),
        parents=parents,
        definition=definition.to_json(),
        key=definition.key,
        name=name,
        cls_text=_shown(definition, "cls"),
        bbox_text=_shown(definition, "bbox"),
        size=sum(expression.size for expression in definition.expressions.values()),
        stage=cast(Stage, stage),
    )


def _with_factors(
    record: CandidateRecord, definition: LossDefinition, calibration: Calibration | None
) -> CandidateRecord:
    """A candidate's record with its factors, and with why it has none where it has not."""
    if calibration is None:
        return record
    return replace(
        record,
        calibration=calibration.values(definition) or None,
        reason=calibration.reason(definition),
    )


def _shown(definition: LossDefinition, branch: str) -> str | None:
    """A branch for people: the canonical expression, a stock loss's summary, or None."""
    if branch in definition.expressions:
        return str(canonical(definition.expressions[branch]))
    given = definition.branch(branch)
    return None if given is None else branch_text(given)
