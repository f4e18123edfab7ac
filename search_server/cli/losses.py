"""`lossforge formula`: a loss as a formula, on the screen or as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search_server.cli.options import JsonOption, StoreOption, candidate_id, open_store

if TYPE_CHECKING:
    from losses import LossDefinition


def formula(
    loss: Annotated[
        str,
        typer.Argument(
            metavar="LOSS", help="A name of the catalogue, a JSON definition, or JOB:INDEX."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Draw it: FILE.png or FILE.svg; a parameterized AP loss with its functions. Each "
            "further branch gets a file with its name in it.",
            show_default=False,
        ),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a loss computes: its formulas as LaTeX and text, its functions' control points.

    Example: lossforge formula pap-retinanet -o pap.png
    """
    from search_server.cli.formula import Formula
    from search_server.cli.output import console, one_line, plain, print_json, stdout_kept, table

    with stdout_kept():
        definition = definition_of(loss, store)
        shown = _branches(definition)
        files = [] if output is None else _pictures(definition, output)
    if as_json:
        print_json(
            {
                "loss": definition.name,
                "learning_rate_scale": definition.learning_rate_scale,
                "branches": shown,
                "files": files,
            }
        )
        return
    out = console()
    out.print(plain(definition.name, "bold"))
    made = table("", " ", fold=(" ",))
    made.show_header = False
    for branch, facts in shown.items():
        made.add_row(branch, Formula(facts["text"]))
        for name in ("formula", "functions", "latex"):
            for number, line in enumerate(facts.get(name, [])):
                made.add_row("" if number else f"  {name}", Formula(line))
    if definition.learning_rate_scale != 1.0:
        rate = f"{definition.learning_rate_scale:g} × the detector's"
        made.add_row("learning rate", Formula(rate))
    out.print(made)
    for file in files:
        print(one_line(f"wrote {file}"))


def definition_of(loss: str, store: str | None) -> LossDefinition:
    """The loss of a catalogue name, a file or a candidate."""
    from losses import CATALOG, LossDefinition, load_definition

    if ":" in loss and loss not in CATALOG and not Path(loss).is_file():
        with open_store(store) as opened:
            job, index = candidate_id(opened, loss, None)
            return LossDefinition.from_json(opened.candidate(job, index).definition)
    return load_definition(loss)


def _branches(definition: LossDefinition) -> dict[str, dict[str, Any]]:
    """By branch: its text, and its formula, LaTeX and functions where it has them."""
    from losses import RankingBranch
    from search_server.formulas import branch_texts
    from search_server.ranking_formulas import FORMULAS, function_lines, ranking_lines
    from search_server.readable import readable

    found: dict[str, dict[str, Any]] = {}
    for name, text in branch_texts(definition).items():
        facts: dict[str, Any] = {"text": text}
        branch = definition.branch(name)
        if isinstance(branch, RankingBranch):
            facts["formula"] = ranking_lines(branch)
            facts["functions"] = function_lines(branch)
            facts["latex"] = list(FORMULAS[branch.loss].latex)
        elif name in definition.expressions:
            facts["latex"] = [readable(definition.expressions[name]).latex()]
        found[name] = facts
    return found


def _pictures(definition: LossDefinition, output: Path) -> list[Path]:
    """Draws every branch that has a formula; the first one gets the name as it is.

    Raises:
        JobError: no branch has one, or the file's format is not known.
    """
    from losses import RankingBranch
    from search_server.errors import JobError
    from search_server.formulas import picture

    files: list[Path] = []
    for name in ("cls", "bbox", "rpn"):
        branch = definition.branch(name)
        drawn = branch if isinstance(branch, RankingBranch) else definition.expressions.get(name)
        if drawn is None:
            continue
        file = output.with_stem(f"{output.stem}-{name}") if files else output
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            picture(drawn, file)
        except ValueError as error:
            raise JobError(f"cannot draw {file}: {error}") from error
        files.append(file)
    if not files:
        raise JobError(f"{definition.name} has no formula: its branches are losses of mmdet")
    return files
