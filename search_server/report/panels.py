"""The two panels about the search: fitness over proxy trials, and what the funnel let through."""

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from search_server.report.records import ORIGIN_ORDER, STAGES, Findings
from search_server.report.style import (
    BASELINE,
    BEST,
    INK,
    MUTED,
    light_grid,
    message,
    origin_style,
    shortened,
)

LEAST_SPAN = 3.0  # points of AP: a smaller range would blow noise up


def draw_progress(axes: Axes, findings: Findings) -> None:
    """Every ended proxy trial as a dot, the best mean so far as steps, the baseline with a band."""
    axes.set_title("Fitness over proxy trials")
    if not findings.dots:
        message(axes, "No proxy trial has finished yet.")
        return
    end = findings.dots[-1].position
    left, right = 0.3, end + 0.7
    baseline_band(axes, findings)
    _best_steps(axes, findings, right)
    floor = _floor(findings)
    for dot in findings.dots:
        color, marker = origin_style(dot.origin)
        low = 100 * dot.fitness < floor
        axes.scatter(
            dot.position, max(100 * dot.fitness, floor), s=30 if low else 36, c=color,
            marker="x" if low else marker, edgecolors=None if low else "white",
            linewidths=1.2 if low else 0.6, zorder=3, clip_on=not low,
        )  # fmt: skip
    axes.set_xlim(left, right)
    axes.set_xlabel("proxy trials finished")
    axes.set_ylabel("COCO box AP (×100)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _limit(axes, findings, floor)
    light_grid(axes)


def _floor(findings: Findings) -> float:
    """Points of AP below which a trial is only marked, so that it does not flatten the rest."""
    values = [100 * dot.fitness for dot in findings.dots]
    middle = 100 * findings.baseline_spread.mean if findings.baseline_spread.seeds else max(values)
    reach = max(LEAST_SPAN, 2 * (max(values) - middle))
    low = 100 * findings.steps[0].fitness if findings.steps else middle
    return max(0.0, min(middle, low) - reach) if min(values) < middle - reach else min(values)


def _limit(axes: Axes, findings: Findings, floor: float) -> None:
    """The range of the AP axis, and how many trials lie below it."""
    below = sum(100 * dot.fitness < floor for dot in findings.dots)
    low, high = floor, max(100 * dot.fitness for dot in findings.dots)
    margin = max(0.08 * (high - low), (LEAST_SPAN - (high - low)) / 2)
    axes.set_ylim(low if below else low - margin, high + margin)
    if below:
        axes.text(
            0.995, 0.02, f"× {below} below", transform=axes.transAxes, ha="right", va="bottom",
            fontsize=8.5, color=MUTED,
        )  # fmt: skip


def baseline_band(axes: Axes, findings: Findings) -> None:
    """The baseline's mean as a dashed line, the range of its seeds as a band."""
    baseline = findings.baseline_spread
    if not baseline.seeds:
        return
    axes.axhspan(100 * baseline.low, 100 * baseline.high, color=BASELINE, alpha=0.10, linewidth=0)
    axes.axhline(100 * baseline.mean, color=BASELINE, linestyle=(0, (5, 3)), linewidth=1.3)


def _best_steps(axes: Axes, findings: Findings, right: float) -> None:
    if not findings.steps:
        return
    xs = [step.position for step in findings.steps] + [right]
    ys = [100 * step.fitness for step in findings.steps]
    axes.step(xs, ys + ys[-1:], where="post", color=BEST, linewidth=2.2, zorder=2)
    last = findings.steps[-1]
    axes.scatter(
        [last.position], [100 * last.fitness], s=110, facecolors="none", edgecolors=BEST,
        linewidths=1.6, zorder=4,
    )  # fmt: skip


def legend_handles(findings: Findings) -> list[Line2D]:
    """The legend of both panels, which share the colours of the origins."""
    handles: list[Line2D] = []
    if findings.steps:
        handles.append(Line2D([], [], color=BEST, linewidth=2.2, label="best so far (mean)"))
    if findings.baseline_spread.seeds:
        handles.append(baseline_handle())
    for origin in ("baseline", *_origins(findings)):
        color, marker = origin_style(origin)
        handles.append(
            Line2D(
                [],
                [],
                linestyle="none",
                marker=marker,
                color=color,
                markersize=6,
                label=shortened(origin, 16),
            )
        )
    return handles


def baseline_handle() -> Line2D:
    """The legend of `baseline_band`."""
    return Line2D(
        [], [], color=BASELINE, linestyle=(0, (5, 3)), linewidth=1.3,
        label="baseline, band: its seeds",
    )  # fmt: skip


def draw_funnel(axes: Axes, findings: Findings) -> None:
    """Candidates that reached each stage, one bar per origin on a logarithmic axis."""
    axes.set_title("The funnel")
    origins = _origins(findings)
    if not origins:
        message(axes, "Nothing has been drawn yet.")
        return
    height = 0.8 / len(origins)
    # not every job simulates
    stages = [stage for stage in STAGES if stage != "simulated" or findings.funnel[stage]]
    largest = max(count for counts in findings.funnel.values() for count in counts.values())
    for row, stage in enumerate(stages):
        for place, origin in enumerate(origins):
            count = findings.funnel[stage].get(origin, 0)
            y = row + (place - (len(origins) - 1) / 2) * height
            # One is a visible stub on the logarithmic axis, zero is none.
            axes.barh(y, max(count, 0.5) - 0.5, left=0.5, height=0.86 * height,
                      color=origin_style(origin)[0])  # fmt: skip
            axes.text(
                max(count, 0.5) * 1.12, y, f"{count:,}", va="center", ha="left", fontsize=8,
                color=INK if count else MUTED,
            )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(0.5, max(largest, 10) * 4)
    axes.set_ylim(len(stages) - 0.45, -0.55)
    totals = [sum(findings.funnel[stage].values()) for stage in stages]
    axes.set_yticks(
        range(len(stages)),
        [f"{s}\n{total:,}" for s, total in zip(stages, totals, strict=True)],
        color=INK,
    )
    axes.set_xlabel("candidates (logarithmic)")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    light_grid(axes, "x")


def _origins(findings: Findings) -> list[str]:
    """The origins that occur, the known ones in their order; no baseline."""
    present = {origin for counts in findings.funnel.values() for origin in counts}
    return [o for o in ORIGIN_ORDER if o in present] + sorted(present - set(ORIGIN_ORDER))
