"""The panels of a report's second row: what was confirmed, AP against size, the rungs."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from search_server.report.judged_records import ConfirmedLoss, RungCurve, Sized
from search_server.report.style import (
    BASELINE,
    BEST,
    INK,
    MUTED,
    light_grid,
    origin_style,
    shortened,
)

MOST = 9  # lines of the confirm panel
RIVAL = "#0072b2"
DASHES = (0, (5, 3))


def draw_confirmed(axes: Axes, losses: Sequence[ConfirmedLoss]) -> None:
    """Differences to the baseline on fresh seeds, with their intervals; below, those on `test`."""
    axes.set_title("Confirmed: AP minus the baseline's")
    shown = list(losses)[:MOST]
    axes.axvline(0, color=BASELINE, linestyle=DASHES, linewidth=1.3)
    for place, loss in enumerate(shown):
        color, marker = (RIVAL, "D") if loss.rival else (BEST, "o")
        paired = loss.difference
        if paired.low is not None and paired.high is not None:
            axes.plot(
                [100 * paired.low, 100 * paired.high], [place, place], color=color, linewidth=2.2
            )
        axes.plot(
            [100 * paired.mean], [place], marker=marker, color=color, markersize=7.5,
            markeredgecolor="white", markeredgewidth=0.7,
        )  # fmt: skip
        if loss.shrunken is not None:
            axes.plot(
                [100 * loss.shrunken], [place], marker="|", color=INK, markersize=11,
                markeredgewidth=1.6, zorder=4,
            )  # fmt: skip
        if loss.test is not None:
            _test(axes, loss, place + 0.27)
        axes.text(
            1.015, place, _words(loss), transform=axes.get_yaxis_transform(), va="center",
            fontsize=8, color=INK,
        )  # fmt: skip
    axes.set_yticks(range(len(shown)), [shortened(loss.label, 22) for loss in shown], color=INK)
    axes.set_ylim(max(len(shown), 3) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("points of AP; 95% interval; p corrected")
    light_grid(axes, "x")
    if len(losses) > len(shown):
        axes.text(
            0.995, 0.02, f"{len(losses) - len(shown)} more", transform=axes.transAxes, ha="right",
            fontsize=8.5, color=MUTED,
        )  # fmt: skip


def _test(axes: Axes, loss: ConfirmedLoss, place: float) -> None:
    paired = loss.test
    assert paired is not None
    if paired.low is not None and paired.high is not None:
        axes.plot([100 * paired.low, 100 * paired.high], [place, place], color=MUTED, linewidth=1.4)
    axes.plot(
        [100 * paired.mean], [place], marker="s", color="white", markersize=5,
        markeredgecolor=MUTED, markeredgewidth=1.4,
    )  # fmt: skip


def _words(loss: ConfirmedLoss) -> str:
    text = f"{100 * loss.difference.mean:+.1f}"
    if loss.p is None:
        return text
    return f"{text}   p <0.001" if loss.p < 0.001 else f"{text}   p {loss.p:.3f}"


def draw_sizes(axes: Axes, candidates: Sequence[Sized], baseline: float | None) -> None:
    """Proxy AP over the size of a loss, its front as steps; what was confirmed has a ring.

    Args:
        baseline: the baseline's AP in [0, 1]; None where it is not known.
    """
    axes.set_title("AP against size")
    front = [each for each in candidates if each.front]
    largest = max(each.size for each in candidates)
    xs = [each.size for each in front] + [largest + 1]
    ys = [100 * each.fitness for each in front]
    axes.step(xs, ys + ys[-1:], where="post", color=BEST, linewidth=1.8, zorder=2)
    if baseline is not None:
        axes.axhline(100 * baseline, color=BASELINE, linestyle=DASHES, linewidth=1.3)
    floor = _floor([100 * each.fitness for each in candidates], baseline)
    for each in candidates:
        color, marker = origin_style(each.origin)
        low = 100 * each.fitness < floor
        y = max(100 * each.fitness, floor)
        axes.scatter(
            each.size, y, s=26, c=color, marker="x" if low else marker,
            edgecolors=None if low else "white", linewidths=1.1 if low else 0.5, zorder=3,
            clip_on=not low,
        )  # fmt: skip
        if each.confirmed and not low:
            axes.scatter(
                each.size, y, s=95, facecolors="none", edgecolors=INK, linewidths=1.2, zorder=4
            )
    high = max(100 * each.fitness for each in candidates)
    axes.set_ylim(floor, high + 0.08 * max(high - floor, 1.0))
    axes.set_xlim(-0.7, largest + 1)
    axes.set_xlabel("nodes of the formulas")
    axes.set_ylabel("proxy AP (×100)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    light_grid(axes)


def _floor(values: Sequence[float], baseline: float | None) -> float:
    """Points of AP below which a candidate is only marked at the edge."""
    middle = 100 * baseline if baseline is not None else max(values)
    reach = max(3.0, 2 * (max(values) - middle))
    low = min(values)
    return max(0.0, middle - reach) if low < middle - reach else low - 0.3


def draw_rungs(axes: Axes, curves: Sequence[RungCurve], best: int | None) -> None:
    """AP at every rung: the candidates', with a cross where one was stopped, and the baseline's."""
    axes.set_title("AP over the rungs")
    last = {0: BASELINE, best: BEST}
    for curve in sorted(curves, key=lambda curve: (curve.index in last, curve.index == best)):
        xs = [step for step, _ in curve.points]
        ys = [100 * ap for _, ap in curve.points]
        known = curve.index in last
        axes.plot(
            xs, ys, color=last.get(curve.index, MUTED), linewidth=2.2 if known else 0.9,
            alpha=1.0 if known else 0.45, linestyle=DASHES if curve.index == 0 else "-",
            marker="o" if len(xs) == 1 and not curve.stopped else None, markersize=3,
        )  # fmt: skip
        if curve.stopped:
            axes.plot(xs[-1:], ys[-1:], marker="x", color=MUTED, markersize=5, linestyle="none")
    axes.set_xlabel("steps")
    axes.set_ylabel("proxy AP (×100)")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    light_grid(axes)


def judged_handles(
    losses: Sequence[ConfirmedLoss], sizes: Sequence[Sized], curves: Sequence[RungCurve]
) -> list[Line2D]:
    """The legend of what of the three panels there is."""
    found: list[Line2D] = []

    def mark(label: str, marker: str, color: str, line: object = "none", **more: object) -> None:
        found.append(
            Line2D(
                [], [], marker=marker, color=color, linestyle=line, label=label, markersize=6,
                **more,  # type: ignore[arg-type]
            )
        )  # fmt: skip

    if any(not loss.rival for loss in losses):
        mark("confirmed", "o", BEST, "-")
    if any(loss.rival for loss in losses):
        mark("rival", "D", RIVAL, "-")
    if any(loss.shrunken is not None for loss in losses):
        mark("shrunken estimate", "|", INK, markeredgewidth=1.6)
    if any(loss.test is not None for loss in losses):
        mark("on test", "s", MUTED, "-", markerfacecolor="white")
    if sizes:
        mark("front of AP and size", "", BEST, "-")
        if any(each.confirmed for each in sizes):
            mark("one of the confirmed", "o", INK, markerfacecolor="none")
    if curves:
        mark("best", "", BEST, "-", linewidth=2.2)
        mark("stopped at a rung", "x", MUTED)
    mark("baseline", "", BASELINE, DASHES)
    return found
