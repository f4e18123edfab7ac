"""A running search on the screen: a live panel on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search_server.cli.output import console, duration, plain, points

if TYPE_CHECKING:
    from search_server.progress import Progress

LINE_EVERY = 15.0  # seconds between plain lines while no trial ends
OWN = "the detector’s own"
_RUNNING_SHOWN = 6


@contextmanager
def watched(*, stderr: bool) -> Iterator[Callable[[Progress], None]]:
    """An observer for `run_job` that shows each progress on stdout, or on stderr."""
    out = console(stderr=stderr)
    if not out.is_terminal:
        yield PlainLines(out)
        return
    # What libraries print while the panel is up goes above it; our own answer comes after it.
    with Live(console=out, auto_refresh=False, redirect_stderr=False) as live:
        yield lambda progress: live.update(panel(progress), refresh=True)


class PlainLines:
    """Writes a line when a trial has ended, and now and then in between."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._last: tuple[int, int] = (-1, -1)
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        """Takes the progress of a job; not every one is worth a line."""
        now = time.monotonic()
        ended = progress.done != self._last[0]
        moved = progress.candidates != self._last[1]
        if not ended and not (now >= self._next and (moved or self._next > 0)):
            return
        self._last, self._next = (progress.done, progress.candidates), now + LINE_EVERY
        self._out.print(plain(line(progress)), soft_wrap=True)


def line(progress: Progress) -> str:
    """The progress in one line."""
    funnel = " > ".join(f"{count} {stage}" for stage, count in progress.funnel.items())
    state = f"{len(progress.running)} running"
    if progress.waiting_for:
        state = f"waiting for {progress.waiting_for}"
    parts = [
        time.strftime("%H:%M:%S"),
        *filter(None, [progress.round]),
        f"trials {progress.done}/{progress.trials}, {state}",
        funnel,
    ]
    if progress.baseline is not None:
        parts.append(f"baseline {points(progress.baseline)}")
    if progress.best is not None:
        parts.append(f"best {points(progress.best.fitness)} (candidate {progress.best.index})")
    if progress.steps_of is not None:
        parts.append(f"steps {progress.steps_spent or 0:,.0f}/{progress.steps_of:,}")
    if progress.seconds_left is not None:
        parts.append(f"{duration(progress.seconds_left)} left")
    return " | ".join(parts)


def panel(progress: Progress) -> RenderableType:
    """The progress as a panel of about ten lines."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    grid.add_row("job", plain(progress.job))
    funnel = Text(" > ").join(
        Text.assemble((f"{count:,}", "cyan"), f" {stage}")
        for stage, count in progress.funnel.items()
    )
    grid.add_row("funnel", funnel)
    made = f"{progress.candidates} of {progress.of}"
    grid.add_row("candidates", f"{made}, {progress.round}" if progress.round else made)
    bar = Table.grid(padding=(0, 2))
    total = max(progress.trials, progress.done, 1)
    bar.add_row(
        ProgressBar(total=total, completed=progress.done, width=32),
        f"{progress.done} of {progress.trials}",
        "" if progress.seconds_left is None else f"about {duration(progress.seconds_left)} left",
    )
    grid.add_row("trials", bar)
    if progress.steps_of is not None:
        spent, left = progress.steps_spent or 0.0, progress.steps_of - (progress.steps_spent or 0.0)
        grid.add_row("steps", f"{spent:,.0f} of {progress.steps_of:,}, {max(0.0, left):,.0f} left")
    if progress.waiting_for:
        grid.add_row("waiting", plain(f"for {progress.waiting_for}"), style="yellow")
    else:
        shown = ", ".join(progress.running[:_RUNNING_SHOWN]) or "none"
        rest = len(progress.running) - _RUNNING_SHOWN
        grid.add_row("running", plain(shown + (f" and {rest} more" if rest > 0 else "")))
    grid.add_row("baseline", f"AP {points(progress.baseline)}")
    if progress.best is not None:
        best = progress.best
        grid.add_row("best", f"AP {points(best.fitness)}, candidate {best.index}")
        grid.add_row("", plain(f"{'loss' if best.joint else 'cls '} {best.cls or OWN}"))
        if not best.joint:
            grid.add_row("", plain(f"bbox {best.bbox or OWN}"))
        if best.rpn is not None:
            grid.add_row("", plain(f"rpn  {best.rpn}"))
    return Group(grid)
