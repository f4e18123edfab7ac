"""`lossforge search` and `lossforge resume`: a job from its spec to its leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search_server.cli.options import JsonOption, ServerOption, StoreOption, open_store, server_url

if TYPE_CHECKING:
    from search_server.leaderboard import LeaderboardRow
    from search_server.overview import JobSummary
    from search_server.planning import Plan
    from search_server.spec import JobSpec
    from search_server.store import Store

AddressOption = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Where the trials run: `local` starts Ray on this machine, `auto` or HOST:PORT is a "
        "Ray cluster, `none` takes processes of this machine. Default: the cluster that "
        "RAY_ADDRESS names, else `local`.",
        show_default=False,
    ),
]
SlotsOption = Annotated[
    int | None,
    typer.Option(
        min=1, max=1024, help="Trials at once on this machine; default: as its cores allow."
    ),
]
TraceOption = Annotated[
    int,
    typer.Option(
        min=0, max=1000, help="Keep this many rejected draws per reason and candidate as text."
    ),
]


def search(
    spec: Annotated[Path, typer.Argument(help="The job spec, a YAML file (see `init`).")],
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only time ten steps and count out trials and hours."),
    ] = False,
    address: AddressOption = None,
    slots: SlotsOption = None,
    trace: TraceOption = 0,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search for a loss: run a job spec to its end, with live progress.

    Ctrl-C interrupts it; `resume` goes on without repeating a finished trial.

    Example: lossforge search configs/search/digits_atss.yaml
    """
    from search_server.cli.output import note, stdout_kept

    with stdout_kept():
        from search_server.executors.choice import chosen_address
        from search_server.jobs import create_job
        from search_server.spec import load_spec

        loaded = load_spec(spec)
    warn_of_budget(loaded, spec, store)
    if dry_run:
        _print_plan(loaded, spec, slots, as_json)
        return
    chosen_address(address, slots)  # what is wrong with them is said before a job is written
    with open_store(store, create=True) as opened:
        with stdout_kept():
            job = create_job(opened, loaded, spec)
        note(f"job {job} in {opened.url}")
        raise typer.Exit(_run(opened, job, address, slots, trace, as_json))


def warn_of_budget(spec: JobSpec, source: Path, store: str | None) -> None:
    """Says on stderr what the confirm stage of a job cannot detect (see `budget_warning`)."""
    from search_server.cli.options import store_url
    from search_server.cli.output import note, stdout_kept

    if spec.target_gain is None:
        return
    with stdout_kept():
        from search_server.budget_warning import budget_warning

        words = budget_warning(spec, source, store_url(store))
    if words is not None:
        note(f"warning: {words}")


def resume(
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.")],
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="As for `search`, or a cluster's dashboard, http://HOST:8265: submit it there "
            "(`submit --resume` has more options).",
            show_default=False,
        ),
    ] = None,
    slots: SlotsOption = None,
    trace: TraceOption = 0,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Resume though the last attempt's cluster does not answer: it is gone."
        ),
    ] = False,
    store: StoreOption = None,
    store_file: Annotated[
        Path | None,
        typer.Option(help="Read the store's URL from a file, which keeps it off command lines."),
    ] = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go on with a job that was interrupted, or whose process was killed.

    Example: lossforge resume digits-atss-1
    """
    from search_server.cli.output import stdout_kept
    from search_server.errors import StoreError

    if store_file is None and (url := server_url(server, store)) is not None:
        from search_server.cli import remote

        remote.resume(url, job, force=force, as_json=as_json)
        return
    if _goes_elsewhere(job, address, slots, store, store_file, force, as_json):
        return
    if store_file is not None:
        if store is not None:
            raise StoreError("give --store or --store-file, not both")
        with stdout_kept():
            from search_server.submission import read_store_file

            store = read_store_file(store_file)
    with open_store(store) as opened:
        raise typer.Exit(_run(opened, job, address, slots, trace, as_json))


def _goes_elsewhere(
    job: str,
    address: str | None,
    slots: int | None,
    store: str | None,
    store_file: Path | None,
    force: bool,
    as_json: bool,
) -> bool:
    """Whether a job that is to be resumed runs already, or was submitted to a cluster; says so."""
    if store_file is not None:  # this is the cluster
        from workers.modules import add_user_modules

        add_user_modules()
        return False
    from search_server.cli.options import store_url
    from search_server.cli.output import stdout_kept
    from search_server.cli.submit import print_submission
    from search_server.errors import JobError
    from search_server.store.url import absolute

    if address is not None and address.startswith(("http://", "https://")):
        if slots is not None:
            raise JobError("--slots is for this machine; leave it out, or give --address local")
        with stdout_kept():
            from search_server.submission import Wishes, resubmit

            sent = resubmit(job, absolute(store_url(store)), address, Wishes(force=force))
        print_submission(sent, as_json)
        return True
    with open_store(store) as opened:
        if not opened.submissions(job):
            return False
        with stdout_kept():
            from search_server.submission import running_already

            running = running_already(opened, opened.job(job), force)
    if running is None:
        return False
    print_submission(running, as_json)
    return True


def _run(
    store: Store, job_id: str, address: str | None, slots: int | None, trace: int, as_json: bool
) -> int:
    """Runs a job in this process; returns the command's exit status."""
    from search_server.cli.live import watched
    from search_server.cli.output import stdout_kept

    record = store.job(job_id)
    with stdout_kept():
        from search_server.controller import run_job, stop_on_signals
        from search_server.executors.choice import open_executor
        from search_server.spec import JobSpec
        from search_server.submission import check_resumable

        check_resumable(record)
        spec = JobSpec.from_json(record.spec)
        executor = open_executor(spec.resources, address, slots)
    try:
        with stop_on_signals() as stop, watched(stderr=as_json) as observer:
            run_job(store, job_id, executor, observer, stop, trace)
            stopped = stop.is_set()
    finally:
        executor.close()
    return _conclude(store, job_id, stopped, as_json)


def _conclude(store: Store, job_id: str, stopped: bool, as_json: bool) -> int:
    """Says how a run of a job ended, and what to do next."""
    from search_server.cli.output import one_line, points, print_json
    from search_server.leaderboard import leaderboard

    job = store.job(job_id)
    groups = leaderboard(store, job_id, limit=200)  # the baseline and the rivals may lead
    rows = groups[0].rows if groups else ()
    best = next((row for row in rows if row.rank and not (row.baseline or row.rival)), None)
    base = groups[0].baseline if groups else None
    if as_json:
        print_json(
            {
                "job": job_id,
                "state": job.state,
                "reason": job.reason,
                "best": None
                if best is None
                else {
                    "id": best.id,
                    "fitness": best.fitness,
                    "difference": best.difference,
                    "confirmed": best.confirmed,
                    "judged": best.judged,
                },
                "baseline": None if base is None else {"id": base.id, "fitness": base.fitness},
            }
        )
    else:
        print(one_line(f"job {job_id} is {job.state}" + f": {job.reason}" * bool(job.reason)))
        if best is not None:
            print(best_line(best, _summary(store, job_id).trained))
        mean = _summary(store, job_id).mean
        if mean is not None:
            print(
                f"mean: the policy's final mean has AP {points(mean)}; it is what was searched for"
            )
        if job.state == "interrupted":
            print(f"go on:  lossforge resume {job_id}")
        else:
            print(f"see:    lossforge leaderboard {job_id}")
        if best is not None:
            chosen = "" if mean is None else " --candidate mean"
            print(f"export: lossforge export {job_id}{chosen} -o best.py")
            if best.confirmed and job.state == "done":
                print(f"read the split test, once: lossforge publish {best.id}")
    if job.state == "done":
        return 0
    return 130 if stopped and job.state == "interrupted" else 1


def best_line(best: LeaderboardRow, trained: int) -> str:
    """The best of a search, without a word too much: chance favours the best of many.

    Args:
        trained: of how many candidates with a fitness it is the best.
    """
    from search_server.cli.leaderboard import difference, interval, p_value
    from search_server.cli.output import points

    judged = best.judged
    if judged is not None and judged.confirm is not None and judged.confirm.difference is not None:
        gain = judged.confirm.difference
        text = f"best: candidate {best.index}, {interval(gain)} AP to the baseline on confirm"
        text += f" over {gain.count} seeds"
        if judged.p is not None:
            p = p_value(judged.p)
            text += f", p {p if p.startswith('<') else '= ' + p} for {judged.family} confirmed"
        if judged.shrunken is not None:
            text += f", shrunken {100 * judged.shrunken:+.1f}"
        return text
    text = f"best: candidate {best.index} with AP {points(best.fitness)}"
    if (paired := best.difference) is not None:
        seeds = "1 seed" if paired.seeds == 1 else f"{paired.seeds} seeds"
        text += f", {difference(paired)} to the baseline over {seeds}"
    return f"{text}; unconfirmed: the best of {trained} trained, on the seeds that chose it"


def _summary(store: Store, job_id: str) -> JobSummary:
    from search_server.overview import summaries

    return next(each for each in summaries(store) if each.id == job_id)


def _print_plan(spec: JobSpec, source: Path, slots: int | None, as_json: bool) -> None:
    """Trials and hours per stage, from ten steps that are really taken."""
    from search_server.cli.output import print_json, stdout_kept

    with stdout_kept():
        from search_server.executors.choice import local_slots
        from search_server.planning import plan, time_steps

        counted = plan(spec, time_steps(spec, source), slots or local_slots(spec.resources))
    if as_json:
        rounds = {"rounds": counted.rounds, "samples": counted.samples} if counted.rounds else {}
        print_json(
            {"slots": counted.slots, **rounds, "stages": counted.stages, "hours": counted.hours}
        )
        return
    print_plan(counted)


def print_plan(counted: Plan) -> None:
    """A plan as a table."""
    from search_server.cli.output import console, duration, table

    made = table("stage", "trials", "steps", "time", right=("trials", "steps", "time"))
    for stage in counted.stages:
        time = duration(3600 * stage.hours)
        name = f"{stage.stage} on from {stage.start}" if stage.start else stage.stage
        made.add_row(name, str(stage.trials), str(stage.steps), time)
    made.add_row("all", str(counted.trials), "", duration(3600 * counted.hours), style="bold")
    out = console()
    out.print(made)
    if counted.rounds:
        rounds = f"{counted.rounds} rounds of {counted.samples} samples, then the final mean"
        out.print(f"the baseline, {rounds}; a round waits for the one before it", style="dim")
    if any(stage.start for stage in counted.stages):
        out.print("at a rung: as many as its rule lets pass among equals", style="dim")
    out.print(f"with {counted.slots} trials at once, as measured on this machine", style="dim")
