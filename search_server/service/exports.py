"""A candidate as files to take along. They name no place of this machine: their data is meant to
lie in a folder `data` beside where they are trained.

What is written is what `lossforge export` writes, whose tests build it in clean processes; here
nothing is built, so that a download takes no minute.
"""

from __future__ import annotations

import io
import json
import re
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal

from losses import LossesError
from primitives import PrimitivesError
from search_server.errors import SearchError
from search_server.export.exporter import exported_config, render
from search_server.export.header import Evidence, evidence
from search_server.export.literal import comments
from search_server.export.standalone import module_name
from search_server.funnel.stages import TrialKey
from search_server.jobs import PACKAGED_DATA, open_job
from search_server.service.problems import Problem
from search_server.service.specs import shown_spec
from search_server.service.state import Service
from workers import Split, WorkersError
from workers.data.embedded import NAME

if TYPE_CHECKING:
    from search_server.store import CandidateRecord
    from workers import TrialSpec

Format = Literal["config", "standalone", "json"]
DATA = "data"
SPLITS = ("search_train", "search_val", "confirm", "test")
PATIENCE = 20.0  # seconds until somebody else's export is written


@dataclass(frozen=True)
class Kind:
    """What a format is sent as."""

    media_type: str
    ending: str
    schema: Mapping[str, Any]


_FILE = {"type": "string", "format": "binary"}
FORMATS: Mapping[Format, Kind] = {
    "config": Kind("text/x-python", "py", {"type": "string"}),
    "standalone": Kind("application/zip", "zip", _FILE),
    "json": Kind("application/json", "json", {"type": "object"}),
}


@dataclass(frozen=True)
class Exported:
    """A file: its name, of letters, digits and dashes, and its content."""

    name: str
    content: bytes


_one_at_a_time = threading.BoundedSemaphore(1)


def exported(service: Service, job_id: str, index: int, form: Format) -> Exported:
    """A candidate as a file.

    Raises:
        JobError: there is no such candidate.
        Problem: 409, it was not trained to the end, or cannot be written any more; 503, others
            wait already.
    """
    store = service.store
    record = store.candidate(job_id, index)
    stem = re.sub(r"[^a-z0-9]+", "-", job_id.lower()).strip("-")[:60] + f"-{index}"
    name = f"{stem}.{FORMATS[form].ending}"
    if form == "json":
        return Exported(name, (json.dumps(record.definition, indent=1) + "\n").encode())
    if record.state != "done" or (record.fitness is None and record.origin != "rival"):
        raise Problem(409, f"the candidate was not trained to the end: it is {record.state}")
    if not _one_at_a_time.acquire(timeout=PATIENCE):
        raise Problem(503, "others are exporting; try again", headers={"Retry-After": "10"})
    try:
        texts = _texts(service, job_id, record, Path(f"{stem}.py"), form)
    except (SearchError, LossesError, WorkersError, PrimitivesError, KeyError) as error:
        why = "its job's spec or its loss cannot be read by this version"
        raise Problem(409, f"the candidate cannot be exported: {why}") from error
    finally:
        _one_at_a_time.release()
    if form == "config":
        return Exported(name, texts[f"{stem}.py"].encode())
    return Exported(name, _zipped(texts))


def _texts(
    service: Service, job_id: str, record: CandidateRecord, path: Path, form: Format
) -> dict[str, str]:
    """Name of a file -> its text."""
    store = service.store
    row = store.job(job_id)
    job = open_job(store, job_id, _splits(row.spec))
    own = store.trials(job_id, record.index, curves=False)
    base = store.trials(job_id, 0, curves=False) if record.index else []
    done = [t.seed for t in own if t.stage == "proxy" and t.state == "done"]
    seeds = [s for s in job.spec.funnel.proxy.seeds if s in done] or job.spec.funnel.proxy.seeds
    trial = job.trial(TrialKey(record.index, "proxy", seeds[0]), record.definition)
    shown = replace(row, spec=shown_spec(row.spec, service.settings))
    # A key counts in where the data lies, which is not told: nothing is said about it.
    facts = replace(evidence(shown, record, [*own, *base], trial), same_key=True)
    module = module_name(path) if form == "standalone" else None
    return _written(facts, trial, path, module, packaged=row.spec.get("data") == PACKAGED_DATA)


def _written(
    facts: Evidence, trial: TrialSpec, path: Path, module: str | None, *, packaged: bool
) -> dict[str, str]:
    spec = replace(trial, precision="float32", warm_start=None, rungs=(), processes=1)
    config = _placeless(exported_config(spec, module))
    where = f"`lossforge data digits --path {DATA}` writes it" if packaged else "put yours there"
    note = comments(
        [
            f"Its data is looked for in the folder {DATA}, where it is trained: {where},",
            "or change ann_file and data_prefix below.",
            "",
        ]
    )
    texts = render(config, facts, spec, path, module)
    files = {path.name: note + texts[0]}
    if module is not None:
        files[f"{module}.py"] = texts[1]
    return files


def _splits(spec: Mapping[str, Any]) -> dict[str, Split]:
    """Where an export's data is meant to lie: nothing that is on this machine."""
    folder = f"{DATA}/{NAME}" if spec.get("data") == PACKAGED_DATA else DATA
    return {name: Split(f"{folder}/{name}.json", f"{folder}/{name}") for name in SPLITS}


def _placeless(value: Any) -> Any:
    """Plain data with the last name of every absolute path in it, as of pretrained weights."""
    if isinstance(value, str):
        return PurePath(value).name if re.match(r"(/|~/|[A-Za-z]:\\)[^\s]+", value) else value
    if isinstance(value, dict):
        return {key: _placeless(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_placeless(each) for each in value)
    return value


def _zipped(texts: Mapping[str, str]) -> bytes:
    """A zip of files; the same bytes for the same texts."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)
    return content.getvalue()
