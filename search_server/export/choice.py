"""Which candidate of a job is exported: the best, one by its number, or one by a loss's name."""

from __future__ import annotations

from collections.abc import Sequence

from losses import CATALOG, LossDefinition
from search_server.errors import ExportError
from search_server.report.records import best_of, trained_candidates
from search_server.store import CandidateRecord


def choose(
    job_id: str, candidates: Sequence[CandidateRecord], wanted: int | str | None
) -> tuple[CandidateRecord | None, LossDefinition]:
    """The candidate's row, None for a named loss that the job has not trained, and its definition.

    Args:
        wanted: None for the best that is not the baseline; an index; or a text: an index,
            ``JOB:INDEX``, ``best``, ``baseline``, ``mean`` (the final mean of a policy search), or
            a name of the catalogue.

    Raises:
        ExportError: there is no such candidate, or it was not trained to the end.
    """
    if wanted is None or wanted == "best":
        best = best_of(trained_candidates(candidates))
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
        if not (number.isascii() and number.isdigit()):
            return _named(job_id, candidates, wanted)
        wanted = int(number[:18])
    return _numbered(job_id, candidates, wanted)


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
    if found.state != "done" or found.fitness is None:
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
