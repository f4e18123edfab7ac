"""`lossforge submit`: a search on a Ray cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search_server.cli.options import JsonOption, StoreOption, store_url
from search_server.cli.search import warn_of_budget


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
        float,
        typer.Option(min=0, max=64, help="CPUs that Ray keeps for the controller, off the head."),
    ] = 0.0,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Submit a search to a Ray cluster. The store must be reachable from there too.

    The job is written to the store first; its controller runs on the cluster, where `jobs`,
    `leaderboard` and `export` here can watch it.

    Example: lossforge submit configs/search/digits_atss.yaml --address http://head:8265
    """
    from search_server.cli.output import one_line, print_json, stdout_kept
    from search_server.errors import JobError
    from search_server.store.url import absolute

    if (spec is None) == (resume is None):
        raise JobError("give a SPEC to submit, or --resume JOB to go on with a job; one of the two")
    url = absolute(store_url(store))
    with stdout_kept():
        from search_server.spec import load_spec
        from search_server.submission import resubmit
        from search_server.submission import submit as send

        if spec is not None:
            loaded = load_spec(spec)
            warn_of_budget(loaded, spec, url)
            sent = send(loaded, url, address, spec, python, driver_cpus)
        else:
            assert resume is not None
            sent = resubmit(resume, url, address, python, driver_cpus)
    if as_json:
        print_json(sent)
        return
    print(one_line(f"job {sent.job_id} runs at {address} as {sent.submission_id}"))
    print(one_line(f"watch:  lossforge leaderboard {sent.job_id}"))
    print(one_line(f"log:    ray job logs --address {address} --follow {sent.submission_id}"))
    print(one_line(f"stop:   ray job stop --address {address} {sent.submission_id}"))
