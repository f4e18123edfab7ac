"""A job's plots as pictures for browsers that run no scripts: progress, front, funnel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from search_server.report.style import BASELINE, BEST, INK, MUTED, light_grid, message, origin_style
from search_server.service.pages.svg import drawn
from search_server.service.plots import Dot, FrontPlot, FunnelPlot, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes

NOTHING = "Nothing was trained to the end yet."


def draw_progress(plot: Progress) -> bytes:
    """AP over candidates, the best so far, the baseline's band."""

    def draw(axes: Axes) -> None:
        if not plot.dots and plot.baseline is None:
            message(axes, NOTHING)
            return
        if (band := plot.baseline) is not None:
            spread = band.deviation or 0.0
            low, high = 100 * (band.mean - spread), 100 * (band.mean + spread)
            axes.axhspan(low, high, color=BASELINE, alpha=0.14, linewidth=0)
            axes.axhline(
                100 * band.mean, color=BASELINE, linestyle=(0, (5, 3)), linewidth=1.2,
                label="baseline" if band.deviation is None else "baseline ± sd",
            )  # fmt: skip
        _scatter(axes, plot.dots, lambda dot: dot.candidate)
        if plot.best:
            x = [dot.candidate for dot in plot.best]
            y = [100 * dot.fitness for dot in plot.best]
            x.append(max(dot.candidate for dot in plot.dots))
            y.append(y[-1])
            axes.step(x, y, where="post", color=BEST, linewidth=2.0, label="best so far")
        _finish(axes, "candidate", "proxy AP")

    return drawn(draw, wide=7.2, high=3.4)


def draw_front(plot: FrontPlot) -> bytes:
    """AP over size, and the front."""

    def draw(axes: Axes) -> None:
        if not plot.dots:
            message(axes, NOTHING)
            return
        _scatter(axes, plot.dots, lambda dot: dot.size)
        x = [dot.size for dot in plot.front]
        y = [100 * dot.fitness for dot in plot.front]
        if x:
            x.append(max(dot.size for dot in plot.dots))
            y.append(y[-1])
            axes.step(x, y, where="post", color=BEST, linewidth=2.0, label="front")
        rings = [dot for dot in plot.confirmed if dot.fitness is not None]
        if rings:
            axes.plot(
                [dot.size for dot in rings], [100 * (dot.fitness or 0) for dot in rings], "o",
                markersize=10, markerfacecolor="none", color=INK, label="confirmed",
            )  # fmt: skip
        _finish(axes, "nodes of its expressions", "proxy AP")

    return drawn(draw, wide=7.2, high=3.4)


def draw_funnel(plot: FunnelPlot) -> bytes:
    """How many came how far, on a logarithmic scale."""

    def draw(axes: Axes) -> None:
        names, counts = list(plot.stages), list(plot.stages.values())
        if not any(counts):
            message(axes, "Nothing was drawn yet.")
            return
        places = np.arange(len(names))[::-1]
        axes.barh(places, [max(count, 0.5) for count in counts], left=0.5, color=BEST, alpha=0.85)
        axes.set_xscale("log")
        axes.set_xlim(0.5, 6 * max(counts))
        axes.set_yticks(places, names)
        axes.tick_params(axis="y", length=0, colors=INK)
        axes.spines["left"].set_visible(False)
        for place, count in zip(places, counts, strict=True):
            axes.text(1.15 * (count + 0.5), place, f"{count:,}", va="center", fontsize=9, color=INK)
        axes.set_xlabel("candidates (logarithmic)")

    return drawn(draw, wide=7.2, high=2.6)


def _scatter(axes: Axes, dots: Sequence[Dot], x: Callable[[Dot], int]) -> None:
    for origin in dict.fromkeys(dot.origin for dot in dots):
        own = [dot for dot in dots if dot.origin == origin]
        color, marker = origin_style(origin)
        axes.plot(
            [x(dot) for dot in own], [100 * dot.fitness for dot in own], marker,
            color=color, markersize=4.5, alpha=0.8, linestyle="none", label=origin,
        )  # fmt: skip


def _finish(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(f"{y} (points)")
    light_grid(axes)
    axes.legend(
        loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, borderaxespad=0, labelcolor=INK
    )
    axes.tick_params(colors=MUTED)
