"""`lossforge table`: plans, trains, exports and shows the table of trained losses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search_server.cli.options import JsonOption

if TYPE_CHECKING:
    from search_server.table.build import Progress

app = typer.Typer(no_args_is_help=True, help="The table of trained losses that `bench` replays.")

TableArgument = Annotated[
    str,
    typer.Argument(metavar="[TABLE]", help="Name of a packaged table, or the folder of one."),
]


@app.command()
def plan(
    spec: Annotated[Path, typer.Argument(help="The spec of the table, a YAML file.")],
    folder: Annotated[
        Path | None,
        typer.Option(help="Where the plan goes; default: tables/NAME.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a plan that is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Choose the losses of a table, once; the same spec and seed give the same losses.

    Example: lossforge table plan configs/tables/digits.yaml
    """
    from search_server.cli.output import note, print_json, stdout_kept
    from search_server.errors import JobError

    with stdout_kept():
        from search_server.table.calibrate import calibrator
        from search_server.table.making import make_plan
        from search_server.table.plan import PLAN_FILE, write_plan
        from search_server.table.spec import load_table_spec

        given = load_table_spec(spec)
        path = (folder or Path("tables") / given.name) / PLAN_FILE
        if path.exists() and not force:
            raise JobError(
                f"{path} is there, and its trials belong to it; give --force to replace it, or "
                "another --folder"
            )
        made = make_plan(given, seed, calibrator(given) if given.calibrate else None)
        write_plan(made, path)
    kinds: dict[str, dict[str, int]] = {}
    for loss in made.losses:
        of = kinds.setdefault(loss.group, {})
        of[loss.kind] = of.get(loss.kind, 0) + 1
    if as_json:
        print_json({"plan": path, "losses": len(made.losses), "kinds": kinds})
        return
    for group, counts in kinds.items():
        print(f"{group}: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))
    print(f"{len(made.losses)} losses in {path}")
    note(f"train them:  lossforge table build {path.parent}")


@app.command()
def build(
    table: TableArgument = "digits-v1",
    minutes: Annotated[
        float | None,
        typer.Option(min=0, help="Start no trial after that; the running ones end."),
    ] = None,
    slots: Annotated[int, typer.Option(min=1, max=1024, help="Trials at once.")] = 1,
) -> None:
    """Train what is missing in a table; can be stopped at any time, and goes on where it was.

    Exit status: 0 nothing is left, 1 stopped before.

    Example: lossforge table build --minutes 60
    """
    from search_server.cli.output import stdout_kept

    with stdout_kept():
        from search_server.controller import stop_on_signals
        from search_server.executors import InlineExecutor
        from search_server.table.build import build_table
        from search_server.table.load import table_folder
        from search_server.table.log import LOG_FILE, TableLog
        from search_server.table.plan import PLAN_FILE, read_plan

        folder = table_folder(table)
        made = read_plan(folder / PLAN_FILE)
    with (
        TableLog(folder / LOG_FILE) as log,
        InlineExecutor(slots) as executor,
        stop_on_signals() as stop,
    ):
        done = build_table(made, log, executor, minutes, _say, stop)
    if done:
        print(f"all trials are there: lossforge table export {table}")
    raise typer.Exit(0 if done else 1)


def _say(progress: Progress) -> None:
    from search_server.cli.output import duration, note, points

    trial, loss = progress.trial, progress.loss
    how = f"AP {points(trial.ap)}" if trial.ap is not None else trial.status
    note(
        f"{progress.done}/{progress.of}  {loss.group} {loss.kind} {loss.id} {trial.stage} seed "
        f"{trial.seed}: {how} ({duration(trial.seconds.get('total'))})"
    )


@app.command()
def export(
    table: TableArgument = "digits-v1",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder; default: that of the table."),
    ] = None,
) -> None:
    """Write the trained table as compressed CSV files, for any program to read.

    Example: lossforge table export digits-v1
    """
    from search_server.cli.output import stdout_kept

    with stdout_kept():
        from search_server.table.files import DRAWS, LOSSES, TRIALS, write_table
        from search_server.table.load import table_folder
        from search_server.table.log import LOG_FILE, read_log
        from search_server.table.plan import PLAN_FILE, read_plan

        folder = table_folder(table)
        into = output or folder
        made = write_table(into, read_plan(folder / PLAN_FILE), read_log(folder / LOG_FILE))
    counted = made.counted
    print(
        f"{counted['trained']} of {counted['losses']} losses, {counted['ended']} of "
        f"{counted['trials']} trials: {LOSSES}, {TRIALS}, {DRAWS} in {into}"
    )


@app.command()
def show(
    table: TableArgument = "digits-v1",
    limit: Annotated[int, typer.Option(min=1, help="Losses of each detector.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Show the best losses of a table and how much of it has been trained.

    Example: lossforge table show --limit 20
    """
    from search_server.cli.output import console, plain, points, print_json, stdout_kept
    from search_server.cli.output import table as columns

    with stdout_kept():
        from search_server.table.load import load_table

        loaded = load_table(table)
    best = {
        group: sorted(loaded.trained(group), key=lambda loss: -(loss.mean() or 0.0))
        for group in loaded.groups
    }
    if as_json:
        rows = {
            group: [
                {
                    "id": loss.id,
                    "name": loss.plan.name,
                    "kind": loss.plan.kind,
                    "accepted": loss.plan.accepted,
                    "mean": loss.mean(),
                    "by_seed": {seed: each.ap for seed, each in loss.readings.items()},
                    "simulate": loss.score,
                    "definition": loss.plan.definition,
                }
                for loss in losses[:limit]
            ]
            for group, losses in best.items()
        }
        print_json({"table": loaded.name, "counted": loaded.counted, "best": rows})
        return
    out = console()
    counted = loaded.counted
    out.print(
        plain(
            f"{loaded.name}: {counted['trained']} of {counted['losses']} losses, "
            f"{counted['ended']} of {counted['trials']} trials",
            "bold",
        )
    )
    for group, losses in best.items():
        made = columns("AP", "seeds", "kind", group, right=("AP", "seeds"), fold=(group,))
        for loss in losses[:limit]:
            own = " (baseline)" * (loss.id == loaded.baselines[group])
            made.add_row(
                points(loss.mean()),
                str(len(loss.readings)),
                loss.plan.kind,
                plain(loss.plan.name + own),
            )
        out.print(made)
