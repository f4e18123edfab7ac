"""What `lossforge noise` prints: a table a variant for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from search_server.noise import Noise


def print_noise(spec: Path, found: Sequence[Noise]) -> None:
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


def noise_json(noise: Noise) -> dict[str, object]:
    from search_server.cli.output import jsonable

    found = jsonable(noise)
    found["ratio"] = noise.ratio
    found["sd_paired"] = None if noise.paired is None else noise.paired.paired_deviation
    return dict(found)
