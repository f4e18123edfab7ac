"""`lossforge submit`: a search on a Ray cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search_server.cli.options import JsonOption, ServerOption, StoreOption, server_url, store_url
from search_server.cli.search import warn_of_budget

if TYPE_CHECKING:
    from search_server.submission import Submission


def submit(
    spec: Annotated[
        Path | None, typer.Argument(help="The job spec, a YAML file.", show_default=False)
    ] = None,
    address: Annotated[
        str,
        typer.Option(
            metavar="URL",
            envvar="RAY_API_SERVER_ADDRESS",
            help="The cluster's dashboard.",
        ),
    ] = "http://127.0.0.1:8265",
    resume: Annotated[
        str | None,
        typer.Option(metavar="JOB", help="Go on with this job there, instead of a new one."),
    ] = None,
    python: Annotated[
        str | None,
        typer.Option(
            help="The interpreter there that has Lossforge; default: this one or `python`."
        ),
    ] = None,
    driver_cpus: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=64,
            help="CPUs that Ray keeps for the controller. Default: 1, which keeps it off a head "
            "without CPUs; 0 where a trial would have no room beside it.",
            show_default=False,
        ),
    ] = None,
    working_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Send the modules in this folder along: those that a detector's `custom_imports` "
            "name. They come last on the import path.",
            show_default=False,
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Leave these files or folders of --working-dir out, beside .git, .venv, data, "
            "work_dirs, *.pth and the like; may be repeated.",
            show_default=False,
        ),
    ] = None,
    max_upload: Annotated[
        float, typer.Option(metavar="MIB", min=0, max=512, help="Limit of --working-dir.")
    ] = 100.0,
    wait_for_nodes: Annotated[
        bool,
        typer.Option(
            "--wait-for-nodes",
            help="Submit though no node has room for a trial: an autoscaler will start one.",
        ),
    ] = False,
    wait: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0, max=3600, help="How long to wait for the controller to begin."
        ),
    ] = 30.0,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Resume though the last attempt's cluster does not answer: it is gone."
        ),
    ] = False,
    store: StoreOption = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Submit a search to a Ray cluster. The store must be reachable from there too.

    The job is written to the store first; its controller runs on the cluster, where `status`,
    `logs`, `cancel`, `leaderboard` and `export` find it from any machine that reaches the store.
    With --server a service takes the spec instead, and runs it where its own settings say.

    Example: lossforge submit configs/search/digits_atss.yaml --address http://head:8265
    """
    from search_server.cli.output import stdout_kept
    from search_server.errors import JobError
    from search_server.store.url import absolute

    if (spec is None) == (resume is None):
        raise JobError("give a SPEC to submit, or --resume JOB to go on with a job; one of the two")
    if working_dir is None and exclude:
        raise JobError("--exclude leaves something of --working-dir out; give that too")
    if (service := server_url(server, store)) is not None:
        from search_server.cli import remote

        if spec is not None:
            remote.submit(service, spec, as_json)
        else:
            assert resume is not None
            remote.resume(service, resume, force=force, as_json=as_json)
        return
    url = absolute(store_url(store))
    with stdout_kept():
        from search_server.packing import packed
        from search_server.submission import Wishes, resubmit
        from search_server.submission import submit as send
        from workers.modules import add_user_modules

        modules = None
        if working_dir is not None:
            modules = packed(working_dir, exclude or (), max_upload)
            add_user_modules(working_dir)
        wishes = Wishes(python, driver_cpus, wait_for_nodes, wait, modules, force)
        if spec is not None:
            from search_server.spec import load_spec

            loaded = load_spec(spec)
            warn_of_budget(loaded, spec, url)
            sent = send(loaded, url, address, spec, wishes)
        else:
            assert resume is not None
            sent = resubmit(resume, url, address, wishes)
    print_submission(sent, as_json)


def print_submission(sent: Submission, as_json: bool) -> None:
    """Where a job runs, and what to do next."""
    from search_server.cli.output import one_line, print_json

    if as_json:
        print_json(sent)
        return
    job = sent.job_id
    if sent.submission_id is None:
        print(one_line(f"job {job} already runs, in a process of this machine"))
    else:
        where = f"as {sent.submission_id} at {sent.address}"
        waits = "" if sent.started or sent.already else "; its controller has not begun yet"
        print(one_line(f"job {job} {'already runs' if sent.already else 'runs'} {where}{waits}"))
    print(one_line(f"watch:  lossforge status {job}"))
    if sent.submission_id is not None:
        print(one_line(f"log:    lossforge logs {job} --follow"))
    print(one_line(f"cancel: lossforge cancel {job}"))
