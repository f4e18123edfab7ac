"""`lossforge compare`: losses side by side, trained from the same seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search_server.cli.options import JsonOption, StoreOption
from search_server.cli.search import AddressOption, SlotsOption

if TYPE_CHECKING:
    from rich.table import Table

    from losses import LossDefinition
    from search_server.comparison import Comparison, Contender
    from search_server.comparison_rows import Row
    from search_server.spec import Resources
    from workers import TrialSpec


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
            help="The split to evaluate on; default: test, with --spec: confirm.",
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
            help="The seeds are this one and those after it; default: 1000, with --spec 3000, "
            "which no stage of a job uses.",
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
            setting = _own_setting(detector, *own, device, threads, gpus, trial_seconds)
        else:
            _check_alone(
                detector=detector, data=data, train_split=train_split, images=images,
                device=device, threads=threads, gpus=gpus, trial_seconds=trial_seconds,
            )  # fmt: skip
            setting = _spec_setting(spec, split, steps, batch_size)
        contenders, base = _contenders(losses, baseline, store, setting)
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
        _print_json(comparison, rows, about)
    else:
        _print(comparison, rows, about)
    if stopped:
        raise typer.Exit(130)
    if any(row.failed for row in rows):
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Setting:
    """What is trained beside the losses.

    Attributes:
        baseline: what a spec measures its candidates against; None: the first loss.
        about: for the output.
    """

    template: TrialSpec
    resources: Resources
    baseline: LossDefinition | None
    first_seed: int
    about: dict[str, str]


def _own_setting(
    detector: str | None,
    data: str | None,
    train_split: str | None,
    split: str | None,
    images: Path | None,
    steps: int | None,
    batch_size: int | None,
    device: Device | None,
    threads: int | None,
    gpus: float | None,
    trial_seconds: float | None,
) -> _Setting:
    """From the command's own options."""
    from search_server.comparison_splits import choose_splits
    from search_server.errors import JobError
    from search_server.loss_choice import detector_path
    from search_server.spec import Resources
    from workers import TrialSpec, load_detector

    if detector is None:
        raise JobError("give --spec SPEC.yaml, or --detector: what is to be trained?")
    data, train, split = data or "digits", train_split or "search_train", split or "test"
    where: Any = (device or Device.auto).value
    splits, classes = choose_splits(data, (train, split), images)
    template = TrialSpec(
        detector=load_detector(detector_path(detector)),
        definition={},
        train=splits[0],
        evaluate=splits[1],
        seed=0,
        steps=steps or 600,
        batch_size=batch_size or 8,
        classes=classes,
        device=where,
        threads=threads or 1,
        time_limit=trial_seconds,
    )
    cores = threads or 1
    resources = Resources(cpus=cores, gpus=gpus or 0.0, threads=cores, device=where)
    about = {"detector": detector, "data": data, "train_split": train, "split": split}
    return _Setting(template, resources, None, 1000, about)


def _spec_setting(
    path: Path, split: str | None, steps: int | None, batch_size: int | None
) -> _Setting:
    """From a job spec, as it confirms its candidates."""
    from search_server.spec import load_spec
    from search_server.spec_trials import FIRST_SEED, spec_trials

    spec = load_spec(path)
    found = spec_trials(spec, path, split=split, steps=steps, batch_size=batch_size)
    about = {
        "spec": str(path),
        "detector": spec.detector,
        "data": spec.data if isinstance(spec.data, str) else "the spec's data",
        "train_split": "search_train",
        "split": found.split,
    }
    return _Setting(found.template, spec.resources, found.baseline, FIRST_SEED, about)


def _check_alone(**options: object) -> None:
    """What the spec says cannot be said again.

    Raises:
        JobError: an option was given beside --spec.
    """
    from search_server.errors import JobError

    given = [name for name, value in options.items() if value is not None]
    if given:
        option = given[0].replace("_", "-")
        raise JobError(f"--{option} is in the spec: give --spec or --{option}, not both")


def _contenders(
    losses: Sequence[str], baseline: str | None, store: str | None, setting: _Setting
) -> tuple[tuple[Contender, ...], int]:
    """The losses, and which of them is the baseline; a spec's own is added if it is missing."""
    from search_server.cli.options import open_store
    from search_server.comparison import Contender
    from search_server.contenders import choose_contenders

    found, base = choose_contenders(losses, baseline, lambda: open_store(store))
    own = setting.baseline
    if own is None or baseline is not None:
        return found, base
    same = [i for i, each in enumerate(found) if each.definition.key == own.key]
    if same:
        return found, same[0]
    name = own.name if own.name not in {each.name for each in found} else f"{own.name} (spec)"
    return (Contender(name, own), *found), 0


def _print(comparison: Comparison, rows: Sequence[Row], about: dict[str, str]) -> None:
    from search_server.cli.output import console, plain

    out = console()
    trial, base = comparison.template, comparison.contenders[comparison.baseline].name
    out.print(
        plain(
            f"{about['detector']} on {about['data']}: {trial.steps} steps of {trial.batch_size} "
            f"images of {about['train_split']}, AP on {about['split']}, "
            f"seeds {comparison.seeds[0]} to {comparison.seeds[-1]}",
            "bold",
        )
    )
    out.print(_table(rows))
    out.print(
        plain(
            f"Differences to {base} within each seed, AP in points. Interval: 95%, Student's t; "
            f"p: paired t test, corrected (Holm) for {len(rows) - 1}; shrunken: without the luck "
            "of the best of them.",
            "dim",
        )
    )
    for row in rows:
        for count, what in (
            (len(row.diverged), "diverged: counted as AP 0"),
            (
                len(row.failed),
                "failed or timed out: not counted; the same command with --output tries again",
            ),
            (len(row.missing), "not trained yet"),
        ):
            if count:
                trials = "1 trial" if count == 1 else f"{count} trials"
                out.print(plain(f"{row.name}: {trials} {what}"))


def _table(rows: Sequence[Row]) -> Table:
    from search_server.cli.leaderboard import p_value
    from search_server.cli.output import plain, table

    right = ("n", "AP", "sd", "difference", "95% interval", "p", "shrunken", "wins")
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
        shrunken = "" if row.shrunken is None else f"{100 * row.shrunken:+.2f}"
        made.add_row(
            plain(row.name), str(spread.count), ap, sd, difference, interval, p_value(row.p),
            shrunken, wins, style="bold" if row.is_baseline else "",
        )  # fmt: skip
    return made


def _print_json(comparison: Comparison, rows: Sequence[Row], about: dict[str, str]) -> None:
    from search_server.cli.output import print_json

    print_json(
        {
            **about,
            "steps": comparison.template.steps,
            "batch_size": comparison.template.batch_size,
            "precision": comparison.template.precision,
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
                    "p": row.p,
                    "shrunken": row.shrunken,
                    "by_seed": row.by_seed,
                    "diverged": row.diverged,
                    "failed": row.failed,
                    "missing": row.missing,
                }
                for row, contender in zip(rows, comparison.contenders, strict=True)
            ],
        }
    )
