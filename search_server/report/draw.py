"""Lays the panels of a report out on one page and writes it as PNG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from losses import LossDefinition, LossesError, PapFunctions, RankingBranch
from search_server.report.curve_panels import draw_box, draw_classification, legend_entries
from search_server.report.curves import LossCurves, loss_curves
from search_server.report.formula_panel import FormulaPanel
from search_server.report.function_panels import HEIGHT, draw_functions
from search_server.report.headline import draw_headline
from search_server.report.judged_panels import (
    draw_confirmed,
    draw_rungs,
    draw_sizes,
    judged_handles,
)
from search_server.report.panels import draw_funnel, draw_progress, legend_handles
from search_server.report.policy_panels import draw_rewards, draw_scales, policy_handles
from search_server.report.race_panel import draw_races, race_handles
from search_server.report.races import Race
from search_server.report.records import Findings, gather
from search_server.report.style import MUTED, RC, message

if TYPE_CHECKING:
    from search_server.store import Store

WIDTH = 13.0  # inches, like all lengths below
MARGIN = 0.55
HEADLINE = 1.15
SEARCH = 3.3
JUDGED = 2.6
RACES = 2.6
CURVES = 2.3
SPACE = 0.4  # above the panels of a row, for their titles
LABELS = 0.55  # below them, for their axes
LEGEND = 0.45
DPI = 130


def report(
    store: Store,
    job_id: str,
    path: Path,
    beside: Sequence[Race] = (),
    candidate: int | None = None,
) -> Path:
    """Draws a job as it is now, in whatever state: search, funnel, best formula and its curves.

    Between them what there is of: the confirmed differences, AP against size, AP over the rungs.

    A policy search has its rewards and gradient scales by round instead of the funnel, and shows
    the policy's mean: its functions, formula and curves.

    Args:
        path: the PNG file; an existing one is replaced, a missing folder is made.
        beside: the job's own way and those of others to draw it with, see `races.races`.
        candidate: index of the one whose formula and curves are drawn; None: the best.

    Returns:
        ``path``.

    Raises:
        JobError: there is no such job, or it has not trained that candidate to the end.
    """
    findings = gather(store, job_id, candidate)
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(dict(RC)):
        figure = draw(findings, beside)
        figure.savefig(path, dpi=DPI, format="png")
    return path


def draw(findings: Findings, beside: Sequence[Race] = ()) -> Figure:
    """The page as a figure; call it with the style's settings in force."""
    formula = FormulaPanel.of(findings, WIDTH - 2 * MARGIN)
    rows = _function_rows(findings)
    judged = _judged_panels(findings)
    height = (
        HEADLINE + SPACE + SEARCH + LABELS + LEGEND + SPACE + formula.height
        + (SPACE + JUDGED + LABELS + LEGEND if judged else 0.0)
        + (SPACE + RACES + LABELS + LEGEND if beside else 0.0)
        + len(rows) * HEIGHT / 72 + SPACE + CURVES + LABELS + LEGEND
    )  # fmt: skip
    figure = Figure(figsize=(WIDTH, height))
    FigureCanvasAgg(figure)

    def place(left: float, top: float, width: float, tall: float) -> Axes:
        return figure.add_axes(
            (left / WIDTH, 1 - (top + tall) / height, width / WIDTH, tall / height)
        )

    inner = WIDTH - 2 * MARGIN
    draw_headline(place(MARGIN, 0.0, inner, HEADLINE), findings, 72 * inner)
    top = HEADLINE + SPACE
    left = place(MARGIN + 0.25, top, 6.9, SEARCH)
    right = place(MARGIN + 8.2, top, inner - 8.2, SEARCH)
    if findings.policy is None:
        draw_progress(left, findings)
        draw_funnel(right, findings)
        handles = legend_handles(findings)
    else:
        draw_rewards(left, findings, findings.policy)
        draw_scales(right, findings.policy)
        handles = policy_handles(findings, findings.policy)
    top += SEARCH + LABELS
    _legend(place(MARGIN, top, inner, LEGEND), handles)
    top += LEGEND
    if judged:
        top += SPACE
        _draw_judged(place, top, inner, judged)
        top += JUDGED + LABELS
        handles = judged_handles(findings.confirmed, findings.sizes, findings.curves)
        _legend(place(MARGIN, top, inner, LEGEND), handles)
        top += LEGEND
    if beside:
        top += SPACE
        draw_races(place(MARGIN + 0.25, top, inner - 0.25, RACES), beside)
        top += RACES + LABELS
        _legend(place(MARGIN, top, inner, LEGEND), race_handles(beside))
        top += LEGEND
    top += SPACE / 2
    formula.draw(place(MARGIN, top, inner, formula.height))
    top += formula.height
    for row in rows:

        def in_row(x: float, y: float, across: float, tall: float, start: float = top) -> Axes:
            return place(MARGIN + x / 72, start + y / 72, across / 72, tall / 72)

        draw_functions(in_row, 72 * inner, row.functions, row.others, row.title)
        top += HEIGHT / 72
    top += 1.5 * SPACE
    _draw_curves(place, top, inner, findings)
    return figure


@dataclass(frozen=True)
class _Panel:
    """A panel of the second row; inches of room for its labels to both sides, share of the rest."""

    draw: Callable[[Axes], None]
    before: float
    after: float
    share: float


def _judged_panels(findings: Findings) -> list[_Panel]:
    """The panels of the second row that there is something for."""
    found = []
    if findings.confirmed:
        found.append(_Panel(partial(draw_confirmed, losses=findings.confirmed), 1.45, 1.05, 1.1))
    if findings.sizes and len({each.size for each in findings.sizes}) > 1:
        baseline = findings.baseline_spread
        level = baseline.mean if baseline.seeds else None
        draw = partial(draw_sizes, candidates=findings.sizes, baseline=level)
        found.append(_Panel(draw, 0.55, 0.1, 1.0))
    if findings.curves:
        best = findings.best.index if findings.best else None
        found.append(_Panel(partial(draw_rungs, curves=findings.curves, best=best), 0.55, 0.1, 1.0))
    return found


def _draw_judged(
    place: Callable[[float, float, float, float], Axes],
    top: float,
    inner: float,
    panels: Sequence[_Panel],
) -> None:
    free = inner - sum(panel.before + panel.after for panel in panels)
    unit = min(free / sum(panel.share for panel in panels), inner / 2.2)
    left = MARGIN
    for panel in panels:
        left += panel.before
        panel.draw(place(left, top, panel.share * unit, JUDGED))
        left += panel.share * unit + panel.after


@dataclass(frozen=True)
class _FunctionRow:
    """A row of function panels: of one branch, with those of the newest round's samples."""

    title: str
    functions: PapFunctions
    others: tuple[PapFunctions, ...]


def _function_rows(findings: Findings) -> list[_FunctionRow]:
    """A row for each parameterized AP loss in what is shown."""
    try:
        definition = LossDefinition.from_json(findings.shown or {})
    except LossesError:
        return []
    rows = []
    for branch in ("cls", "rpn"):
        given = definition.branch(branch)
        if isinstance(given, RankingBranch) and given.functions is not None:
            others = findings.policy.newest_functions(branch) if findings.policy else []
            title = "" if definition.rpn is None else {"cls": "Box head", "rpn": "RPN"}[branch]
            rows.append(_FunctionRow(title, given.functions, tuple(others)))
    return rows


def _draw_curves(
    place: Callable[[float, float, float, float], Axes],
    top: float,
    inner: float,
    findings: Findings,
) -> None:
    best, best_reason = _curves(findings, best=True)
    baseline, _ = _curves(findings, best=False)
    if best is None and baseline is None:
        message(place(MARGIN, top, inner, CURVES), best_reason)
        return
    gap = 0.62
    width = (inner - 0.25 - 3 * gap) / 4
    left = MARGIN + 0.25
    panels = [place(left + i * (width + gap), top, width, CURVES) for i in range(4)]
    draw_classification(panels[0], panels[1], best, baseline)
    draw_box(panels[2], panels[3], best, baseline)
    handles = [
        Line2D([], [], color=color, linestyle=style, linewidth=1.8, label=label)
        for label, color, style in legend_entries(findings.shown_name)
        if (baseline if label.startswith("baseline") else best) is not None
    ]
    strip = place(MARGIN, top + CURVES + LABELS, inner, LEGEND)
    _legend(strip, handles)
    if findings.shown is not None and best is None:
        strip.text(1, 0.5, best_reason, ha="right", va="center", color=MUTED, parse_math=False)


def _legend(axes: Axes, handles: list[Line2D]) -> None:
    """A legend in one row, on a strip of the page of its own."""
    axes.axis("off")
    if handles:
        axes.legend(
            handles=handles, loc="center left", ncols=len(handles), columnspacing=1.6,
            handletextpad=0.6, borderaxespad=0.0, borderpad=0.0,
        )  # fmt: skip


def _curves(findings: Findings, *, best: bool) -> tuple[LossCurves | None, str]:
    """The curves of one candidate, or why there are none: a report is drawn all the same."""
    baseline = findings.baseline
    definition = findings.shown if best else None if baseline is None else baseline.definition
    if definition is None:
        return None, "No loss has been trained to the end yet, so there is none to draw."
    try:
        return loss_curves(findings.job.detector, definition), ""
    except Exception as error:  # a user's config and any installed loss run here
        return None, f"The loss could not be built for its curves: {type(error).__name__}."
