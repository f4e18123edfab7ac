"""The panel of jobs side by side."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from search_server.report.races import Race
from search_server.report.style import BEST, MUTED, light_grid, message, shortened

#: Colour and line of the others, in their order (Okabe and Ito's palette).
LINES = (
    ("#0072b2", (0, (5, 2))),
    ("#009e73", (0, (1, 1))),
    ("#cc79a7", (0, (6, 2, 1, 2))),
    ("#e69f00", (0, (3, 1, 1, 1, 1, 1))),
    ("#56b4e9", "-"),
)
LEAST = 0.75  # of the best AP: where the axis begins, at least


def draw_races(axes: Axes, races: Sequence[Race]) -> None:
    """The best AP so far of what each job made itself, the report's own job drawn strongest; a
    dotted line is the best loss that it was given."""
    axes.set_title("The best of its own making over training steps")
    if not any(race.points for race in races):
        message(axes, "No candidate has been trained to the end yet.")
        return
    given = races[0].given
    best = max(*(race.best or 0.0 for race in races), given or 0.0)
    if given is not None:
        axes.axhline(100 * given, color=MUTED, linestyle=":", linewidth=1.2)
    for place, race in reversed(list(enumerate(races))):
        if not race.points:
            continue
        color, style, width = line_of(place)
        xs = [steps for steps, _ in race.points] + [race.steps]
        ys = [100 * ap for _, ap in race.points]
        axes.step(xs, ys + ys[-1:], where="post", color=color, linestyle=style, linewidth=width)
        axes.plot(xs[-1:], ys[-1:], marker="o", markersize=4, color=color)
    lowest = min(race.points[0][1] for race in races if race.points)
    axes.set_ylim(100 * max(lowest, LEAST * best) - 0.5, 100 * best + 0.8)
    axes.set_xlim(left=0)
    axes.set_xlabel("training steps of simulation and proxy task")
    axes.set_ylabel("proxy AP (×100)")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    light_grid(axes)


def line_of(place: int) -> tuple[str, object, float]:
    """Colour, style and width of the line of a job by its place; the report's own is 0."""
    if place == 0:
        return BEST, "-", 2.4
    color, style = LINES[(place - 1) % len(LINES)]
    return (color, style, 1.7) if place <= len(LINES) else (MUTED, style, 1.2)


def race_handles(races: Sequence[Race]) -> list[Line2D]:
    """The legend."""
    handles = []
    for place, race in enumerate(races):
        color, style, width = line_of(place)
        label = shortened(race.job, 28)
        handles.append(Line2D([], [], color=color, linestyle=style, linewidth=width, label=label))
    return handles
