"""`lossforge bench`: what the funnel, its policies and the searchers are worth, by replay."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search_server.cli.options import JsonOption, StoreOption

if TYPE_CHECKING:
    from search_server.rank_correlation import Correlation
    from search_server.table.bench import Bench, GroupBench
    from search_server.table.proportions import Interval, Share
    from search_server.table.tournament import Tournament

FORMATS = (".png", ".svg", ".pdf")


def bench(
    table: Annotated[
        str, typer.Argument(metavar="[TABLE]", help="A packaged table, or the folder of one.")
    ] = "digits-v1",
    job: Annotated[
        str | None,
        typer.Option(metavar="JOB", help="Rank the stages of a finished job instead of a table's."),
    ] = None,
    store: StoreOption = None,
    searches: Annotated[
        int,
        typer.Option(min=0, max=10_000, help="Search seeds of each way to search; 0: no searches."),
    ] = 20,
    budget: Annotated[
        float, typer.Option(min=1, help="Trial time of a replayed search, in whole trials.")
    ] = 24.0,
    vanilla: Annotated[
        float, typer.Option(min=1, help="The same of vanilla evolution, the one to be overtaken.")
    ] = 72.0,
    parts: Annotated[
        bool, typer.Option("--parts", help="Take the default searcher apart as well.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the answers (PNG, SVG or PDF).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Replay filters, halving, confirmation and searchers on a table of trained losses.

    No detector is trained. How many good losses each filter throws away, how well each stage ranks,
    what halving and confirmation cost and lose, and which searcher finds most in equal trial time.

    Example: lossforge bench --searches 50 --plot bench.png
    """
    from search_server.cli.output import note, print_json, stdout_kept
    from search_server.errors import JobError

    if job is not None:
        from search_server.cli.stages import stages

        stages(job, store, as_json)
        return
    if plot is not None and plot.suffix.lower() not in FORMATS:
        raise JobError(f"{plot}: a figure ends in {', '.join(FORMATS)}")
    with stdout_kept():
        from search_server.table.bench import run_bench
        from search_server.table.load import load_table

        say = None if as_json else note
        found = run_bench(load_table(table), searches, budget, vanilla, parts, say)
        if plot is not None:
            from search_server.table.plot import draw_bench

            draw_bench(found, plot)
    if as_json:
        print_json(found)
        return
    _show(found)
    if plot is not None:
        print(f"drawn: {plot}")


def _show(found: Bench) -> None:
    from search_server.cli.output import console, plain

    out = console()
    counted = found.counted
    out.print(
        plain(
            f"{found.table}: {counted['trained']} of {counted['losses']} losses, {counted['ended']}"
            f" of {counted['trials']} trials",
            "bold",
        )
    )
    for group in found.groups:
        out.print()
        words = [f"{group.group}: {group.trained} losses trained"]
        for what, value in (
            ("baseline AP", group.baseline),
            ("best AP", group.best),
            ("noise of a trial", group.noise),
            ("of it a loss's own", group.own_noise),
        ):
            if value is not None:
                words.append(f"{what} {100 * value:.2f}")
        out.print(plain("; ".join(words), "bold"))
        _show_filters(group)
        _show_ranking(group)
        _show_policies(group)
        if group.searchers is not None:
            _show_searchers(group.searchers)


def _show_filters(group: GroupBench) -> None:
    from search_server.cli.output import console, plain, table

    replay = group.filters
    if replay is None:
        return
    out = console()
    out.print(
        plain(f"A loss is good from AP {100 * replay.mark:.2f}, the baseline less the noise.")
    )
    if replay.conditions:
        made = table("rejected by", "branch", "good", "share", "best AP", right=("good", "best AP"))
        for row in replay.conditions:
            good = f"{row.good.hits} of {row.good.count}"
            made.add_row(row.condition, row.branch, good, _share(row.good), f"{100 * row.best:.1f}")
        out.print(made)
    right = ("draws", "accepted", "good of those")
    made = table("drawn by", "branch", *right, "good ones rejected", right=right)
    for way in replay.ways:
        made.add_row(
            way.way,
            way.branch,
            str(way.draws),
            str(way.accepted),
            f"{way.good.hits} of {way.good.count}",
            "-" if way.false_rejection is None else _percent(way.false_rejection),
        )
    out.print(made)
    if replay.simulation:
        made = table("simulation keeps", "good ones lost", "share", "best kept")
        for kept in replay.simulation:
            lost = f"{kept.lost.hits} of {kept.lost.count}"
            best = "yes" if kept.best_kept else "no"
            made.add_row(f"{kept.keep:.0%}", lost, _share(kept.lost), best)
        out.print(made)


def _show_ranking(group: GroupBench) -> None:
    from search_server.cli.output import console, table

    made = table("reading", "cost", "rank correlation, all", "contenders", right=("cost",))
    for row in group.ranking:
        every, near = _correlation(row.every), _correlation(row.contenders)
        made.add_row(row.reading, f"{row.cost:.2f}", every, near)
    console().print(made)


def _show_policies(group: GroupBench) -> None:
    from search_server.cli.output import console, table

    if group.halving:
        right = ("cost", "to the end", "winner stays", "best stays", "AP lost")
        made = table("rungs", "reduction", "hopeless", *right, right=right)
        for row in group.halving:
            policy = row.policy
            made.add_row(
                " ".join(map(str, policy.rungs)) or "none",
                "-" if not policy.rungs or policy.reduction > 1000 else str(policy.reduction),
                f"{policy.hopeless:g}" if policy.rungs else "-",
                f"{row.cost:.2f}",
                f"{row.finished:.0%}",
                f"{row.survives:.0%}",
                f"{row.best:.0%}",
                f"{100 * row.regret:.2f} ± {100 * row.error:.2f}",
            )
        console().print(made)
    if group.confirm:
        right = ("seeds", "trials", "AP to the best", "luck", "gain")
        made = table("confirm the best", *right, right=right)
        for confirm in group.confirm:
            made.add_row(
                str(confirm.top),
                str(confirm.seeds),
                str(confirm.trials),
                f"{100 * confirm.regret:.2f}",
                f"{100 * confirm.luck:+.2f}",
                f"{100 * confirm.gain:+.2f}",
            )
        console().print(made)


def _show_searchers(found: Tournament) -> None:
    from search_server.cli.output import console, plain, table

    out = console()
    out.print(
        plain(
            f"searches on {found.pairs} of {found.of} pairs, {found.seeds} seeds each, trial time "
            f"{found.budget:g} (vanilla evolution {found.vanilla:g}) whole trials"
        )
    )
    if not found.unbiased:
        out.print(plain("One seed so far: gains are of the seed that chose, so luck is in them."))
    right = ("gain, AP", "over random", "p", "time / vanilla's", "missed")
    made = table("search", *right, right=right)
    for row in found.rows:
        made.add_row(
            plain(row.name),
            _points(row.gain),
            "-" if row.difference is None else _points(row.difference),
            "-" if row.p is None else f"{row.p:.2g}",
            f"{row.time.value:.2f} ({row.time.low:.2f}, {row.time.high:.2f})",
            str(row.missed),
        )
    out.print(made)


def _share(given: Share) -> str:
    return (
        "-" if given.value is None else f"{given.value:.0%} ({given.low:.0%} to {given.high:.0%})"
    )


def _percent(given: Interval) -> str:
    return f"{given.value:.1%} ({given.low:.1%} to {given.high:.1%})"


def _points(given: Interval) -> str:
    return f"{100 * given.value:+.1f} ({100 * given.low:+.1f}, {100 * given.high:+.1f})"


def _correlation(given: Correlation | None) -> str:
    if given is None:
        return "-"
    return f"{given.value:.2f} ({given.low:.2f} to {given.high:.2f}), {given.count} losses"
