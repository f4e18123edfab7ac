"""`lossforge leaderboard`: the best losses, of one job or of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search_server.cli.options import (
    JsonOption,
    ServerOption,
    StoreOption,
    open_store,
    server_url,
)

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from search_server.leaderboard import LeaderboardGroup, LeaderboardRow, Paired
    from search_server.paired_statistics import Paired as PairedTest

MOST_ROWS = 10**9  # no store has more, and no database counts without end


class StateFilter(StrEnum):
    """The states of a candidate."""

    open = "open"
    dropped = "dropped"
    done = "done"
    failed = "failed"


def leaderboard(
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="[JOB]", help="Id of the job; default: all, side by side.", show_default=False
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=MOST_ROWS, help="Rows per group.")
    ] = 20,
    offset: Annotated[int, typer.Option(min=0, max=MOST_ROWS, help="Rows to leave out first.")] = 0,
    state: Annotated[
        StateFilter | None, typer.Option(help="Only candidates in this state.", show_default=False)
    ] = None,
    pareto: Annotated[
        bool,
        typer.Option("--pareto", help="Only the front: those better than all that are no larger."),
    ] = False,
    store: StoreOption = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the best losses: AP, difference to the baseline paired by seed, and the formulas.

    Confirmed losses come first, ranked by their difference on `confirm`: its 95% interval, its p
    value corrected for their number, and the shrunken estimate. Failed ones come last. Without a
    JOB it shows all jobs, grouped by what was trained on what, each beside its own baseline.

    Example: lossforge leaderboard digits-atss-1 --limit 5
    """
    from search_server.cli.output import console, print_json
    from search_server.leaderboard import leaderboard as query

    if (url := server_url(server, store)) is not None:
        from search_server.cli import remote

        chosen = None if state is None else state.value
        remote.leaderboard(
            url, job, limit=limit, offset=offset, state=chosen, pareto=pareto, as_json=as_json
        )
        return
    with open_store(store) as opened:
        groups = query(
            opened,
            job,
            limit=limit,
            offset=offset,
            state=None if state is None else state.value,
            pareto=pareto,
        )
    if as_json:
        print_json(
            {
                "job": job,
                "groups": [
                    {
                        "trial_group": group.key,
                        "trained": described(group.spec),
                        "total": group.total,
                        "rows": [_json(row) for row in group.rows],
                        "baseline": None if group.baseline is None else _json(group.baseline),
                    }
                    for group in groups
                ],
            }
        )
        return
    out = console()
    if not groups:
        out.print("No candidates yet.")
    for number, group in enumerate(groups):
        if number:
            out.print()
        print_group(out, group, one_job=job is not None)


def print_group(out: Any, group: LeaderboardGroup, *, one_job: bool) -> None:
    """Candidates that can be compared, for people."""
    from search_server.cli.output import plain

    trained = described(group.spec)
    if trained:
        words = f"{trained['detector']} on {trained['data']}, {trained['steps']} steps"
        out.print(plain(words, "bold"))
    shown = list(group.rows)
    if group.baseline is not None and group.baseline not in shown:
        shown.append(group.baseline)
    _print_rows(out, shown, one_job)
    rest = group.total - len(group.rows)
    if rest > 0:
        out.print(f"{len(group.rows)} of {group.total} candidates; --limit shows more", style="dim")
    for words in _cautions(group):
        out.print(words, style="dim")


def _cautions(group: LeaderboardGroup) -> Iterator[str]:
    """What the numbers of a group are worth."""
    confirmed = [row for row in group.rows if row.confirmed and not row.rival]
    best = next((row for row in group.rows if row.rank and not row.baseline), None)
    if confirmed:
        families = {row.job: row.judged.family for row in confirmed if row.judged is not None}
        numbers = " or ".join(map(str, sorted(set(families.values()))))
        yield (
            "Confirmed on seeds that chose nothing. Intervals: 95%, Student's t; p: paired t test, "
            f"corrected (Holm) for the {numbers} confirmed of a job, a rival's is not; shrunken: "
            "what is left of the gain without the luck of the best"
        )
    elif best is not None and best.difference is not None:
        yield _caution(best.difference.seeds)
    if any(row.front for row in group.rows):
        yield "*: no loss of at most its size has a higher proxy AP"


def _caution(seeds: int) -> str:
    """What a difference over so many common seeds is worth."""
    if seeds < 2:
        return "Unconfirmed. One common seed: the whole of a difference may be luck."
    return (
        f"Unconfirmed. ± is the standard deviation over {seeds} seeds, of the paired difference "
        "too. Part of the lead of a best one is luck: it was picked for it."
    )


def _print_rows(out: Any, rows: list[LeaderboardRow], one_job: bool) -> None:
    """A table of the proxy task; of confirmed losses, whose numbers take the width, two tables."""
    if not any(row.confirmed for row in rows):
        out.print(_table(rows, one_job, _proxy_columns, formulas))
        return
    out.print(_table(rows, one_job, _confirmed_columns))
    out.print()
    out.print(_table(rows, one_job, lambda row: {}, formulas))


def _table(
    rows: list[LeaderboardRow],
    one_job: bool,
    columns: Callable[[LeaderboardRow], dict[str, str]],
    last: Callable[[LeaderboardRow], Group] | None = None,
) -> Table:
    """A line per row: its rank and id, some columns, and what folds in the rest of the width."""
    from search_server.cli.output import plain, table

    by_round = any(row.round is not None or row.origin == "mean" for row in rows)
    made = table(
        *("#", "id"),
        *(["round"] if by_round else []),
        *columns(rows[0]),
        *(["loss"] if last else []),
        right=("#", "round", "AP", "± sd", "to baseline", "p", "shrunken", "seeds", "proxy AP"),
        fold=("loss",) if last else (),
    )
    for row in rows:
        style = "dim" if row.state in ("dropped", "failed") else ""
        made.add_row(
            "-" if row.rank is None else f"{row.rank}{'*' if row.front else ''}",
            plain(str(row.index) if one_job else row.id),
            *([_round(row)] if by_round else []),
            *columns(row).values(),
            *([last(row)] if last else []),
            style="bold" if row.baseline else style,
        )
    return made


def _proxy_columns(row: LeaderboardRow) -> dict[str, str]:
    from search_server.cli.output import points

    return {
        "AP": points(row.fitness),
        "± sd": points(row.deviation),
        "to baseline": "baseline" if row.baseline else difference(row.difference),
        "seeds": str(row.seeds),
        "stage": row.stage,
        "state": row.state,
    }


def _confirmed_columns(row: LeaderboardRow) -> dict[str, str]:
    from search_server.cli.output import points

    judged = row.judged
    confirm = None if judged is None else judged.confirm
    paired = None if confirm is None else confirm.difference
    if paired is not None:
        against = interval(paired)
    elif row.origin == "baseline":  # of this job, or of another one of its group
        against = "baseline"
    else:
        against = "unconfirmed" if row.state in ("open", "done") else row.state
    shrunken = None if judged is None else judged.shrunken
    return {
        "origin": row.origin,
        "AP": points(None if confirm is None else confirm.ap.mean),
        "to baseline": against,
        "p": p_value(None if judged is None else judged.p),
        "shrunken": "" if shrunken is None else f"{100 * shrunken:+.1f}",
        "seeds": "" if confirm is None else str(confirm.ap.count),
        "proxy AP": points(row.fitness),
    }


def interval(paired: PairedTest) -> str:
    """A mean difference with its 95% interval, in points of AP: +1.2 (+0.3 to +2.1)."""
    mean = f"{100 * paired.mean:+.1f}"
    if paired.low is None or paired.high is None:
        return mean
    return f"{mean} ({100 * paired.low:+.1f} to {100 * paired.high:+.1f})"


def p_value(p: float | None) -> str:
    """A p value as people read it."""
    if p is None:
        return ""
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _round(row: LeaderboardRow) -> str:
    """The round of a policy search that a candidate was drawn in; the final mean is of none."""
    if row.origin == "mean":
        return "mean"
    return "-" if row.round is None else str(row.round)


def formulas(row: LeaderboardRow) -> Group:
    """Name, what is known of it beside the numbers, and every branch, each on its own lines."""
    from rich.console import Group

    from search_server.cli.formula import Formula

    parts = [] if row.name is None else [Formula(row.name)]
    parts += [Formula(mark) for mark in _marks(row)]
    if row.cls is None and row.bbox is None and row.rpn is None:
        parts.append(Formula("the detector's own losses"))
    elif row.joint:
        parts.append(Formula(row.cls or "", "loss "))
    else:
        parts.append(Formula(row.cls or "the detector's own", "cls  "))
        parts.append(Formula(row.bbox or "the detector's own", "bbox "))
    if row.rpn is not None:
        parts.append(Formula(row.rpn, "rpn  "))
    if row.state == "failed" and row.reason:
        parts.append(Formula(row.reason, "why  "))
    return Group(*parts)


def _marks(row: LeaderboardRow) -> Iterator[str]:
    """What is to be said of a row in words."""
    test = None if row.judged is None else row.judged.test
    if test is not None and test.difference is not None:
        yield f"test: {interval(test.difference)}, {test.difference.count} seeds"
    jobs = dict.fromkeys(source.partition(":")[0] for source in row.reused)
    if jobs:
        yield f"reused from {', '.join(jobs)}"


def difference(paired: Paired | None) -> str:
    """In points of AP: +1.2 ±0.4."""
    if paired is None:
        return "-"
    mean = f"{100 * paired.mean:+.1f}"
    return mean if paired.deviation is None else f"{mean} ±{100 * paired.deviation:.1f}"


def described(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What a group's trials are, from the spec of its baseline's job; empty without one."""
    if not spec:
        return {}
    data = spec.get("data")
    if isinstance(data, Mapping):
        annotations = (data.get("search_train") or {}).get("annotations", "")
        data = PurePath(str(annotations)).name
    proxy = (spec.get("funnel") or {}).get("proxy") or {}
    return {"detector": spec.get("detector"), "data": data, "steps": proxy.get("steps")}


def _json(row: LeaderboardRow) -> dict[str, Any]:
    from search_server.cli.output import jsonable

    return {"id": row.id, "confirmed": row.confirmed, "rival": row.rival, **jsonable(row)}
