"""`lossforge noise`: how much trials vary, and how many seeds a gain needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search_server.cli.noise_output import noise_json, print_noise
from search_server.cli.options import JsonOption, StoreOption, open_store
from search_server.cli.search import AddressOption, SlotsOption

if TYPE_CHECKING:
    from search_server.noise import Noise
    from search_server.noise_variants import Variant
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
        from search_server.noise_variants import Variant, parse_variant
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
        print_json({"spec": str(spec), "variants": [noise_json(each) for each in found]})
    else:
        print_noise(spec, found)
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
