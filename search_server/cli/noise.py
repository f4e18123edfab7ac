"""`lossforge noise`: how much trials vary, and how many seeds a gain needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search_server.cli.options import JsonOption, StoreOption, open_store
from search_server.cli.search import AddressOption, SlotsOption

if TYPE_CHECKING:
    from rich.console import Console

    from search_server.noise import Noise, Variant
    from search_server.spec import JobSpec


def noise(
    spec: Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="The job spec.")],
    seeds: Annotated[int, typer.Option(help="Trials of each loss, at least 2.")] = 8,
    loss: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LOSS",
            help="Measure with this loss beside the baseline, as `compare` takes it; repeatable. "
            "Default: two hand-made ones that fit the detector.",
            show_default=False,
        ),
    ] = None,
    gain: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=100,
            help="Say what this gain needs too, in points of AP.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="The split to evaluate on, or several: search_val+confirm. Default: confirm.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps of each trial; default: the spec's.", show_default=False),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, max=4096, help="Images a step; default: the spec's.", show_default=False
        ),
    ] = None,
    average: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            max=0.999999,
            show_default=False,
            help="Evaluate a running mean of the weights, in which the newest have this weight.",
        ),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'NAME: KEY=VALUE ...'",
            help="Measure this variant as well: steps, batch_size, split, average, or any key of "
            "the detector's config; repeatable.",
            show_default=False,
        ),
    ] = None,
    first_seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="The seeds are this one and those after it.")
    ] = 3000,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.jsonl",
            help="Keep each trial here as it ends; a rerun, or `compare --spec`, repeats none.",
            show_default=False,
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png", help="Draw the seeds that gains need.", show_default=False
        ),
    ] = None,
    address: AddressOption = None,
    slots: SlotsOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the noise floor of a job spec: what gains can its confirm stage detect at all?

    The baseline and two hand-made losses are trained as the spec confirms its candidates, from
    paired seeds. The floor is kept in the store; `search` and `submit` warn by it when
    `target_gain` of a spec is below what its seeds can detect.

    Example: lossforge noise configs/search/digits_atss.yaml --seeds 8 --gain 1 -o noise.jsonl
    """  # fmt: skip
    from search_server.cli.output import note, print_json, stdout_kept

    with stdout_kept():
        from search_server.noise import Variant, parse_variant
        from search_server.spec import load_spec

        loaded = load_spec(spec)
        base = Variant("as it is", (), steps, batch_size, split, average)
        variants = [base, *(parse_variant(text) for text in variant or ())]
        measured = _Measuring(loaded, spec, seeds, first_seed, loss, gain, output, address, slots)
        found, stopped = measured.all(variants, store)
    with open_store(store, create=True) as opened:
        for each in found:
            floor = each.floor()
            if floor is not None and not stopped:
                opened.add_noise_floor(floor)
    if plot is not None:
        with stdout_kept():
            from search_server.noise_plot import plot_noise

            plot_noise(found, plot)
        note(f"wrote {plot}")
    if as_json:
        print_json({"spec": str(spec), "variants": [_json(each) for each in found]})
    else:
        _print(spec, found)
    if stopped:
        raise typer.Exit(130)


class _Measuring:
    """Trains what a noise floor is made of, one variant after the other."""

    def __init__(
        self,
        spec: JobSpec,
        source: Path,
        seeds: int,
        first_seed: int,
        losses: Sequence[str] | None,
        gain: float | None,
        output: Path | None,
        address: str | None,
        slots: int | None,
    ) -> None:
        self.spec, self.source, self.losses, self.output = spec, source, losses, output
        self.seeds = tuple(range(first_seed, first_seed + max(seeds, 0)))
        self.address, self.slots = address, slots
        wanted = {gain, spec.target_gain} - {None}
        self.gains: tuple[float, ...] = tuple(each for each in wanted if each is not None)

    def all(self, variants: Sequence[Variant], store: str | None) -> tuple[list[Noise], bool]:
        """The noise of each variant, and whether Ctrl-C ended it early."""
        from search_server.cli.trials import run_trials
        from search_server.comparison import Comparison, Contender
        from search_server.comparison_rows import table_rows
        from search_server.contenders import choose_contenders
        from search_server.noise import GAINS, measured, noise_losses

        prepared = []
        for variant in variants:  # what is wrong is said before the first trial
            trials = variant.trials(self.spec, self.source, variants[0])
            names = self.losses or noise_losses(trials)
            chosen, _ = choose_contenders(names, None, lambda: open_store(store))
            own = [each for each in chosen if each.definition.key != trials.baseline.key]
            contenders = (Contender("baseline", trials.baseline), *own)
            comparison = Comparison(trials.template, contenders, 0, self.seeds)
            comparison.check()
            prepared.append((variant, trials, comparison))
        found = []
        for variant, trials, comparison in prepared:
            results, stopped = run_trials(
                comparison, self.spec.resources, self.output, self.address, self.slots
            )
            spent = [r.seconds["total"] for r in results.values() if "total" in r.seconds]
            seconds = sum(spent) / len(spent) if spent else None
            rows = table_rows(comparison, results)
            gains = (*GAINS, *self.gains)
            found.append(measured(variant.name, trials, comparison, rows, gains, seconds))
            if stopped:
                return found, True
        return found, False


def _print(spec: Path, found: Sequence[Noise]) -> None:
    from search_server.cli.output import console, plain

    out = console()
    for number, each in enumerate(found):
        if number:
            out.print()
        out.print(plain(f"{spec}: {each.name}" if len(found) > 1 else str(spec), "bold"))
        _print_one(out, each)
    if len(found) > 1:
        out.print()
        _print_variants(out, found)


def _print_one(out: Console, noise: Noise) -> None:
    from search_server.cli.output import plain, table

    made = table("loss", "n", "AP", "sd", "", right=("n", "AP", "sd"), fold=("",))
    for row in noise.rows:
        sd = "-" if row.spread.deviation is None else f"{100 * row.spread.deviation:.2f}"
        ap = f"{100 * row.spread.mean:.2f}" if row.spread.count else "-"
        why = noise.left_out.get(row.name)
        lost = f"{len(row.failed)} failed or timed out" if row.failed else ""
        text = f"not in the paired noise: {why}" if why else lost
        made.add_row(plain(row.name), str(row.spread.count), ap, sd, plain(text))
    out.print(made)
    if noise.ratio is not None:
        out.print(f"signal: the baseline's AP is {noise.ratio:.1f} times the sd of its trials")
    paired = noise.paired
    if paired is None or noise.limit is None:
        out.print("paired noise: not known; it takes two losses with two seeds in common")
        return
    out.print(
        f"paired noise: sd {100 * paired.paired_deviation:.2f} AP of a difference within a seed, "
        f"{paired.freedom} degrees of freedom; below {100 * noise.limit:.2f} with 80% confidence"
    )
    if noise.detectable is not None:
        out.print(
            f"confirm with {noise.confirm_seeds} seeds finds a gain of {noise.detectable:.2f} AP "
            f"in 4 of 5 cases (best of {noise.top}, p < 0.05 corrected)"
        )
    right = ("gain, AP", "seeds: one loss", f"best of {noise.top}", "cautious")
    needs = table(*right, right=right)
    for need in noise.needs:
        numbers = (need.one, need.best, need.cautious)
        shown = ("> 100,000" if number is None else str(number) for number in numbers)
        needs.add_row(f"{need.gain:g}", *shown)
    out.print(needs)
    out.print(
        "paired t test, power 0.8; cautious: if the sd is as large as its 80% limit", style="dim"
    )


def _print_variants(out: Console, found: Sequence[Noise]) -> None:
    """What each variant does to the noise, side by side."""
    from search_server.cli.output import duration, plain, table

    right = ("AP", "sd", "AP/sd", "paired sd", "detectable", "time")
    made = table("variant", *right, right=right, fold=("variant",))
    for each in found:
        spread = each.base.spread
        made.add_row(
            plain(each.name),
            f"{100 * spread.mean:.2f}" if spread.count else "-",
            "-" if spread.deviation is None else f"{100 * spread.deviation:.2f}",
            "-" if each.ratio is None else f"{each.ratio:.1f}",
            "-" if each.paired is None else f"{100 * each.paired.paired_deviation:.2f}",
            "-" if each.detectable is None else f"{each.detectable:.2f}",
            duration(each.seconds),
        )
    out.print(made)


def _json(noise: Noise) -> dict[str, object]:
    from search_server.cli.output import jsonable

    found = jsonable(noise)
    found["ratio"] = noise.ratio
    found["sd_paired"] = None if noise.paired is None else noise.paired.paired_deviation
    return dict(found)
