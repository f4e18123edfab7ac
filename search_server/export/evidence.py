"""A published loss as two files: its definition, and all that speaks for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from losses import LossDefinition
from losses.catalog import EVIDENCE
from search_server.confirmation import CONFIRM, MEASURED, TEST, confirmations
from search_server.errors import ExportError
from search_server.store.judged import judged

if TYPE_CHECKING:
    from search_server.publish import Publication, ReadOut
    from search_server.store import Store


def write_published(
    store: Store, publication: Publication, found: ReadOut, path: Path, force: bool = False
) -> tuple[Path, Path]:
    """Writes a published row as ``NAME.json`` and ``NAME.evidence.json``.

    The first is a loss definition like those of the catalogue, named after the file. The second has
    the job's spec, its funnel counts, and every trial of `confirm` and `test`: of the row, the
    baseline, the rivals, and all others that were confirmed.

    Args:
        path: of the definition; its folder is made.
        force: replace existing files.

    Returns:
        Both paths.

    Raises:
        ExportError: the reading is not complete, ``path`` does not end in ``.json``, a file is
            there already, or cannot be written.
    """
    if found.missing:
        raise ExportError(f"{found.missing} trials are missing: publish to the end, then keep it")
    beside = free_path(path, force)
    definition = LossDefinition.from_json(publication.row.definition)
    named = replace(definition, name=path.stem).to_json()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for each, content in ((path, named), (beside, evidence(store, publication, found))):
            each.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise ExportError(f"cannot write {error.filename or path}: {error.strerror}") from error
    return path, beside


def free_path(path: Path, force: bool) -> Path:
    """Where the evidence for a loss at `path` goes.

    Raises:
        ExportError: see `write_published`.
    """
    if path.suffix != ".json" or path.name.endswith(EVIDENCE):
        raise ExportError(f"{path}: give a name that ends in .json, not in {EVIDENCE}")
    beside = path.with_name(path.stem + EVIDENCE)
    for each in (path, beside):
        if each.exists() and not force:
            raise ExportError(f"{each} is there already; --force replaces it")
    return beside


def evidence(store: Store, publication: Publication, found: ReadOut) -> dict[str, Any]:
    """What speaks for a published row, as plain JSON data; AP in [0, 1]."""
    job, row = publication.job, publication.row
    rows = store.trials(job.id, curves=False)
    judging = [t for t in rows if t.stage in (CONFIRM, TEST)]
    known = {t.candidate for t in judging} | {each.index for each in publication.candidates}
    said = confirmations(judged(store, [job.id]).get(job.id, ()))
    versions = [dict(trial.versions) for trial in judging if trial.versions]
    return {
        "job": job.id,
        "candidate": row.index,
        "origin": row.origin,
        "parents": list(row.parents),
        "proxy_ap": row.fitness,
        "spec": store.job(job.id).spec,
        "draws": [
            {"origin": origin, "outcome": outcome, "count": count}
            for (origin, outcome), count in sorted(store.counts(job.id).items())
        ],
        "losses": [
            {
                "candidate": each.index,
                "origin": each.origin,
                "name": each.name,
                "definition": dict(each.definition),
            }
            for each in store.candidates(job.id)
            if each.index in known
        ],
        "confirm": [
            {
                "candidate": index,
                "mean_difference": gain.mean,
                "interval": [gain.low, gain.high],
                "p": each.p,
                "family": each.family,
                "shrunken": each.shrunken,
                "seeds": gain.count,
            }
            for index, each in sorted(said.items())
            if each.confirm is not None and (gain := each.confirm.difference) is not None
        ],
        "trials": [
            {
                "candidate": trial.candidate,
                "stage": trial.stage,
                "seed": trial.seed,
                "state": trial.state,
                "ap": trial.fitness,
                "reused_from": trial.reused_from,
            }
            for trial in judging
            if trial.state in MEASURED
        ],
        "test": [
            {
                "against": other.candidate.index,
                "mean_difference": paired.mean,
                "interval": [paired.low, paired.high],
                "p": paired.p,
                "seeds": paired.count,
            }
            for other in found.against
            if (paired := other.difference) is not None
        ],
        "lost_trials": found.lost,
        "versions": [each for at, each in enumerate(versions) if each not in versions[:at]],
    }
