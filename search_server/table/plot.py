"""One figure of what the table answers: ranking, filters, halving, searches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from search_server.report.style import BASELINE, BEST, INK, MUTED, RC
from search_server.table.bench import Bench, GroupBench
from search_server.table.replay_policies import HalvingPolicy, HalvingRow
from search_server.table.tournament import DEFAULT, RANDOM, VANILLA

_GROUPS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_MARKS = ("o", "s", "^", "D")
_SEARCHES = {RANDOM: "#e69f00", VANILLA: BASELINE, DEFAULT: BEST, "evolution": "#0072b2"}


def draw_bench(found: Bench, path: Path) -> None:
    """Draws the answers into a file.

    Raises:
        OSError: it cannot be written.
    """
    with matplotlib.rc_context(dict(RC)):
        figure = Figure(figsize=(11.0, 8.2))
        FigureCanvasAgg(figure)
        axes = figure.subplots(2, 2)
        panels: Sequence[tuple[Axes, Callable[[Axes, Bench], None]]] = (
            (axes[0, 0], _ranking),
            (axes[0, 1], _filters),
            (axes[1, 0], _halving),
            (axes[1, 1], _searches),
        )
        for axis, panel in panels:
            panel(axis, found)
        counted = found.counted
        figure.suptitle(
            f"{found.table}: {counted['trained']} trained losses, {counted['ended']} trials",
            x=0.01,
            ha="left",
            fontsize=12,
            color=INK,
        )
        figure.tight_layout(rect=(0, 0, 1, 0.97), h_pad=2.5, w_pad=2.5)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={} if path.suffix == ".png" else None)


def _ranking(axis: Axes, found: Bench) -> None:
    axis.set_title("How well each reading ranks")
    for number, group in enumerate(found.groups):
        rows = [row for row in group.ranking if row.every is not None and row.reading != "simulate"]
        costs = [row.cost for row in rows]
        _line(axis, costs, [row.every for row in rows], number, group.group, filled=True)
        near = [row for row in rows if row.contenders is not None]
        _line(axis, [r.cost for r in near], [r.contenders for r in near], number, "", filled=False)
        for row in group.ranking:
            if row.reading == "simulate" and row.every is not None:
                axis.plot(row.cost, row.every.value, "*", color=_GROUPS[number % 4], ms=13)
    axis.axhline(0, color=MUTED, lw=0.6)
    axis.set_xlabel("cost of the reading, in whole trials (star: simulation)")
    axis.set_ylabel("rank correlation with other seeds' final AP")
    axis.set_ylim(min(-0.1, axis.get_ylim()[0]), 1.02)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="lower right", title="filled: all; open: contenders", title_fontsize=8)


def _line(
    axis: Axes, costs: Sequence[float], values: Sequence, number: int, label: str, *, filled: bool
) -> None:
    if not values:
        return
    color = _GROUPS[number % 4]
    middle = [each.value for each in values]
    errors = [
        [each.value - each.low for each in values],
        [each.high - each.value for each in values],
    ]
    axis.errorbar(
        costs,
        middle,
        yerr=errors,
        color=color,
        marker=_MARKS[number % 4],
        mfc=color if filled else "white",
        ls="-" if filled else ":",
        lw=1.4,
        capsize=2,
        label=label or None,
    )


def _filters(axis: Axes, found: Bench) -> None:
    axis.set_title("Good losses that filters throw away")
    labels: list[str] = []
    for number, group in enumerate(found.groups):
        for text, value, low, high in _lost(group):
            axis.errorbar(
                value,
                len(labels),
                xerr=[[value - low], [high - value]],
                color=_GROUPS[number % 4],
                marker=_MARKS[number % 4],
                capsize=2,
            )
            labels.append(f"{text}, {group.group}")
    axis.set_yticks(range(len(labels)), labels)
    axis.invert_yaxis()
    axis.set_xlim(-0.02, 1.02)
    axis.set_xlabel("share of the good losses, 95% interval")
    axis.grid(axis="x", lw=0.4)


def _lost(group: GroupBench) -> list[tuple[str, float, float, float]]:
    replay, found = group.filters, []
    if replay is None:
        return []
    for way in replay.ways:
        lost = way.false_rejection
        if lost is not None and way.way != "random":
            found.append((f"verify {way.branch}, {way.way}", lost.value, lost.low, lost.high))
    for row in replay.simulation:
        if row.lost.value is not None:
            text = f"simulate, keep {row.keep:.0%}"
            found.append((text, row.lost.value, row.lost.low, row.lost.high))
    return found


def _halving(axis: Axes, found: Bench) -> None:
    axis.set_title("Halving: cost against what it loses")
    for number, group in enumerate(found.groups):
        color = _GROUPS[number % 4]
        front = _front(group)
        for row in group.halving:
            axis.errorbar(
                row.cost,
                100 * row.regret,
                yerr=100 * row.error,
                color=color,
                marker=_MARKS[number % 4],
                capsize=2,
            )
            if row not in front:
                continue
            axis.annotate(
                _short(row.policy),
                (row.cost, 100 * row.regret),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=6.5,
                color=color,
            )
        if group.halving:
            axis.plot([], [], color=color, marker=_MARKS[number % 4], ls="", label=group.group)
    axis.axhline(0, color=MUTED, lw=0.6)
    axis.set_xlabel("training steps, as a share of those without it")
    axis.set_ylabel("AP lost on other seeds, points")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="upper right")


def _front(group: GroupBench) -> list[HalvingRow]:
    """The policies that no other one beats both in cost and in what it loses: the named ones."""
    return [
        row
        for row in group.halving
        if not any(o.cost < row.cost and o.regret <= row.regret for o in group.halving)
    ]


def _short(policy: HalvingPolicy) -> str:
    if not policy.rungs:
        return "none"
    reduction = "" if policy.reduction > 1000 else f", best 1/{policy.reduction}"
    hopeless = f", {policy.hopeless:g}" if policy.hopeless else ""
    return "/".join(map(str, policy.rungs)) + reduction + hopeless


def _searches(axis: Axes, found: Bench) -> None:
    axis.set_title("Searches on the closed sub-space")
    for group in found.groups:
        if group.searchers is None:
            continue
        for row in group.searchers.rows:
            own = _SEARCHES.get(row.name)
            axis.plot(
                group.searchers.times,
                [100 * value for value in row.curve],
                color=own or MUTED,
                lw=2.0 if own else 0.8,
                alpha=1.0 if own else 0.6,
                label=row.name if own else None,
            )
    axis.set_xlabel("trial time, in whole trials")
    axis.set_ylabel("AP over the baseline, on other seeds, points")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="lower right")
