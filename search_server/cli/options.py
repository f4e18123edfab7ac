"""Options that several commands share, and what they stand for."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from search_server.store import Store

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="The store: a path, or a URL (sqlite:///..., postgresql://...). Default: "
        "$LOSSFORGE_STORE, else lossforge.db in Lossforge's home folder.",
        show_default=False,
    ),
]
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="Ask the service there (`lossforge serve`) instead of a store; $LOSSFORGE_TOKEN holds "
        "its token. Default: $LOSSFORGE_SERVER, where --store is not given.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
JobArgument = Annotated[
    str | None,
    typer.Argument(metavar="[JOB]", help="Id of the job; default: the newest.", show_default=False),
]

CompileOption = Annotated[
    bool,
    typer.Option(
        "--compile-loss",
        help="Have torch.compile compile the loss's expressions; needs a C++ compiler, else they "
        "run as they are.",
    ),
]


class Precision(StrEnum):
    """Arithmetic of a detector's layers; its losses are float32 either way."""

    float32 = "float32"
    bfloat16 = "bfloat16"


def store_url(given: str | None) -> str:
    """`--store`, else the default."""
    from search_server.store import default_url

    return default_url() if given is None else given


def server_url(server: str | None, store: str | None) -> str | None:
    """The service that a command asks; None: it works on a store.

    Raises:
        ServiceError: both were given.
    """
    if server is not None and store is not None:
        from search_server.errors import ServiceError

        raise ServiceError("--server asks a service and --store a store; give one of the two")
    if server is None and store is None:
        return os.environ.get("LOSSFORGE_SERVER") or None
    return server


def open_store(given: str | None, *, create: bool = False) -> Store:
    """The store that a command works on; only commands that write make a new one.

    Raises:
        StoreError: it cannot be opened.
    """
    from search_server.store import Store

    return Store.open(store_url(given), create=create)


def job_id(store: Store, given: str | None) -> str:
    """The job that was named, checked, or the newest one.

    Raises:
        JobError: there is none.
    """
    return (store.latest_job() if given is None else store.job(given)).id


def candidate_id(store: Store, text: str, job: str | None) -> tuple[str, int]:
    """`JOB:INDEX`, or `INDEX` of `--job` or of the newest job.

    Raises:
        JobError: no such job, or the index is no number.
    """
    from search_server.candidate_names import split_name

    named, index = split_name(text, job)
    return job_id(store, named), index
