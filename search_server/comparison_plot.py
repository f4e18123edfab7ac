"""The picture of a comparison: every paired difference, its mean and its interval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from search_server.comparison import Comparison
from search_server.comparison_rows import Row
from search_server.report.style import BEST, INK, MUTED, RC, light_grid, message, shortened

ROW, AROUND, DPI = 0.52, 1.75, 130  # inches
PANEL, RIGHT, LETTER = 4.9, 1.55, 0.082


def plot_comparison(comparison: Comparison, rows: Sequence[Row], path: Path) -> Path:
    """Draws the differences to the baseline, a line per loss, best first.

    Args:
        path: the PNG file; an existing one is replaced, a missing folder is made.

    Returns:
        ``path``.
    """
    shown = [row for row in rows if row.difference is not None]
    shown.sort(key=lambda row: row.difference.mean if row.difference else 0.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    base = comparison.contenders[comparison.baseline].name
    with mpl.rc_context(dict(RC)):
        height = AROUND + ROW * max(len(shown), 1)
        left = 0.4 + LETTER * max((min(len(row.name), 30) for row in shown), default=0)
        width = left + PANEL + RIGHT
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        tall = (height - AROUND + 0.55) / height
        axes = figure.add_axes((left / width, 0.75 / height, PANEL / width, tall))
        axes.set_title(f"AP of each loss minus that of {shortened(base, 40)}", loc="left")
        if not shown:
            message(axes, "No seed is common to the baseline and another loss yet.")
        else:
            _draw(axes, shown, rows[comparison.baseline])
        figure.savefig(path, dpi=DPI, format="png")
    return path


def _draw(axes: Axes, shown: Sequence[Row], base: Row) -> None:
    axes.axvline(0, color=INK, linewidth=1.0)
    for place, row in enumerate(shown):
        paired = row.difference
        assert paired is not None
        seeds = [100 * (ap - base.by_seed[s]) for s, ap in row.by_seed.items() if s in base.by_seed]
        axes.scatter(seeds, [place - 0.2] * len(seeds), s=15, color=MUTED, alpha=0.7, linewidths=0)
        if paired.low is not None and paired.high is not None:
            axes.plot([100 * paired.low, 100 * paired.high], [place, place], color=BEST, lw=2.4)
        axes.plot([100 * paired.mean], [place], "o", color=BEST, markersize=7)
        axes.text(
            1.02, place, _words(row), transform=axes.get_yaxis_transform(), va="center",
            fontsize=8.5, color=INK,
        )  # fmt: skip
    axes.set_yticks(range(len(shown)), [shortened(row.name, 30) for row in shown], color=INK)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xlabel("points of AP; line: 95% interval of the mean, dots: seeds")
    light_grid(axes, "x")


def _words(row: Row) -> str:
    assert row.difference is not None
    text = f"{100 * row.difference.mean:+.2f}"
    return (
        text
        if row.p is None
        else f"{text}, p {row.p:.3f}"
        if row.p >= 0.001
        else f"{text}, p <0.001"
    )
