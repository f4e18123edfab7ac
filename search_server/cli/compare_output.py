"""What `lossforge compare` prints: a table for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from search_server.comparison import Comparison
    from search_server.comparison_rows import Row


def print_rows(comparison: Comparison, rows: Sequence[Row], about: dict[str, str]) -> None:
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


def print_rows_json(comparison: Comparison, rows: Sequence[Row], about: dict[str, str]) -> None:
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
