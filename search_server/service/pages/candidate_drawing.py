"""A candidate's plots as pictures for browsers that run no scripts: curves and surfaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from search_server.report.style import BASELINE, BEST, message
from search_server.service.curve_plots import CurvePlot, SurfacePlot
from search_server.service.pages.svg import drawn_figure
from search_server.service.surfaces import Numbers, Surface

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHES = {"simulate": ":", "proxy": "-", "confirm": "--", "test": "-."}


def draw_curves(plot: CurvePlot) -> bytes:
    """The whole loss over the steps, and AP where it was measured, beside the baseline's."""

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        if not plot.series:
            message(left, "There are no curves.")
            message(right, "")
            return
        name = plot.names[0] if plot.names else ""
        seen: set[tuple[bool, str]] = set()
        for each in sorted(plot.series, key=lambda each: not each.baseline):
            color = BASELINE if each.baseline else BEST
            kind = (each.baseline, each.stage)
            label = f"{'baseline' if each.baseline else 'candidate'}, {each.stage}"
            style = {
                "color": color, "linestyle": DASHES.get(each.stage, "-"), "linewidth": 1.3,
                "alpha": 0.75, "label": None if kind in seen else label,
            }  # fmt: skip
            seen.add(kind)
            left.plot(_array(each.x), _array(each.curves.get(name, [])), **style)
            steps = sorted(each.rungs)
            right.plot(
                steps, [100 * each.rungs[step] for step in steps], marker="o", markersize=4, **style
            )
        left.set(xlabel="training step", ylabel=name)
        right.set(xlabel="training step", ylabel="AP (points)")
        left.legend(fontsize=8)

    return drawn_figure(draw, 9.0, 3.4)


def draw_surfaces(plot: SurfacePlot) -> bytes:
    """Value and gradient of every expression, then the functions of a parameterized AP loss."""
    rows = len(plot.surfaces) + len(plot.functions)

    def draw(figure: Figure) -> None:
        parts = figure.subfigures(max(1, rows), 1, squeeze=False)[:, 0]
        if not rows:
            message(parts[0].subplots(), "This loss has no expression and no functions to draw.")
        for part, surface in zip(parts, plot.surfaces, strict=False):
            _surface(part.subplots(1, 2), surface)
        for part, (name, functions) in zip(
            parts[len(plot.surfaces) :], plot.functions.items(), strict=False
        ):
            panels = part.subplots(1, len(functions))
            for axes, (function, points) in zip(
                np.atleast_1d(panels), functions.items(), strict=True
            ):
                x, y = zip(*points, strict=True)
                axes.plot([0, 1], [0, 1], color=BASELINE, linestyle=":", linewidth=1)
                axes.plot(x, y, color=BEST, marker="o", markersize=3)
                axes.set(title=f"{name} {function}", xlim=(0, 1), ylim=(0, 1))

    return drawn_figure(draw, 9.0, 3.3 * max(1, rows))


def _surface(panels: Sequence[Axes], surface: Surface) -> None:
    """A loss and its derivative; the scale of the second has 0 in its middle."""
    x, y = np.array(surface.x.values), np.array(surface.y.values)
    for axes, rows, title, colors in (
        (panels[0], surface.value, f"{surface.branch}: loss", "YlOrBr"),
        (panels[1], surface.gradient, f"{surface.branch}: d loss / d {surface.by}", "RdBu_r"),
    ):
        values = np.array([_array(row) for row in rows])
        known = values[np.isfinite(values)]
        if not known.size:
            message(axes, "It is finite nowhere on this grid.")
            continue
        low, high = (float(each) for each in np.percentile(known, (1, 99)))
        if colors == "RdBu_r":
            # One that hardly varies is told by a middling colour, not by the loudest.
            most = max(abs(low), abs(high))
            high = (2.5 if high - low < 0.05 * most else 1.0) * most or 1.0
            low = -high
        mesh = axes.pcolormesh(
            x, y, values, cmap=colors, vmin=low, vmax=high, shading="nearest", rasterized=True
        )
        axes.figure.colorbar(mesh, ax=axes, pad=0.02)
        axes.set(title=title, xlabel=surface.x.name, ylabel=surface.y.name)


def _array(values: Sequence[float | None] | Numbers) -> np.ndarray:
    return np.array([np.nan if each is None else each for each in values], dtype=np.float64)
