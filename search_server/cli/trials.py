"""Runs the trials of a comparison for the commands that train losses side by side."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search_server.comparison import Comparison
    from search_server.comparison_run import Ended, Results
    from search_server.spec import Resources


def run_trials(
    comparison: Comparison,
    resources: Resources,
    output: Path | None,
    address: str | None,
    slots: int | None,
) -> tuple[Results, bool]:
    """Runs what is not in the file yet, with a line on stderr for each trial that ends.

    Args:
        output: where ended trials are kept; None: nowhere.
        address, slots: as `search` takes them.

    Returns:
        The results, and whether Ctrl-C stopped it.
    """
    from search_server.cli.output import note
    from search_server.comparison_file import ComparisonFile
    from search_server.comparison_run import run_comparison
    from search_server.controller import stop_on_signals
    from search_server.executors.choice import chosen_address, open_executor

    chosen_address(address, slots)
    with contextlib.ExitStack() as stack:
        file = None if output is None else stack.enter_context(ComparisonFile(output))
        if file is None:
            note("no --output: the trials are not kept, and a rerun begins anew")
        stop = stack.enter_context(stop_on_signals())
        executor = stack.enter_context(contextlib.closing(open_executor(resources, address, slots)))
        results = run_comparison(comparison, executor, file, _say, stop)
        return results, stop.is_set()


def _say(ended: Ended) -> None:
    from search_server.cli.output import duration, note, points

    result = ended.result
    how = f"AP {points(result.fitness)}"
    if result.status != "done":
        how = f"{result.status}: {result.reason}"
    text = f"{ended.done}/{ended.of}  {ended.name}, seed {ended.seed}: {how}"
    took = duration(result.seconds.get("total"))
    left = "" if not ended.seconds_left else f"; about {duration(ended.seconds_left)} left"
    note(f"{text} ({took}{left})")
