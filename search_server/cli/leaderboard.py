"""`lossforge leaderboard`: the best losses, of one job or of all."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search_server.cli.options import JsonOption, StoreOption, open_store

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from search_server.leaderboard import LeaderboardGroup, LeaderboardRow, Paired


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
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Rows per group.")] = 20,
    offset: Annotated[int, typer.Option(min=0, help="Rows to leave out first.")] = 0,
    state: Annotated[
        StateFilter | None, typer.Option(help="Only candidates in this state.", show_default=False)
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the best losses: AP, difference to the baseline paired by seed, and the formulas.

    Without a JOB it shows all jobs, grouped by what was trained on what, each beside its own
    baseline. Failed candidates come last.

    Example: lossforge leaderboard digits-atss-1 --limit 5
    """
    from search_server.cli.output import console, print_json
    from search_server.leaderboard import leaderboard as query

    with open_store(store) as opened:
        groups = query(
            opened,
            job,
            limit=limit,
            offset=offset,
            state=None if state is None else state.value,
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
        _print_group(out, group, one_job=job is not None)


def _print_group(out: Any, group: LeaderboardGroup, *, one_job: bool) -> None:
    from search_server.cli.output import plain

    trained = described(group.spec)
    if trained:
        words = f"{trained['detector']} on {trained['data']}, {trained['steps']} steps"
        out.print(plain(words, "bold"))
    shown = list(group.rows)
    if group.baseline is not None and group.baseline not in shown:
        shown.append(group.baseline)
    out.print(_table(shown, one_job))
    rest = group.total - len(group.rows)
    if rest > 0:
        out.print(f"{len(group.rows)} of {group.total} candidates; --limit shows more", style="dim")
    best = next((row for row in group.rows if row.rank and not row.baseline), None)
    if best is not None and best.difference is not None:
        out.print(_caution(best.difference.seeds), style="dim")


def _caution(seeds: int) -> str:
    """What a difference over so many common seeds is worth."""
    if seeds < 2:
        return "One common seed: the whole of a difference may be luck."
    return (
        f"± is the standard deviation over {seeds} seeds, of the paired difference too. Part of "
        "the lead of a best one is luck: it was picked for it."
    )


def _table(rows: list[LeaderboardRow], one_job: bool) -> Table:
    from search_server.cli.output import plain, points, table

    by_round = any(row.round is not None or row.origin == "mean" for row in rows)
    made = table(
        *("#", "id"),
        *(["round"] if by_round else []),
        *("AP", "± sd", "to baseline", "seeds", "stage", "state", "loss"),
        right=("#", "round", "AP", "± sd", "to baseline", "seeds"),
        fold=("loss",),
    )
    for row in rows:
        style = "dim" if row.state in ("dropped", "failed") else ""
        made.add_row(
            "-" if row.rank is None else str(row.rank),
            plain(str(row.index) if one_job else row.id),
            *([_round(row)] if by_round else []),
            points(row.fitness),
            points(row.deviation),
            "baseline" if row.baseline else difference(row.difference),
            str(row.seeds),
            row.stage,
            row.state,
            formulas(row),
            style="bold" if row.baseline else style,
        )
    return made


def _round(row: LeaderboardRow) -> str:
    """The round of a policy search that a candidate was drawn in; the final mean is of none."""
    if row.origin == "mean":
        return "mean"
    return "-" if row.round is None else str(row.round)


def formulas(row: LeaderboardRow) -> Group:
    """Name and every branch, each on its own lines; why it failed, where it did."""
    from rich.console import Group

    from search_server.cli.formula import Formula

    parts = [] if row.name is None else [Formula(row.name)]
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

    return {"id": row.id, **jsonable(row)}
