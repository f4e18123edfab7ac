"""The losses of a comparison, from what a person typed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from losses import CATALOG, DefinitionError, LossDefinition, load_definition
from search_server.comparison import Contender
from search_server.export.choice import choose, gains_of

if TYPE_CHECKING:
    from search_server.store import Store

OpenStore = Callable[[], AbstractContextManager["Store"]]


def choose_contenders(
    losses: Sequence[str], baseline: str | None, open_store: OpenStore
) -> tuple[tuple[Contender, ...], int]:
    """The contenders, and the index of the baseline.

    Args:
        losses: each a name of the catalogue, the path of a JSON definition, or ``JOB:INDEX``,
            ``JOB:best``, ``JOB:mean`` and ``JOB:baseline`` for a candidate that a job has trained.
        baseline: written in the same way; it is added in front if it is not among the losses.
            None: the first loss.
        open_store: opens the store; only called for a candidate.

    Raises:
        DefinitionError: a text is none of these, or a file holds no definition.
        StoreError, JobError, ExportError: there is no such store, job or trained candidate.
    """
    texts = list(losses)
    if baseline is not None and baseline not in texts:
        texts.insert(0, baseline)
    definitions = [_definition(text, open_store) for text in texts]
    short = [_short(t, d) for t, d in zip(texts, definitions, strict=True)]
    times = Counter(short)
    names = [s if times[s] == 1 else text for s, text in zip(short, texts, strict=True)]
    contenders = tuple(map(Contender, names, definitions))
    return contenders, 0 if baseline is None else texts.index(baseline)


def _definition(text: str, open_store: OpenStore) -> LossDefinition:
    job, colon, which = text.rpartition(":")
    if colon and text not in CATALOG and not Path(text).is_file() and not text.endswith(".json"):
        with open_store() as store:
            record = store.job(job)
            _, definition = choose(
                record.id, store.candidates(record.id), which, gains_of(store, record.id)
            )
            return definition
    try:
        return load_definition(text)
    except DefinitionError as error:
        raise DefinitionError(f"{error}; a job's candidate is written JOB:INDEX") from error


def _short(text: str, definition: LossDefinition) -> str:
    """What the tables call it: a file by the name in it, all others as typed."""
    return text if text in CATALOG or not Path(text).is_file() else definition.name
