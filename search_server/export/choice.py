"""Which candidate of a job is exported: the best, one by its number, or one by a loss's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from losses import CATALOG, LossDefinition
from search_server.candidate_names import index_named
from search_server.confirmation import confirmations
from search_server.errors import ExportError
from search_server.report.records import best_of, trained_candidates
from search_server.store import CandidateRecord
from search_server.store.judged import judged

if TYPE_CHECKING:
    from search_server.store import Store


def choose(
    job_id: str,
    candidates: Sequence[CandidateRecord],
    wanted: int | str | None,
    gains: Mapping[int, float] | None = None,
) -> tuple[CandidateRecord | None, LossDefinition]:
    """The candidate's row, None for a named loss that the job has not trained, and its definition.

    Args:
        wanted: None for the best that was found: the confirmed one of the largest gain, or, where
            none is confirmed, that of the highest fitness; an index; or a text: an index,
            ``JOB:INDEX``, ``best``, ``baseline``, ``mean`` (the final mean of a policy search), or
            a name of the catalogue.
        gains: by index, the mean difference to the baseline on `confirm`; see `gains_of`.

    Raises:
        ExportError: there is no such candidate, or it was not trained to the end.
    """
    if wanted is None or wanted == "best":
        best = best_found(candidates, gains or {})
        if best is None:
            raise ExportError(
                f"job {job_id} has no candidate that was trained to the end yet; "
                "name a loss of the catalogue, or let the search go on"
            )
        return best, LossDefinition.from_json(best.definition)
    if wanted == "baseline":
        wanted = 0
    if wanted == "mean":
        wanted = _final_mean(job_id, candidates)
    if isinstance(wanted, str):
        number = wanted.removeprefix(f"{job_id}:")
        index = index_named(number)
        if index is None:
            return _named(job_id, candidates, wanted)
        wanted = index
    return _numbered(job_id, candidates, wanted)


def gains_of(store: Store, job_id: str) -> dict[int, float]:
    """By index, how far the confirmed losses of a job, rivals included, lie above the baseline on
    `confirm`: mean over the common seeds, in AP from -1 to 1. Empty while nothing is confirmed."""
    found = confirmations(judged(store, [job_id]).get(job_id, ()))
    return {
        index: each.confirm.difference.mean
        for index, each in found.items()
        if each.confirm is not None and each.confirm.difference is not None
    }


def best_found(
    candidates: Sequence[CandidateRecord], gains: Mapping[int, float]
) -> CandidateRecord | None:
    """The best candidate of a search, neither its baseline nor a rival; None before there is one.

    What was confirmed goes before what was not: the latter may owe its fitness to luck.
    """
    trained = trained_candidates(candidates)
    confirmed = [each for each in trained if each.index in gains]
    if not confirmed:
        return best_of(trained)
    return max(confirmed, key=lambda each: (gains[each.index], -each.index))


def better_known(
    candidates: Sequence[CandidateRecord], gains: Mapping[int, float]
) -> list[tuple[str, float]]:
    """What is at least as good on `confirm` as the best that was found: name and gain of the
    baseline and the rivals, the best first. Empty while nothing is confirmed."""
    best = best_found(candidates, gains)
    if best is None or best.index not in gains:
        return []
    known = [("the baseline", 0.0)]
    known += [
        (f"the rival {each.name}", gains[each.index])
        for each in candidates
        if each.origin == "rival" and each.index in gains
    ]
    ahead = [(name, gain) for name, gain in known if gain >= gains[best.index]]
    return sorted(ahead, key=lambda pair: -pair[1])


def _final_mean(job_id: str, candidates: Sequence[CandidateRecord]) -> int:
    found = next((c.index for c in candidates if c.origin == "mean"), None)
    if found is None:
        raise ExportError(
            f"job {job_id} has no final mean: only a policy search that came to its end has one"
        )
    return found


def _numbered(
    job_id: str, candidates: Sequence[CandidateRecord], index: int
) -> tuple[CandidateRecord, LossDefinition]:
    found = next((c for c in candidates if c.index == index), None)
    if found is None:
        raise ExportError(f"job {job_id} has no candidate {index}; {_trained(candidates)}")
    if found.state != "done" or (found.fitness is None and found.origin != "rival"):
        reason = f" ({found.reason})" if found.reason else ""
        raise ExportError(
            f"candidate {job_id}:{index} was not trained to the end: it is {found.state} at stage "
            f"{found.stage}{reason}; {_trained(candidates)}"
        )
    return found, LossDefinition.from_json(found.definition)


def _named(
    job_id: str, candidates: Sequence[CandidateRecord], name: str
) -> tuple[CandidateRecord | None, LossDefinition]:
    definition = CATALOG.get(name)
    if definition is None:
        raise ExportError(
            f"{name!a} is neither a candidate's number nor a named loss; {_trained(candidates)}; "
            f"the named losses are {', '.join(CATALOG)}"
        )
    same = (c for c in candidates if c.key == definition.key)
    trained = (c for c in same if c.state == "done" and c.fitness is not None)
    return next(trained, None), definition


def _trained(candidates: Sequence[CandidateRecord]) -> str:
    indices = [str(c.index) for c in candidates if c.state == "done" and c.fitness is not None]
    shown = ", ".join(indices[:12]) + (", ..." if len(indices) > 12 else "")
    return f"trained to the end: {shown or 'none yet'}"
