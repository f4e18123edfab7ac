"""`lossforge compare`: losses side by side, trained from the same seeds."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search_server.cli.options import JsonOption, StoreOption
from search_server.cli.search import AddressOption, SlotsOption

if TYPE_CHECKING:
    from rich.table import Table

    from search_server.comparison import Comparison, Ended, Row


class Device(StrEnum):
    """Where a trial trains."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


def compare(
    losses: Annotated[
        list[str],
        typer.Argument(
            metavar="LOSS...",
            help="Catalogue names, JSON definitions, or candidates JOB:INDEX, JOB:best, JOB:mean.",
        ),
    ],
    detector: Annotated[
        str, typer.Option(help="An mmdet config, or a packaged detector: digits/retinanet.")
    ],
    data: Annotated[
        str, typer.Option(metavar="digits|PATH", help="The digits, or a folder in COCO layout.")
    ] = "digits",
    train_split: Annotated[str, typer.Option(help="The split to train on.")] = "search_train",
    split: Annotated[str, typer.Option(help="The split to evaluate on.")] = "test",
    images: Annotated[
        Path | None,
        typer.Option(help="With a folder: where the images are, if they are not found."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps of each trial.")] = 600,
    batch_size: Annotated[int, typer.Option(min=1, max=4096, help="Images a step.")] = 8,
    seeds: Annotated[int, typer.Option(help="Trials of each loss, at least 2.")] = 8,
    first_seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="The seeds are this one and those after it.")
    ] = 1000,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="LOSS",
            help="What the others are measured against; default: the first.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.jsonl",
            help="Keep each trial here as it ends; a rerun repeats none of them.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where a trial trains.")] = Device.auto,
    threads: Annotated[int, typer.Option(min=1, max=256, help="CPU threads of a trial.")] = 1,
    gpus: Annotated[
        float, typer.Option(min=0, max=64, help="GPUs that Ray reserves for a trial.")
    ] = 0.0,
    trial_seconds: Annotated[
        float | None,
        typer.Option(min=1, help="Kill a trial that takes longer.", show_default=False),
    ] = None,
    address: AddressOption = None,
    slots: SlotsOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train losses from the same seeds; show AP, paired difference and its 95% interval.

    Trials of one seed have the same batches and, if the losses leave the head its layers, the same
    initialisation. A training that diverges counts as AP 0; one that fails does not count, and the
    table says so. Ctrl-C shows what is there; with --output the same command goes on.

    Example: lossforge compare focal-l1 focal-giou --detector digits/retinanet -o trials.jsonl
    """
    from search_server.cli.output import note, stdout_kept

    with stdout_kept():
        from search_server.comparison import run_comparison, table_rows
        from search_server.comparison_file import ComparisonFile
        from search_server.controller import stop_on_signals
        from search_server.executors.choice import chosen_address, open_executor
        from search_server.spec import Resources

        chosen_address(address, slots)
        comparison = _comparison(
            losses, baseline, store, detector, data, (train_split, split), images,
            steps=steps,
            batch_size=batch_size,
            seeds=tuple(range(first_seed, first_seed + max(seeds, 0))),
            device=device.value,
            threads=threads,
            time_limit=trial_seconds,
        )  # fmt: skip
        comparison.check()
        resources = Resources(cpus=threads, gpus=gpus, threads=threads, device=device.value)
        with contextlib.ExitStack() as stack:
            file = None if output is None else stack.enter_context(ComparisonFile(output))
            if file is None:
                note("no --output: the trials are not kept, and a rerun begins anew")
            stop = stack.enter_context(stop_on_signals())
            executor = stack.enter_context(
                contextlib.closing(open_executor(resources, address, slots))
            )
            results = run_comparison(comparison, executor, file, _say, stop)
            stopped = stop.is_set()
    rows = table_rows(comparison, results)
    about = {"detector": detector, "data": data, "train_split": train_split, "split": split}
    if as_json:
        _print_json(comparison, rows, about)
    else:
        _print(comparison, rows, about)
    if stopped:
        raise typer.Exit(130)
    if any(row.failed for row in rows):
        raise typer.Exit(1)


def _comparison(
    losses: Sequence[str],
    baseline: str | None,
    store: str | None,
    detector: str,
    data: str,
    splits: tuple[str, str],
    images: Path | None,
    **more: Any,
) -> Comparison:
    from search_server.cli.options import open_store
    from search_server.comparison import Comparison, choose_splits
    from search_server.contenders import choose_contenders
    from search_server.loss_choice import detector_path
    from workers import load_detector

    contenders, base = choose_contenders(losses, baseline, lambda: open_store(store))
    (train, evaluate), classes = choose_splits(data, splits, images)
    return Comparison(
        detector=load_detector(detector_path(detector)),
        contenders=contenders,
        baseline=base,
        train=train,
        evaluate=evaluate,
        classes=classes,
        **more,
    )


def _say(ended: Ended) -> None:
    from search_server.cli.output import duration, note, points

    result = ended.result
    how = f"AP {points(result.fitness)}"
    if result.status != "done":
        how = f"{result.status}: {result.reason}"
    text = f"{ended.done}/{ended.of}  {ended.name}, seed {ended.seed}: {how}"
    took = duration(result.seconds.get("total"))
    left = "" if not ended.seconds_left else f"; about {duration(ended.seconds_left)} left"
    note(f"{text} ({took}{left})")


def _print(comparison: Comparison, rows: Sequence[Row], about: dict[str, str]) -> None:
    from search_server.cli.output import console, plain

    out = console()
    base = comparison.contenders[comparison.baseline].name
    out.print(
        plain(
            f"{about['detector']} on {about['data']}: {comparison.steps} steps of "
            f"{comparison.batch_size} images of {about['train_split']}, AP on {about['split']}, "
            f"seeds {comparison.seeds[0]} to {comparison.seeds[-1]}",
            "bold",
        )
    )
    out.print(_table(rows))
    out.print(
        plain(
            f"Differences to {base} within each seed; interval: 95%, Student's t; AP in points. "
            "Intervals are not widened for the number of losses.",
            "dim",
        )
    )
    for row in rows:
        for count, what in (
            (len(row.diverged), "diverged: counted as AP 0"),
            (len(row.failed), "failed: not counted; the same command with --output tries again"),
            (len(row.missing), "not trained yet"),
        ):
            if count:
                trials = "1 trial" if count == 1 else f"{count} trials"
                out.print(plain(f"{row.name}: {trials} {what}"))


def _table(rows: Sequence[Row]) -> Table:
    from search_server.cli.output import plain, table

    right = ("n", "AP", "sd", "difference", "95% interval", "wins")
    made = table("loss", *right, right=right, fold=("loss",))
    for row in rows:
        spread, paired = row.spread, row.difference
        ap = "-" if not spread.count else f"{100 * spread.mean:.2f}"
        sd = "-" if spread.deviation is None else f"{100 * spread.deviation:.2f}"
        difference, interval, wins = ("baseline" if row.is_baseline else "-"), "", ""
        if paired is not None:
            difference = f"{100 * paired.mean:+.2f}"
            wins = f"{paired.wins} of {paired.count}"
            if paired.low is not None and paired.high is not None:
                interval = f"{100 * paired.low:+.2f} to {100 * paired.high:+.2f}"
        style = "bold" if row.is_baseline else ""
        made.add_row(
            plain(row.name), str(spread.count), ap, sd, difference, interval, wins, style=style
        )
    return made


def _print_json(comparison: Comparison, rows: Sequence[Row], about: dict[str, str]) -> None:
    from search_server.cli.output import print_json

    print_json(
        {
            **about,
            "steps": comparison.steps,
            "batch_size": comparison.batch_size,
            "seeds": comparison.seeds,
            "baseline": comparison.contenders[comparison.baseline].name,
            "losses": [
                {
                    "name": row.name,
                    "definition": contender.definition.to_json(),
                    "count": row.spread.count,
                    "mean": row.spread.mean,
                    "deviation": row.spread.deviation,
                    "difference": row.difference,
                    "by_seed": row.by_seed,
                    "diverged": row.diverged,
                    "failed": row.failed,
                    "missing": row.missing,
                }
                for row, contender in zip(rows, comparison.contenders, strict=True)
            ],
        }
    )
