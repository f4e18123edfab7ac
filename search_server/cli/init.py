"""`lossforge init`: a commented job spec from a user's own detector and data."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from search_server.cli.options import JsonOption


class SearchKind(StrEnum):
    """The searches that a spec can be written for; `init_searches.Search`, without its imports."""

    cse = "cse"
    pap = "pap"
    autoloss_zero = "autoloss-zero"
    tuning = "tuning"


def init(
    detector: Annotated[
        str, typer.Argument(help="An mmdet config, DETECTOR.py, or a packaged one: digits/atss.")
    ],
    data: Annotated[
        str, typer.Option(metavar="PATH", help="Folder of a COCO-format data set, or `digits`.")
    ] = "digits",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The spec to write; default: stdout.",
            show_default=False,
        ),
    ] = None,
    train: Annotated[Path | None, typer.Option(help="Annotation file to train on.")] = None,
    val: Annotated[Path | None, typer.Option(help="Annotation file to evaluate on.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the images.")] = None,
    kind: Annotated[
        SearchKind,
        typer.Option(
            "--search",
            help="For what: `cse` for expressions from known losses on (CSE-AutoLoss), `pap` for "
            "the functions of a parameterized AP loss, `autoloss-zero` for expressions from "
            "nothing on, `tuning` for the numbers of hand-made losses.",
        ),
    ] = SearchKind.cse,
    timed: Annotated[
        bool, typer.Option("--time/--no-time", help="Train ten steps, to say how long it takes.")
    ] = True,
    slots: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Trials at once to reckon with.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a job spec for your detector and data, and say what the search will take.

    Example: lossforge init my_detector.py --data /data/coco -o search.yaml
    """  # fmt: skip
    from search_server.cli.output import one_line, print_json, stdout_kept
    from search_server.errors import SearchError

    if output is not None and output.exists():
        raise SearchError(f"{output} exists and is left as it is; give another name")
    with stdout_kept():
        from search_server.init_searches import Search
        from search_server.init_spec import init as drafted
        from search_server.init_spec import write

        draft = drafted(
            detector,
            data,
            train=train,
            val=val,
            images=images,
            search=Search(kind.value),
            timed=timed,
            slots=slots,
        )
        if output is not None:
            write(draft, output)
    if as_json:
        print_json({"file": output, "spec": draft.spec.to_json(), "plan": draft.plan})
        return
    if output is None:
        print(draft.text, end="")
        return
    print(one_line(f"wrote {output}"))
    if draft.plan is not None:
        from search_server.cli.search import print_plan

        print_plan(draft.plan)
    print(one_line(f"next: lossforge search {output}"))
