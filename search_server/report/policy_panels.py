"""The panels of a policy search: reward by round, and the box gradient scale by round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from search_server.report.panels import LEAST_SPAN, baseline_band, baseline_handle
from search_server.report.policy_records import PolicySearch
from search_server.report.records import Findings
from search_server.report.style import BASELINE, BEST, MUTED, light_grid, message, origin_style

#: Colour, marker and words of a branch, where there are two.
_BRANCHES: Mapping[str, tuple[str, str, str]] = {
    "cls": (origin_style("policy")[0], "o", "box head"),
    "rpn": ("#009e73", "^", "RPN"),
}
_LEAST_SCALES = 4.0  # highest over lowest gradient scale that the axis spans at least
_WIDE = 0.5  # of a round: how far apart the dots of one lie together


@dataclass(frozen=True)
class _Range:
    """Points of AP: what lies below `floor` is only marked."""

    floor: float
    top: float
    below: int


def draw_rewards(axes: Axes, findings: Findings, search: PolicySearch) -> None:
    """Every sample as a dot, the rounds' means as a line, the baseline's band, the final mean."""
    axes.set_title("Reward by round")
    if not search.samples:
        message(axes, "No sample of the policy has been trained yet.")
        return
    span = _range(findings, search)
    baseline_band(axes, findings)
    color, marker = origin_style("policy")
    for number, own in search.by_round.items():
        for sample in own:
            low = 100 * sample.fitness < span.floor
            axes.scatter(
                number + _aside(sample.index, search), max(100 * sample.fitness, span.floor),
                s=26, c=color, marker="x" if low else marker, alpha=1.0 if low else 0.65,
                edgecolors=None if low else "white", linewidths=1.1 if low else 0.5, zorder=3,
                clip_on=not low,
            )  # fmt: skip
    means = {n: 100 * value for n, value in search.round_means.items()}
    shown = [max(value, span.floor) for value in means.values()]
    axes.plot(list(means), shown, color=BEST, linewidth=2.0, zorder=4)
    right = search.rounds.count if search.mean or len(means) > 1 else max(means)
    if search.mean is not None:
        _final_mean(axes, search, span)
    axes.set_xlim(0.4, max(right, max(means)) + (1.8 if search.mean else 0.6))
    axes.set_ylim(span.floor, span.top)
    axes.set_xlabel(f"round of {search.rounds.samples} samples")
    axes.set_ylabel("COCO box AP (×100)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if span.below:
        axes.text(
            0.995, 0.02, f"× {span.below} below", transform=axes.transAxes, ha="right",
            va="bottom", fontsize=8.5, color=MUTED,
        )  # fmt: skip
    light_grid(axes)


def draw_scales(axes: Axes, search: PolicySearch) -> None:
    """The factor on the gradient of the boxes: samples as dots, the policy's mean as a line."""
    axes.set_title("Box gradient scale")
    sampled = [
        (sample.round + _aside(sample.index, search), name, branch.box_gradient_scale)
        for sample in search.samples
        for name, branch in sample.branches.items()
        if branch.box_gradient_scale is not None
    ]
    if not sampled:
        message(axes, "No sample of the policy has been trained yet.")
        return
    scales = [scale for _, _, scale in sampled]
    axes.axhline(1, color=BASELINE, linestyle=(0, (5, 3)), linewidth=1.1)
    two = len({name for _, name, _ in sampled}) > 1
    for x, name, scale in sampled:
        color, marker, _ = _BRANCHES[name]
        axes.scatter(
            x, scale, s=18, c=color, marker=marker, alpha=0.55, edgecolors="white",
            linewidths=0.4, zorder=2,
        )  # fmt: skip
    newest = search.means[-1].values() if search.means else ()
    highest = max((branch.box_gradient_scale or 1.0 for branch in newest), default=1.0)
    for name in search.means[0] if search.means else ():
        line = [branches[name].box_gradient_scale or 1.0 for branches in search.means]
        scales += line
        # the mean after round r is what round r + 1 is drawn from
        axes.plot(
            [n + 0.5 for n in range(len(line))], line, color=_BRANCHES[name][0] if two else BEST,
            linewidth=2.0, zorder=3,
        )  # fmt: skip
        if two:
            above = 6 if line[-1] == highest else -12
            axes.annotate(
                _BRANCHES[name][2], (len(line) - 0.5, line[-1]), xytext=(-3, above),
                textcoords="offset points", fontsize=8.5, ha="right", fontweight="bold",
                color=_BRANCHES[name][0],
                path_effects=[withStroke(linewidth=3, foreground="white")],
            )  # fmt: skip
    low, high = min(*scales, 1.0), max(*scales, 1.0)
    room = max(1.15, (_LEAST_SCALES / (high / low)) ** 0.5)
    axes.set_yscale("log")
    axes.set_ylim(low / room, high * room)
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10) if low / room <= tick <= high * room]
    axes.set_yticks(ticks)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"×{value:g}"))
    axes.set_xlim(0.4, max(search.by_round) + 0.6)
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    light_grid(axes)


def policy_handles(findings: Findings, search: PolicySearch) -> list[Line2D]:
    """The legend of both panels."""
    policy = ", of the policy (right)" if search.means else ""
    color, marker = origin_style("policy")
    handles = [
        Line2D(
            [], [], linestyle="none", marker=marker, color=color, markersize=5.5, label="a sample"
        ),
        Line2D([], [], color=BEST, linewidth=2.0, label="mean of the round (left)" + policy),
    ]
    if findings.baseline_spread.seeds:
        handles.append(baseline_handle())
    if any(branch.functions is not None for branch in search.found.values()):
        handles.append(
            Line2D([], [], color=MUTED, alpha=0.5, linewidth=1.0, label="newest round's functions")
        )
    if search.mean is not None:
        color, marker = origin_style("mean")
        handles.append(
            Line2D(
                [], [], linestyle="none", marker=marker, color=color, markersize=10,
                label="final mean, trained",
            )
        )  # fmt: skip
    return handles


def _final_mean(axes: Axes, search: PolicySearch, span: _Range) -> None:
    """The final mean after the last round, with the range of its seeds."""
    color, marker = origin_style("mean")
    x = search.rounds.count + 1.1
    own = search.mean_spread
    if own.count > 1:
        axes.plot(
            [x, x], [max(100 * own.low, span.floor), 100 * own.high], color=color, linewidth=1.4
        )
    assert search.mean is not None
    axes.scatter(
        x, max(100 * (search.mean.fitness or 0.0), span.floor), s=130, c=color, marker=marker,
        edgecolors="white", linewidths=0.8, zorder=5, clip_on=False,
    )  # fmt: skip


def _aside(index: int, search: PolicySearch) -> float:
    """Where in its round a sample's dot lies: the dots of a round stand side by side."""
    count = search.rounds.samples
    return _WIDE * (((index - 1) % count) / (count - 1) - 0.5) if count > 1 else 0.0


def _range(findings: Findings, search: PolicySearch) -> _Range:
    """The range of the AP axis: a lost sample does not flatten the rest."""
    values = [100 * sample.fitness for sample in search.samples]
    ordered = sorted(values)
    middle, quarter = ordered[len(ordered) // 2], ordered[len(ordered) // 4]
    levels = [*ordered, *(100 * v for v in search.round_means.values())]
    if findings.baseline_spread.seeds:
        levels += [100 * findings.baseline_spread.low, 100 * findings.baseline_spread.high]
    if search.mean_spread.seeds:
        levels += [100 * search.mean_spread.low, 100 * search.mean_spread.high]
    least = middle - max(LEAST_SPAN, 4 * (middle - quarter), max(levels) - middle)
    inside = [level for level in levels if level >= least]
    low, high = min(inside), max(inside)
    margin = max(0.08 * (high - low), (LEAST_SPAN - (high - low)) / 2)
    floor = max(0.0, low - margin)
    below = sum(value < floor for value in values)
    return _Range(floor, high + margin, below)
