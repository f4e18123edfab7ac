"""The picture of a noise floor: how many seeds a gain needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from search_server.noise import Noise
from search_server.power import LEVEL, detectable_gain
from search_server.report.style import INK, MUTED, RC, light_grid, message, shortened

DPI = 130
SEEDS = (2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64)
COLORS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#3c4650")


def plot_noise(found: Sequence[Noise], path: Path) -> Path:
    """Draws the smallest detectable gain over the number of seeds, a line per variant.

    Args:
        path: the PNG file; an existing one is replaced, a missing folder is made.

    Returns:
        ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(dict(RC)):
        figure = Figure(figsize=(7.6, 4.4))
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.11, 0.14, 0.86, 0.75))
        axes.set_title("Smallest gain that is found in 4 of 5 cases", loc="left")
        known = [each for each in found if each.paired is not None]
        if not known:
            message(axes, "Two losses with two seeds in common are needed.")
        for number, noise in enumerate(known):
            assert noise.paired is not None
            color, level = COLORS[number % len(COLORS)], LEVEL / noise.top
            sd, high = 100 * noise.paired.paired_deviation, 100 * (noise.limit or 0.0)
            gains = np.array([detectable_gain(sd, n, level) for n in SEEDS])
            label = f"{shortened(noise.name, 28)}: paired sd {sd:.2f} AP"
            axes.plot(SEEDS, gains, "o-", color=color, markersize=4, label=label)
            if sd:
                axes.fill_between(SEEDS, gains, gains * high / sd, color=color, alpha=0.12, lw=0)
        if known:
            confirm = known[0].confirm_seeds
            axes.axvline(confirm, color=MUTED, linestyle=(0, (5, 3)), linewidth=1.0)
            axes.text(
                confirm * 1.03, 0.98, "confirm", color=INK, fontsize=8.5, va="top",
                transform=axes.get_xaxis_transform(),
            )  # fmt: skip
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xticks(SEEDS, [str(n) for n in SEEDS])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: _minor(value)))
            axes.tick_params(axis="y", which="minor", labelsize=7.5)
            axes.set_xlabel(f"paired seeds; best of {known[0].top}, p < 0.05 corrected")
            axes.set_ylabel("gain, points of AP")
            axes.legend(loc="upper right")
            light_grid(axes, "both")
        figure.savefig(path, dpi=DPI, format="png")
    return path


def _minor(value: float) -> str:
    """Labels of 2 and 5 between the powers of ten."""
    digit = value / 10 ** np.floor(np.log10(value))
    return f"{value:g}" if round(float(digit)) in (2, 5) else ""
