"""`export`: a candidate of a job as files that train anywhere, checked before they are given."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from losses import LossDefinition, LossesError
from losses.compile_config import compile_expressions
from losses.ranking_config import ranks
from search_server.errors import ExportError
from search_server.export.check import check
from search_server.export.choice import choose, gains_of
from search_server.export.header import Evidence, evidence, header
from search_server.export.literal import assignments, comments, escaped
from search_server.export.standalone import module_name, module_source
from search_server.funnel.stages import TrialKey
from search_server.jobs import Job, open_job
from search_server.store import CandidateRecord, Store
from workers import TrialSpec, WorkersError, build_config
from workers.config import ARITHMETIC, BFLOAT16, CUSTOM_IMPORTS
from workers.data import DataError


def export(
    store: Store,
    job_id: str,
    path: Path,
    candidate: int | str | None = None,
    *,
    standalone: bool = False,
    force: bool = False,
    precision: str = "float32",
    compile_loss: bool = False,
) -> list[Path]:
    """Writes a candidate as an mmdet config that trains through plain mmengine.

    The config is the one that the candidate's own proxy trial trained, for its first seed, with
    absolute paths. Before it gets its name it is loaded and built in a clean process.
    It trains in float32, in whatever precision the search did, unless `precision` says otherwise.

    Args:
        path: the config file, ``*.py``; a missing folder is made.
        candidate: see `choose`; None for the best.
        standalone: also write a loss module beside it, and need nothing of this project.
        force: replace existing files.
        precision: "float32" or "bfloat16", of the detector's layers.
        compile_loss: have torch.compile compile the expressions of the loss.

    Returns:
        The files written, the config first.

    Raises:
        ExportError: no such candidate, not trained, a file exists, or the config does not build; no
            file is left then.
        JobError: there is no such job.
    """
    module = module_name(path) if standalone else None
    targets = [path] if module is None else [path, path.with_name(f"{module}.py")]
    _check_targets(targets, force)
    try:
        job = open_job(store, job_id)
    except DataError as error:
        raise ExportError(f"the data of job {job_id} has gone: {error}") from error
    row, definition = choose(job_id, store.candidates(job_id), candidate, gains_of(store, job_id))
    spec = _trial(store, job, row, definition)
    facts = evidence(store.job(job_id), row, store.trials(job_id, curves=False), spec)
    spec = replace(spec, precision=precision, warm_start=None, rungs=(), processes=1)
    config = exported_config(spec, module)
    if compile_loss and not compile_expressions(config["model"]):
        raise ExportError("this loss has no expression, which alone can be compiled")
    texts = render(config, facts, spec, path, module)
    _publish(texts, targets, config, force=force)
    return targets


def exported_config(spec: TrialSpec, module: str | None) -> dict[str, Any]:
    """What a trial trains, as plain data; the imports come first.

    Args:
        module: the loss module that takes the place of this project's, for a standalone export.

    Raises:
        ExportError: the detector's config, or the loss in it, cannot be used any more.
    """
    try:
        config = build_config(spec).to_dict()
    except (LossesError, WorkersError) as error:
        raise ExportError(f"the config of the trial cannot be built: {error}") from error
    imports = config.pop("custom_imports")
    if module is not None:
        bundled = (*CUSTOM_IMPORTS, ARITHMETIC)
        others = [name for name in imports["imports"] if name not in bundled]
        imports = {**imports, "imports": [module, *others]}
    return {"custom_imports": imports, **config}


def render(
    config: Mapping[str, Any], facts: Evidence, spec: TrialSpec, path: Path, module: str | None
) -> list[str]:
    """Text of the config, and of the loss module where there is one.

    Raises:
        ExportError: the config holds what cannot be written as text.
    """
    lines = header(facts, spec, path, module)
    texts = [comments(lines) + "\n" + assignments(config)]
    if module is not None:
        notes = [f"The losses, heads and metric of {path.name}, exported by Lossforge."]
        notes += ["Apache License 2.0. One process can import one such module."]
        hooks = [hook.get("type") for hook in config.get("custom_hooks") or []]
        parts = {"ranking": ranks(config), "bfloat16": BFLOAT16 in hooks}
        texts.append(module_source([escaped(note) for note in notes], **parts))
    return texts


def _trial(
    store: Store, job: Job, row: CandidateRecord | None, definition: LossDefinition
) -> TrialSpec:
    """The candidate's own first proxy trial; for a loss never trained, what it would have been."""
    seeds = list(job.spec.funnel.proxy.seeds)
    index = 0
    if row is not None:
        index = row.index
        trials = store.trials(job.id, index, curves=False)
        done = [t.seed for t in trials if t.stage == "proxy" and t.state == "done"]
        seeds = [seed for seed in seeds if seed in done] or seeds
    data = definition.to_json() if row is None else row.definition
    return job.trial(TrialKey(index, "proxy", seeds[0]), data)


def _check_targets(targets: list[Path], force: bool) -> None:
    if targets[0].suffix != ".py":
        raise ExportError(f"{str(targets[0])!a} must end in .py: mmengine reads a config as Python")
    for target in targets:
        if target.is_dir():
            raise ExportError(f"{str(target)!a} is a folder")
        if target.exists() and not force:
            raise ExportError(
                f"{str(target)!a} exists; give another name, or --force to replace it"
            )


def _publish(
    texts: list[str], targets: list[Path], config: Mapping[str, Any], *, force: bool
) -> None:
    """Writes the files beside their places, checks them there, and then gives them their names."""
    folder = targets[0].parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        hidden = Path(tempfile.mkdtemp(prefix=".lossforge-export-", dir=folder))
    except OSError as error:
        raise ExportError(f"cannot write to {str(folder)!a}: {error.strerror}") from error
    published: list[Path] = []
    try:
        for text, target in zip(texts, targets, strict=True):
            (hidden / target.name).write_text(text, encoding="utf-8", newline="\n")
        check(hidden / targets[0].name, config, standalone=len(targets) > 1)
        for target in targets:
            _name(hidden / target.name, target, force)
            published.append(target)
    except BaseException:
        if not force:
            for target in published:
                target.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _name(source: Path, target: Path, force: bool) -> None:
    try:
        if force:
            os.replace(source, target)
        else:
            os.link(source, target)  # unlike a rename, it never replaces
    except FileExistsError:
        raise ExportError(f"{str(target)!a} exists; give another name, or --force") from None
    except OSError as error:
        raise ExportError(f"cannot write {str(target)!a}: {error.strerror}") from error
