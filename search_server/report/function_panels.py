"""The five functions of a parameterized AP loss, drawn side by side against the identity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from losses import PapFunctions
from losses.ranking.functions import FUNCTIONS
from search_server.report.style import BASELINE, BEST, MUTED, light_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Points that a row of functions takes, titles and axes included.
HEIGHT = 168.0
_ABOVE = 26.0
_SIDE = 30.0
_GAP = 22.0
#: What each function does to the loss, for people; the order of the release.
MEANING = {
    "H2": "weight of misranking",
    "I2": "overlap of the other",
    "I3": "weight of the ranking",
    "I1": "reward for overlap",
    "H1": "rank, no gradient",
}
_ARGUMENT = {"H": "score difference, scaled", "I": "overlap"}


def draw_functions(
    place: Callable[[float, float, float, float], Axes],
    width: float,
    functions: PapFunctions,
    others: Sequence[PapFunctions] = (),
    title: str = "",
) -> None:
    """Draws a row of five square panels.

    Args:
        place: makes axes from left, top, width and height in points, measured from the row's
            upper left corner.
        width: points that the row has.
        functions: what is shown, with its control points.
        others: drawn faintly behind, such as the samples of a round.
        title: stands before the name of the first function, to tell rows apart.
    """
    across = (width - _SIDE - 10.0 - 4 * _GAP) / 5
    tall = min(across, HEIGHT - _ABOVE - 40.0)
    for column, name in enumerate(FUNCTIONS):
        axes = place(_SIDE + column * (across + _GAP), _ABOVE, across, tall)
        axes.plot([0, 1], [0, 1], color=BASELINE, linestyle=(0, (5, 3)), linewidth=1.1, zorder=2)
        for other in others:
            axes.plot(*_line(other, name), color=MUTED, alpha=0.35, linewidth=0.8, zorder=1)
        xs, ys = _line(functions, name)
        axes.plot(xs, ys, color=BEST, linewidth=1.9, zorder=3, clip_on=False)
        axes.plot(
            xs[1:-1], ys[1:-1], color=BEST, linestyle="none", marker="o", markersize=4, zorder=4,
            clip_on=False,
        )  # fmt: skip
        shown = rf"{title}  $f_{{{name}}}$" if title and not column else rf"$f_{{{name}}}$"
        axes.set_title(shown, pad=6, fontsize=11)
        if column or not title:
            axes.text(
                1, 1.06, MEANING[name], transform=axes.transAxes, ha="right", va="bottom",
                fontsize=7, color=MUTED,
            )  # fmt: skip
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"] if not column else ["", "", ""])
        axes.set_xlabel(_ARGUMENT[name[0]], fontsize=8)
        light_grid(axes, "both")


def _line(functions: PapFunctions, name: str) -> tuple[list[float], list[float]]:
    points = ((0.0, 0.0), *functions.points[name], (1.0, 1.0))
    return [x for x, _ in points], [y for _, y in points]
