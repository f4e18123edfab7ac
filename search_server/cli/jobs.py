"""`lossforge jobs` and `lossforge show`: what there is, and one candidate in full."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from search_server.cli.options import JsonOption, StoreOption, candidate_id, open_store

if TYPE_CHECKING:
    from search_server.leaderboard import LeaderboardRow
    from search_server.store import CandidateRecord, TrialRecord


class JobStateFilter(StrEnum):
    """The states of a job."""

    created = "created"
    running = "running"
    interrupted = "interrupted"
    done = "done"
    failed = "failed"
    cancelled = "cancelled"


def jobs(
    state: Annotated[
        JobStateFilter | None, typer.Option(help="Only jobs in this state.", show_default=False)
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the jobs, the newest first: state, candidates, best AP beside the baseline's.

    Example: lossforge jobs --state interrupted
    """
    from search_server.cli.output import age, console, plain, points, print_json, table
    from search_server.overview import summaries

    with open_store(store) as opened:
        found = [each for each in summaries(opened) if state is None or each.state == state.value]
    if as_json:
        print_json({"jobs": found})
        return
    out = console()
    if not found:
        out.print("No jobs." if state is None else f"No jobs that are {state.value}.")
        return
    made = table(
        *("job", "state", "age", "candidates", "trained", "best AP", "baseline", "why"),
        right=("age", "candidates", "trained", "best AP", "baseline"),
        fold=("why",),
    )
    for job in found:
        made.add_row(
            plain(job.id),
            job.state,
            age(job.created_at),
            str(job.candidates),
            str(job.trained),
            points(job.best),
            points(job.baseline),
            plain(job.reason),
        )
    out.print(made)


def show(
    candidate: Annotated[str, typer.Argument(metavar="CANDIDATE", help="JOB:INDEX, or INDEX.")],
    job: Annotated[
        str | None,
        typer.Option(help="The job, when CANDIDATE is an INDEX; default: the newest."),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one candidate: its loss in full, where it comes from, and all its trials.

    Example: lossforge show digits-atss-1:12
    """
    from search_server.cli.output import print_json
    from search_server.leaderboard import leaderboard_row

    with open_store(store) as opened:
        job_id, index = candidate_id(opened, candidate, job)
        record = opened.candidate(job_id, index)
        trials = opened.trials(job_id, index, curves=as_json)
        row = leaderboard_row(opened, job_id, index)
    if as_json:
        row_part = {"deviation": row.deviation, "difference": row.difference}
        print_json({"job": job_id, "candidate": record, **row_part, "trials": trials})
        return
    _print(job_id, record, row, trials)


def _print(
    job_id: str, record: CandidateRecord, row: LeaderboardRow, trials: list[TrialRecord]
) -> None:
    import json

    from search_server.cli.formula import Formula
    from search_server.cli.leaderboard import difference
    from search_server.cli.output import console, duration, plain, points, table
    from search_server.store import METRICS

    out = console()
    title = f"{job_id}:{record.index}" + ("" if record.name is None else f"  {record.name}")
    out.print(plain(title, "bold"))
    why = f": {record.reason}" if record.reason else ""
    parents = ", ".join(map(str, record.parents))
    facts: list[tuple[str, str]] = [
        ("origin", record.origin + (f" of {parents}" if parents else "")),
        ("state", f"{record.state} at {record.stage}{why}"),
        ("cls", record.cls_text or "the detector's own loss"),
        ("bbox", record.bbox_text or "the detector's own loss"),
        ("size", f"{record.size} nodes"),
        ("simulated", f"AP {points(record.simulate_score)}"),
        ("fitness", f"AP {points(record.fitness)}" + _spread(row)),
        ("to baseline", "it is the baseline" if row.baseline else difference(row.difference)),
        ("definition", json.dumps(record.definition)),
    ]
    made = table("", " ", fold=(" ",))
    made.show_header = False
    for name, value in facts:
        made.add_row(name, Formula(value))
    out.print(made)
    if not trials:
        return
    out.print()
    listed = table(
        *("stage", "seed", "state", "AP", "AP50", "AP75", "APs", "APm", "APl", "took", "why"),
        right=("seed", "AP", "AP50", "AP75", "APs", "APm", "APl", "took"),
        fold=("why",),
    )
    for trial in trials:
        listed.add_row(
            trial.stage,
            str(trial.seed),
            trial.state,
            points(trial.fitness),
            *(points(trial.metrics.get(name)) for name in METRICS),
            duration(trial.seconds.get("total")),
            plain(trial.reason),
        )
    out.print(listed)
    for trial in trials:
        if trial.log:
            out.print(plain(f"the end of what {trial.stage} seed {trial.seed} printed:", "bold"))
            for line in trial.log.splitlines()[-20:]:
                out.print(plain(line, "dim"))


def _spread(row: LeaderboardRow) -> str:
    if row.deviation is None:
        return ""
    return f" ± {100 * row.deviation:.1f} over {row.seeds} seeds"
