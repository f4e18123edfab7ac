"""`lossforge compare`: losses side by side, trained from the same seeds."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from search_server.cli.compare_output import print_rows, print_rows_json
from search_server.cli.compare_setting import (
    check_alone,
    chosen_contenders,
    own_setting,
    spec_setting,
)
from search_server.cli.options import JsonOption, StoreOption
from search_server.cli.search import AddressOption, SlotsOption


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
    spec: Annotated[
        Path | None,
        typer.Option(
            metavar="SPEC.yaml",
            help="Train as this job spec confirms its candidates: its detector, data, budget, "
            "precision and resources, on its split `confirm`, against its baseline.",
            show_default=False,
        ),
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(
            help="Without --spec: an mmdet config, or a packaged detector: digits/retinanet.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="digits|PATH",
            help="The digits (default), or a folder in COCO layout.",
            show_default=False,
        ),
    ] = None,
    train_split: Annotated[
        str | None,
        typer.Option(help="The split to train on; default: search_train.", show_default=False),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="The split to evaluate on; default: confirm. A reading of test is recorded by "
            "publish, not here.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="With a folder: where the images are, if they are not found."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Optimiser steps of each trial; default: 600, or the spec's.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, max=4096, help="Images a step; default: 8, or the spec's.", show_default=False
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Trials of each loss, at least 2.")] = 8,
    first_seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=2**32 - 1,
            help="The seeds are this one and those after it; default: 3000, for no stage of a "
            "job uses these.",
            show_default=False,
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="LOSS",
            help="What the others are measured against; default: the first, with --spec its own.",
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
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Draw the differences by seed with their intervals.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        Device | None,
        typer.Option(help="Where a trial trains; default: auto.", show_default=False),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, max=256, help="CPU threads of a trial; default: 1.", show_default=False
        ),
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option(min=0, max=64, help="GPUs that Ray reserves for a trial.", show_default=False),
    ] = None,
    trial_seconds: Annotated[
        float | None,
        typer.Option(min=1, help="Kill a trial that takes longer.", show_default=False),
    ] = None,
    address: AddressOption = None,
    slots: SlotsOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train losses from the same seeds; show AP, paired difference, its interval and p value.

    Trials of one seed have the same batches and, if the losses leave the head its layers, the same
    initialisation. A training that diverges counts as AP 0; one that fails or runs out of time
    does not count, and the table says so. Ctrl-C shows what is there; with --output the same
    command goes on.

    Example: lossforge compare focal-giou my-job-1:7 --spec configs/search/digits_atss.yaml
    -o trials.jsonl
    """
    from search_server.cli.output import note, stdout_kept

    with stdout_kept():
        from search_server.cli.trials import run_trials
        from search_server.comparison import Comparison
        from search_server.comparison_rows import table_rows

        if spec is None:
            own = (data, train_split, split, images, steps, batch_size)
            where = None if device is None else device.value
            setting = own_setting(detector, *own, where, threads, gpus, trial_seconds)
        else:
            check_alone(
                detector=detector, data=data, train_split=train_split, images=images,
                device=device, threads=threads, gpus=gpus, trial_seconds=trial_seconds,
            )  # fmt: skip
            setting = spec_setting(spec, split, steps, batch_size)
        contenders, base = chosen_contenders(losses, baseline, store, setting)
        first = setting.first_seed if first_seed is None else first_seed
        numbers = tuple(range(first, first + max(seeds, 0)))
        comparison = Comparison(setting.template, contenders, base, numbers)
        comparison.check()
        results, stopped = run_trials(comparison, setting.resources, output, address, slots)
    about = setting.about
    rows = table_rows(comparison, results)
    if plot is not None:
        with stdout_kept():
            from search_server.comparison_plot import plot_comparison

            plot_comparison(comparison, rows, plot)
        note(f"wrote {plot}")
    if as_json:
        print_rows_json(comparison, rows, about)
    else:
        print_rows(comparison, rows, about)
    if stopped:
        raise typer.Exit(130)
    if any(row.failed for row in rows):
        raise typer.Exit(1)
