"""The four panels about the losses: value and gradient per branch, the best and the baseline."""

import numpy as np
from matplotlib.axes import Axes

from search_server.report.curves import LossCurves
from search_server.report.style import BASELINE, BEST, MUTED, light_grid

DASHED = (0, (4, 2.5))
TITLE_PAD = 22.0  # points; room for the IoU's axis, and the same for all four


def draw_classification(
    value: Axes, gradient: Axes, best: LossCurves | None, baseline: LossCurves | None
) -> None:
    """Loss and gradient over the logit of one class, for an object and for background.

    A ranking loss has no value for one logit: it is drawn over the gap between an object's and a
    background's. Where only one of the two is such a loss, the other's curves are left out.
    """
    ranking = (best or baseline) is not None and bool((best or baseline).ranking)  # type: ignore[union-attr]
    value.set_title("Ranking loss" if ranking else "Classification loss", pad=TITLE_PAD)
    gradient.set_title("Its gradient", pad=TITLE_PAD)
    for curves, color in ((baseline, BASELINE), (best, BEST)):
        if curves is None or curves.ranking != ranking:
            continue
        for curve, style in ((curves.positive, "-"), (curves.negative, DASHED)):
            if not ranking or style == "-":  # both have one value
                _line(value, curve.x, curve.value, color, style)
            _line(gradient, curve.x, curve.gradient, color, style)
    for axes in (value, gradient):
        axes.set_xlabel("object's logit − background's" if ranking else "logit")
        axes.set_xlim(*((-2, 2) if ranking else (-6, 6)))
        axes.set_xticks([-2, -1, 0, 1, 2] if ranking else [-6, -3, 0, 3, 6])
        light_grid(axes, "both")
    gradient.axhline(0, color=MUTED, linewidth=0.8)


def draw_box(
    value: Axes, gradient: Axes, best: LossCurves | None, baseline: LossCurves | None
) -> None:
    """Loss and gradient of a square that slides off its target; the IoU along the top."""
    value.set_title("Box loss", pad=TITLE_PAD)
    gradient.set_title("Its gradient", pad=TITLE_PAD)
    for curves, color in ((baseline, BASELINE), (best, BEST)):
        if curves is not None:
            _line(value, curves.box.x, curves.box.value, color, "-")
            _line(gradient, curves.box.x, curves.box.gradient, color, "-")
    for axes in (value, gradient):
        axes.set_xlabel("displacement (box widths)")
        axes.set_xlim(0, 1.5)
        axes.set_xticks([0, 0.5, 1, 1.5], ["0", "0.5", "1", "1.5"])
        light_grid(axes, "both")
        _iou_axis(axes)


def legend_entries(shown: str = "best") -> list[tuple[str, str, object]]:
    """Label, colour and line style of every kind of line in the panels; the first two are of what
    is `shown`, the others of the baseline."""
    return [
        (f"{shown}, object (y = 1)", BEST, "-"),
        (f"{shown}, background (y = 0)", BEST, DASHED),
        ("baseline, object", BASELINE, "-"),
        ("baseline, background", BASELINE, DASHED),
    ]


def _line(axes: Axes, x: np.ndarray, y: np.ndarray, color: str, style: object) -> None:
    axes.plot(x, np.where(np.isfinite(y), y, np.nan), color=color, linestyle=style, linewidth=1.8)


def _iou_axis(axes: Axes) -> None:
    """IoU of two equal squares displaced by d widths along one side: (1 - d) / (1 + d)."""
    ious = (1.0, 0.6, 0.3, 0.1)
    top = axes.secondary_xaxis("top")
    top.set_xticks([(1 - iou) / (1 + iou) for iou in ious], [f"{iou:g}" for iou in ious])
    top.tick_params(length=2.5, labelsize=7.5, pad=1.5, colors=MUTED)
    top.spines["top"].set_visible(False)
    axes.text(
        1.0, 1.025, "IoU", transform=axes.transAxes, fontsize=7.5, color=MUTED, ha="right",
        va="bottom",
    )  # fmt: skip
