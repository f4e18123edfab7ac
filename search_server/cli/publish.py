"""`lossforge publish`: the one reading of the split `test`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search_server.cli.options import JsonOption, StoreOption, job_id, open_store
from search_server.cli.search import AddressOption, SlotsOption

if TYPE_CHECKING:
    from search_server.publish import Publication, ReadOut, ReadTrial
    from search_server.store import Store


def publish(
    row: Annotated[
        str | None,
        typer.Argument(
            metavar="[JOB[:INDEX]]",
            help="The row of the leaderboard; default: the newest job's best.",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=1000,
            help="How many fresh seeds; default: 8. Fixed when a row is first published.",
            show_default=False,
        ),
    ] = None,
    unconfirmed: Annotated[
        bool, typer.Option("--unconfirmed", help="Publish a row that was not confirmed.")
    ] = False,
    keep: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="Also write the loss as FILE.json, and as FILE.evidence.json all that speaks for "
            "it: spec, funnel counts, every trial of confirm and test.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
    address: AddressOption = None,
    slots: SlotsOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read the split `test` once for a row: it, the baseline and the rivals from fresh seeds.

    The seeds are fixed before anything is trained. Published again, the row's recorded reading is
    shown and nothing is trained. After Ctrl-C the same command goes on.

    Example: lossforge publish digits-atss-1
    """
    from search_server.cli.output import note, stdout_kept
    from search_server.executors.choice import chosen_address

    chosen_address(address, slots)
    if keep is not None:
        from search_server.export.evidence import free_path

        free_path(keep, force)  # before hours are spent
    elif force:
        raise typer.BadParameter("it is for the files of --keep", param_hint="--force")
    named, colon, which = (row or "").rpartition(":")
    with open_store(store) as opened:
        of = job_id(opened, named if colon else row)
        with stdout_kept():
            from search_server.publish import prepare_publication, read_out

            publication = prepare_publication(
                opened, of, which if colon else None, seeds, unconfirmed
            )
            found = read_out(opened, publication)
        recorded = publication.fixed and not found.missing
        if publication.fixed and seeds not in (None, len(publication.seeds)):
            note(f"its {len(publication.seeds)} seeds were fixed when it was first published")
        if not publication.confirmed:
            note("not confirmed: its lead may be the luck that it was picked for")
        stopped = False
        if not recorded:
            _hint(opened, publication)
            stopped = _train(opened, publication, address, slots)
            found = read_out(opened, publication)
        if keep is not None and not stopped:
            from search_server.export.evidence import write_published

            for file in write_published(opened, publication, found, keep, force):
                note(f"wrote {file}")
    if as_json:
        _print_json(publication, found, recorded)
    else:
        _print(publication, found, recorded)
    if stopped:
        raise typer.Exit(130)
    if found.lost:
        raise typer.Exit(1)


def _train(store: Store, publication: Publication, address: str | None, slots: int | None) -> bool:
    """Trains what is missing, with a bar on a terminal and lines elsewhere, on stderr; whether it
    was stopped by Ctrl-C."""
    from contextlib import closing

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from search_server.cli.output import console, duration, note, points, stdout_kept

    out = console(stderr=True)
    with stdout_kept():
        from search_server.controller import stop_on_signals
        from search_server.executors.choice import open_executor
        from search_server.publish import run_publication

        resources = publication.job.spec.resources
        columns = (TextColumn("test"), BarColumn(), MofNCompleteColumn())
        with (
            closing(open_executor(resources, address, slots)) as executor,
            stop_on_signals() as stop,
            Progress(
                *columns,
                TextColumn("{task.fields[left]}"),
                console=out,
                disable=not out.is_terminal,
            ) as bar,
        ):
            total = len(publication.seeds) * len(publication.candidates)
            task = bar.add_task("test", total=total, left="")

            def say(ended: ReadTrial) -> None:
                left = f"about {duration(ended.seconds_left)} left"
                bar.update(task, completed=ended.done, total=ended.of, left=left)
                if not out.is_terminal:
                    how = f"AP {points(ended.fitness)}"
                    if ended.state != "done":
                        how = f"{ended.state}: {ended.reason}"
                    what = f"{ended.name}, seed {ended.key.seed}: {how}"
                    note(f"{ended.done}/{ended.of}  {what}; {left}")

            run_publication(store, publication, executor, say, stop)
            return stop.is_set()


def _hint(store: Store, publication: Publication) -> None:
    """How many seeds the job's target gain needs, where the noise was measured."""
    from search_server.cli.output import note
    from search_server.export.choice import gains_of
    from search_server.funnel.outcomes import TrialKey
    from search_server.leaderboard import trial_group
    from search_server.power import seeds_needed

    job, number = publication.job, len(publication.seeds)
    stage = "confirm" if "confirm" in job.splits else "proxy"
    floor = store.noise_floor(trial_group(job.trial(TrialKey(0, stage, 0), {})))  # type: ignore[arg-type]
    if floor is None or floor.sd_paired is None:
        note(f"{number} seeds; how many a gain needs says: lossforge noise SPEC")
        return
    target = job.spec.target_gain
    gain = target / 100 if target else gains_of(store, job.id).get(publication.row.index, 0.0)
    if gain <= 0:
        return
    needed = seeds_needed(gain, floor.sd_paired)
    asked = "more than 100,000" if needed is None else str(needed)
    note(f"{number} seeds; by the noise floor a gain of {100 * gain:.2f} AP needs {asked}")


def _print(publication: Publication, found: ReadOut, recorded: bool) -> None:
    from search_server.cli.leaderboard import p_value
    from search_server.cli.output import console, plain, table

    out, row = console(), publication.row
    title = f"{publication.job.id}:{row.index}" + (f"  {row.name}" if row.name else "")
    when = "as recorded" if recorded else "read now"
    seeds = f"{publication.seeds[0]} to {publication.seeds[-1]}"
    out.print(plain(f"{title} on test, {len(publication.seeds)} seeds ({seeds}), {when}", "bold"))
    right = ("n", "AP", "sd", "gain over it", "95% interval", "p", "wins")
    made = table("loss", *right, right=right, fold=("loss",))
    made.add_row(plain("this row"), *_ap(found.ap), "", "", "", "", style="bold")
    for other in found.against:
        name = "baseline" if other.candidate.index == 0 else other.candidate.name
        name = name or f"candidate {other.candidate.index}"
        paired, cells = other.difference, ["-", "", "", ""]
        if paired is not None:
            cells[0] = f"{100 * paired.mean:+.2f}"
            cells[3] = f"{paired.wins} of {paired.count}"
            if paired.low is not None and paired.high is not None:
                cells[1] = f"{100 * paired.low:+.2f} to {100 * paired.high:+.2f}"
            if paired.p is not None:
                cells[2] = p_value(paired.p)
        made.add_row(plain(name), *_ap(other.ap), *cells)
    out.print(made)
    notes = [
        "Differences within each seed; interval and p value: Student's t, of this row alone; AP in "
        "points.",
        "" if publication.confirmed else "Not confirmed: it may have been picked by luck.",
        f"{found.missing} trials are missing; the same command goes on." if found.missing else "",
        f"{found.lost} trials failed and do not count." if found.lost else "",
    ]
    out.print(plain(" ".join(filter(None, notes)), "dim"))


def _ap(by_seed: Mapping[int, float]) -> tuple[str, str, str]:
    """Number of seeds, mean and deviation, in points."""
    from search_server.seed_statistics import spread

    found = spread(by_seed)
    if not found.count:
        return "0", "-", ""
    deviation = "" if found.deviation is None else f"{100 * found.deviation:.2f}"
    return str(found.count), f"{100 * found.mean:.2f}", deviation


def _print_json(publication: Publication, found: ReadOut, recorded: bool) -> None:
    from search_server.cli.output import print_json

    row = publication.row
    print_json(
        {
            "job": publication.job.id,
            "index": row.index,
            "id": f"{publication.job.id}:{row.index}",
            "definition": row.definition,
            "confirmed": publication.confirmed,
            "recorded": recorded,
            "seeds": publication.seeds,
            "by_seed": found.ap,
            "missing": found.missing,
            "lost": found.lost,
            "against": [
                {
                    "index": other.candidate.index,
                    "name": other.candidate.name,
                    "origin": other.candidate.origin,
                    "definition": other.candidate.definition,
                    "by_seed": other.ap,
                    "difference": other.difference,
                }
                for other in found.against
            ],
        }
    )
