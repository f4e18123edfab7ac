"""`lossforge verify`: is an expression a loss? Says which condition failed, with numbers."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from search_server.cli.options import JsonOption
from search_server.cli.output import console, note, plain, print_json, table

if TYPE_CHECKING:
    from primitives import SearchSpace
    from search_server.funnel.verification import Verdict

ACCEPTED, REJECTED, NOT_PARSED = 0, 1, 2


class Method(Enum):
    """How an expression is judged, see `funnel.verify.method` of a spec."""

    convergence = "convergence"
    rejection = "rejection"


def verify(
    expression: Annotated[
        str, typer.Argument(help="The loss in prefix form, for example 'Sub(1,Div(I,U))'.")
    ],
    space: Annotated[
        str,
        typer.Option(
            help="multi_cls, binary_cls, box, the same after autoloss_zero_, or a JSON file with a "
            "space of your own."
        ),
    ],
    method: Annotated[
        Method | None,
        typer.Option(
            help="Convergence property verification, or AutoLoss-Zero's loss rejection, which is "
            "the default for its spaces.",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check whether a loss has what training needs; no detector is trained.

    Exit status: 0 accepted, 1 rejected, 2 the expression or the space could not be read.

    Example: lossforge verify "Sub(1,Div(I,U))" --space box
    """
    from primitives import PrimitivesError, parse
    from search_server.funnel.filters import Filters
    from search_server.funnel.verification import family_of
    from search_server.spec import Verify

    try:
        chosen = read_space(space)
        family = family_of(chosen).name
        parsed = parse(expression, chosen)
    except PrimitivesError as error:
        note(f"lossforge: {error}")
        raise typer.Exit(NOT_PARSED) from None
    settings = Verify(method=None if method is None else method.value)
    verdict = Filters(settings).verdict(parsed)
    if json:
        print_json(
            {
                "expression": str(parsed),
                "space": chosen.name,
                "family": family,
                "accepted": verdict.accepted,
                "condition": verdict.condition,
                "message": verdict.message,
                "measures": verdict.measures,
            }
        )
    else:
        _show(str(parsed), verdict)
    raise typer.Exit(ACCEPTED if verdict.accepted else REJECTED)


def read_space(text: str) -> SearchSpace:
    """The built-in space of a name, or the space in a JSON file.

    Raises:
        PrimitivesError: no such space or file, or the file holds no space.
    """
    import json
    from pathlib import Path

    from primitives import SPACES, PrimitivesError, SearchSpace

    if text in SPACES:
        return SPACES[text]
    try:
        content = Path(text).read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise PrimitivesError(
            f"unknown space {text!r}: known are {', '.join(SPACES)}, and it is no readable file"
        ) from None
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise PrimitivesError(f"{text} is not JSON: {error}") from None
    return SearchSpace.from_json(data)


def _show(expression: str, verdict: Verdict) -> None:
    out = console()
    if verdict.accepted:
        out.print(plain("accepted", "bold green"))
    else:
        out.print(plain(f"rejected: {verdict.condition}", "bold red"))
    out.print(plain(verdict.message))
    out.print(plain(expression, "dim"))
    shown = table("measure", "value", right=("value",))
    for name, value in verdict.measures.items():
        shown.add_row(name.replace("_", " "), f"{value:.4g}")
    out.print(shown)
