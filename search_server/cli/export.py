"""`lossforge export` and `lossforge report`: what a search leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search_server.cli.options import (
    CompileOption,
    JobArgument,
    JsonOption,
    Precision,
    ServerOption,
    StoreOption,
    job_id,
    open_store,
    server_url,
)

if TYPE_CHECKING:
    from search_server.report.races import Race
    from search_server.store import Store


def export(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The config to write, FILE.py.")
    ],
    job: JobArgument = None,
    candidate: Annotated[
        str | None,
        typer.Option(
            help="JOB:INDEX, INDEX, `best`, `mean` (of a policy search), or the name of a "
            "catalogue loss; default: the best.",
            show_default=False,
        ),
    ] = None,
    standalone: Annotated[
        bool,
        typer.Option(
            "--standalone",
            help="Also write one Python module, so that the config needs no Lossforge.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
    precision: Annotated[
        Precision, typer.Option(help="Arithmetic of the layers, whatever the search had.")
    ] = Precision.float32,
    compile_loss: CompileOption = False,
    store: StoreOption = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the best loss of a job as an mmdet config that trains through plain mmengine.

    The config is loaded and built in a clean process before it gets its name. One of a service
    (--server) is not; it names no data of the service's machine, but a folder `data`.

    Example: lossforge export digits-atss-1 -o best.py
    """
    from search_server.cli.output import stdout_kept
    from search_server.errors import JobError

    if (url := server_url(server, store)) is not None:
        from search_server.cli import remote

        if compile_loss or precision is not Precision.float32:
            raise JobError("a service exports in float32, not compiled; leave these options out")
        of, files = remote.export(url, job, candidate, output, standalone=standalone, force=force)
        _say_files(of, files, as_json=as_json)
        return
    chosen = candidate
    if candidate is not None and ":" in candidate:
        named, _, index = candidate.rpartition(":")
        if job is not None and named != job:
            raise JobError(f"--candidate {candidate} is of another job than {job}")
        job, chosen = named, index
    with open_store(store) as opened:
        of = job_id(opened, job)
        with stdout_kept():
            from search_server.export import export as write

            files = write(
                opened, of, output, chosen,
                standalone=standalone,
                force=force,
                precision=precision.value,
                compile_loss=compile_loss,
            )  # fmt: skip
        if candidate in (None, "best"):
            _say_what_is_better(opened, of)
    _say_files(of, files, as_json=as_json)


def _say_files(of: str, files: list[Path], *, as_json: bool) -> None:
    from search_server.cli.output import one_line, print_json

    if as_json:
        print_json({"job": of, "files": [file.absolute() for file in files]})
        return
    for file in files:
        print(one_line(f"wrote {file}"))


def _say_what_is_better(store: Store, of: str) -> None:
    """On stderr, if the search found nothing that beats what was known before."""
    from search_server.cli.output import note
    from search_server.export.choice import better_known, gains_of

    gains = gains_of(store, of)
    for name, gain in better_known(store.candidates(of), gains):
        note(f"{name} is at least as good on confirm ({100 * gain:+.1f} AP to the baseline)")


def report(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The picture to write, FILE.png.")
    ],
    job: JobArgument = None,
    candidate: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Show the formula and the curves of this one; by default those of the best.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="JOB",
            help="A job of the same task to draw beside it: best AP over training steps; may be "
            "given several times.",
            show_default=False,
        ),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw a job as a PNG: fitness over trials, the funnel, the best formula and its curves.

    With --against, how many training steps it took to where the other job ended is printed too.

    Example: lossforge report evidence-atss-search-1 --against evidence-atss-random-1 -o x.png
    """
    from search_server.cli.output import one_line, print_json, stdout_kept

    with open_store(store) as opened, stdout_kept():
        of = job_id(opened, job)
        from search_server.report import report as draw
        from search_server.report.races import races

        found = races(opened, of, against) if against else ()
        draw(opened, of, output, found, candidate)
    if as_json:
        print_json({"job": of, "file": output.absolute(), "races": found})
        return
    print(one_line(f"wrote {output}"))
    for other in found[1:]:
        print(one_line(_beside(found[0], other)))


def _beside(own: Race, other: Race) -> str:
    """Where another job ended, and when this one was there."""
    took = other.took
    if other.best is None or took is None:
        return f"{other.job}: nothing of its own trained to the end"
    text = f"{other.job}: best own AP {100 * other.best:.1f} after {took:,.0f} steps"
    reached = own.steps_to(other.best)
    if reached is None:
        return f"{text}; not reached by {own.job}"
    return f"{text}; {own.job} was there after {reached:,.0f}, {reached / took:.2f} times as many"
