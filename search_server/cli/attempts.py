"""`lossforge status`, `logs` and `cancel`: a job that runs, here or on a cluster, from anywhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from search_server.cli.options import (
    JobArgument,
    JsonOption,
    ServerOption,
    StoreOption,
    job_id,
    open_store,
    server_url,
)

if TYPE_CHECKING:
    from search_server.job_status import JobStatus


def status(
    job: JobArgument = None,
    store: StoreOption = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """How a job is: its state in the store, its progress, and what Ray says of its attempt.

    Example: lossforge status digits-atss-1
    """
    from search_server.cli.output import print_json, stdout_kept

    if (url := server_url(server, store)) is not None:
        from search_server.cli import remote

        remote.status(url, job, as_json)
        return
    with open_store(store) as opened:
        name = job_id(opened, job)
        with stdout_kept():
            from search_server.job_status import job_status

            found = job_status(opened, name)
    if as_json:
        print_json(found)
        return
    _print_status(found)


def logs(
    job: JobArgument = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the attempt ends.")
    ] = False,
    attempt: Annotated[
        int | None,
        typer.Option(min=1, help="Which attempt; default: the newest.", show_default=False),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Print what the controller of a job on a cluster has printed.

    Example: lossforge logs digits-atss-1 --follow
    """
    import asyncio

    from search_server.cli.output import stdout_kept
    from search_server.errors import JobError

    with open_store(store) as opened:
        name = job_id(opened, job)
        with stdout_kept():
            from search_server.attempts import newest
            from search_server.cluster import Cluster

            found = newest(opened, name, attempt)
    if found is None:
        raise JobError(
            f"job {name} was not submitted to a cluster; `lossforge search` prints where it runs"
        )
    with stdout_kept():
        cluster = Cluster(found.address)
        if cluster.status(found.submission_id) is None:
            raise JobError(
                f"the cluster at {found.address} does not know {found.submission_id}: it has been "
                "started anew since, and its logs are gone"
            )
    if not follow:
        sys.stdout.write(_tame(cluster.log(found.submission_id)))
        return

    async def tail() -> None:
        async for text in cluster.tail(found.submission_id):
            sys.stdout.write(_tame(text))
            sys.stdout.flush()

    asyncio.run(tail())


def cancel(
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.")],
    wait: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0,
            max=3600,
            help="How long the controller may take to obey, before its attempt is stopped at Ray.",
        ),
    ] = 30.0,
    store: StoreOption = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a job for good. What is finished stays in the store, and later jobs take it over.

    Example: lossforge cancel digits-atss-1
    """
    from search_server.cli.output import one_line, print_json, stdout_kept

    if (url := server_url(server, store)) is not None:
        from search_server.cli import remote

        remote.cancel(url, job, as_json)
        return
    with open_store(store) as opened:
        with stdout_kept():
            from search_server.attempts import cancel as end

            how = end(opened, job, wait)
        state = opened.job(job).state
    if as_json:
        print_json({"job": job, "state": state, "how": how})
        return
    print(one_line(f"job {job} is {state}: {how}"))
    print(one_line(f"see:    lossforge leaderboard {job}"))


def _print_status(found: JobStatus) -> None:
    from search_server.cli.output import age, console, plain, points, table

    job, attempt = found.summary, found.attempt
    why = f": {job.reason}" if job.reason else ""
    trials = ", ".join(f"{count} {state}" for state, count in found.trials.items())
    facts = [
        ("state", f"{job.doing}{why}"),
        ("created", f"{age(job.created_at)} ago"),
        ("runs", found.runs),
        ("candidates", f"{job.candidates}, {job.trained} with a fitness"),
        ("trials", trials or "none yet"),
        ("best AP", f"{points(job.best)}, baseline {points(job.baseline)}"),
    ]
    if attempt is not None:
        said = found.ray or "unknown to Ray"
        facts.append(("attempt", f"{attempt.submission_id} at {attempt.address}: {said}"))
    if found.note:
        facts.append(("note", found.note))
    out = console()
    out.print(plain(job.id, "bold"))
    made = table("", " ", fold=(" ",))
    made.show_header = False
    for name, value in facts:
        made.add_row(name, plain(value))
    out.print(made)


def _tame(text: str) -> str:
    """A log without what could steer a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text.replace("\r\n", "\n"))
