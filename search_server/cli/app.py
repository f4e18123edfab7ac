"""The commands and their order. Nothing heavy is imported before a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from search_server.cli import data, maintenance, table
from search_server.cli.attempts import cancel, logs, status
from search_server.cli.bench import bench
from search_server.cli.calibrate import calibrate
from search_server.cli.compare import compare
from search_server.cli.export import export, report
from search_server.cli.init import init
from search_server.cli.jobs import jobs, show
from search_server.cli.leaderboard import leaderboard
from search_server.cli.losses import formula
from search_server.cli.metrics import metrics
from search_server.cli.noise import noise
from search_server.cli.publish import publish
from search_server.cli.search import resume, search
from search_server.cli.serve import serve, token
from search_server.cli.stages import stages
from search_server.cli.submit import submit
from search_server.cli.train import train
from search_server.cli.verify import verify

app = typer.Typer(
    name="lossforge",
    help="Search for the loss functions of object detectors.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

SEARCHING, RESULTS, UPKEEP = "Search", "Results", "Upkeep"


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"lossforge {version('lossforge')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


for _command, _panel in (
    (init, SEARCHING),
    (noise, SEARCHING),
    (search, SEARCHING),
    (submit, SEARCHING),
    (resume, SEARCHING),
    (status, SEARCHING),
    (logs, SEARCHING),
    (cancel, SEARCHING),
    (verify, SEARCHING),
    (calibrate, SEARCHING),
    (jobs, RESULTS),
    (leaderboard, RESULTS),
    (show, RESULTS),
    (stages, RESULTS),
    (bench, RESULTS),
    (formula, RESULTS),
    (export, RESULTS),
    (report, RESULTS),
    (compare, RESULTS),
    (publish, RESULTS),
    (train, RESULTS),
    (serve, RESULTS),
    (metrics, UPKEEP),
    (maintenance.gc, UPKEEP),
    (maintenance.doctor, UPKEEP),
):
    app.command(rich_help_panel=_panel)(_command)
app.add_typer(table.app, name="table", rich_help_panel=RESULTS)
app.add_typer(token, name="token", rich_help_panel=UPKEEP)
app.add_typer(data.app, name="data", rich_help_panel=UPKEEP)
app.add_typer(maintenance.db, name="db", rich_help_panel=UPKEEP)
