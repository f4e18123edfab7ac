"""`lossforge calibrate`: a loss with the gradient norm of a spec's baseline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search_server.cli.options import JsonOption, StoreOption

if TYPE_CHECKING:
    from losses import LossDefinition
    from search_server.spec import JobSpec


def calibrate(
    loss: Annotated[
        str,
        typer.Argument(
            metavar="LOSS", help="A name of the catalogue, a JSON definition, or JOB:INDEX."
        ),
    ],
    spec: Annotated[
        Path,
        typer.Option(
            metavar="SPEC.yaml", help="The job spec with the detector, the data and the baseline."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.json",
            help="Write the loss with its factors, for `train`, `compare` and a spec's `named`.",
            show_default=False,
        ),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the gradients of a loss and of a spec's baseline, and make them equally large.

    The baseline is run on a few batches, without a step; then a loss takes milliseconds. A search
    does the same with every candidate, see `calibrate` in its spec.

    Example: lossforge calibrate cse-autoloss-b --spec configs/search/digits_atss.yaml -o cse-b.json
    """
    from search_server.cli.losses import definition_of
    from search_server.cli.output import console, one_line, plain, print_json, stdout_kept, table
    from search_server.spec import load_spec

    with stdout_kept():
        definition = definition_of(loss, store)
        rows, found = _measured(definition, load_spec(spec), spec)
        if output is not None:
            _write(output, found)
    if as_json:
        print_json({"loss": definition.name, "branches": rows, "definition": found.to_json()})
        return
    out = console()
    out.print(plain(definition.name, "bold"))
    columns = ("baseline", "norm", "ratio", "factor")
    made = table("branch", *columns, right=columns)
    for name, row in rows.items():
        made.add_row(name, *(f"{row[column]:.4g}" for column in columns))
    if rows:
        out.print(made)
    else:
        out.print("its branches are losses of mmdet, which are left as they are")
    if output is not None:
        print(one_line(f"wrote {output}"))


def _measured(
    definition: LossDefinition, spec: JobSpec, source: Path
) -> tuple[dict[str, dict[str, float]], LossDefinition]:
    """By branch that is an expression: the gradient norms, their ratio and the factor. And the loss
    with its factors."""
    from dataclasses import replace

    from losses import ExpressionBranch, detector_family
    from search_server.calibration import branch_norm, calibrated, captured, factors
    from search_server.funnel.stages import TrialKey
    from search_server.jobs import prepare_job
    from workers.detector import parse_detector

    job = prepare_job(spec, source)
    family = detector_family(parse_detector(job.detector))
    trial = job.trial(TrialKey(0, "proxy", spec.seed), job.baseline.to_json())
    given = captured(trial, {"cls": family.cls_space, "bbox": "box"})
    rows: dict[str, Any] = {}
    for name, factor in factors(definition, given).items():
        branch = definition.branch(name)
        assert isinstance(branch, ExpressionBranch)
        rows[name] = {
            "baseline": given.norms[name],
            "norm": branch_norm(given, name, replace(branch, scale=1.0)),
            "ratio": factor.ratio,
            "factor": factor.value,
        }
    return rows, calibrated(definition, given)


def _write(path: Path, definition: LossDefinition) -> None:
    """Writes a definition.

    Raises:
        JobError: it cannot be written.
    """
    import json

    from search_server.errors import JobError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(definition.to_json(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise JobError(f"cannot write {path}: {error.strerror}") from error
