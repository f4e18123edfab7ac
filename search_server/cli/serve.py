"""`lossforge serve`: the API and the pages over a store; `lossforge token`: keys to them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from search_server.cli.options import JsonOption, StoreOption, open_store, store_url


class LogLevel(StrEnum):
    """How much is told on stderr."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


class RoleChoice(StrEnum):
    """What a token may do; each may do what those before it may."""

    read = "read"
    submit = "submit"
    admin = "admin"


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free one.")] = 8330,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What submitters may do, YAML (see docs/service.md). Default: search on the "
            "digits, on this machine.",
            show_default=False,
        ),
    ] = None,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Want a token on 127.0.0.1 too; elsewhere always.")
    ] = False,
    log_level: Annotated[LogLevel, typer.Option(help="How much to tell.")] = LogLevel.warning,
    store: StoreOption = None,
) -> None:
    """Serve the API and the pages over a store, until Ctrl-C or SIGTERM; searches go on meanwhile.

    On 127.0.0.1 whoever uses this machine may do everything, unless --tokens is given. Any other
    --host wants a token of everybody, and so does `https: true` in the settings, which says that a
    proxy lets others in: `lossforge token create` first.

    Example: lossforge serve --port 8330
    """
    import logging

    from search_server.cli.output import stdout_kept

    logging.basicConfig(
        level=log_level.value.upper(), format="%(asctime)s %(levelname)s %(message)s"
    )
    with stdout_kept():
        from search_server.service.serving import listening, prepared, run
        from search_server.service.settings import ServiceSettings, load_settings

        settings = ServiceSettings() if config is None else load_settings(config)
    with listening(host, port) as socket, open_store(store, create=True) as opened:
        with stdout_kept():
            app = prepared(opened, store_url(store), settings, host, tokens=tokens)
        shown = f"[{host}]" if ":" in host else host
        print(f"Lossforge at http://{shown}:{socket.getsockname()[1]}/", flush=True)
        with stdout_kept():
            run(app, socket, settings)


token = typer.Typer(
    name="token", help="Keys to `lossforge serve`: made, listed, revoked.", no_args_is_help=True
)


@token.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is, for the list.")],
    role: Annotated[RoleChoice, typer.Option(help="What it may do.")] = RoleChoice.read,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token and print it: it is kept as a hash only and never shown again.

    Example: lossforge token create ada --role submit
    """
    from search_server.cli.output import note, print_json

    with open_store(store, create=True) as opened:
        text = opened.create_token(name, role.value)
    if as_json:
        print_json({"name": name, "role": role.value, "token": text})
        return
    note("keep it: it is not shown again")
    print(text)


@token.command(name="list")
def listed(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List the tokens: name, role, when made and when revoked.

    Example: lossforge token list
    """
    from search_server.cli.output import age, console, plain, print_json, table

    with open_store(store) as opened:
        found = opened.tokens()
    if as_json:
        fields = ("name", "role", "created_at", "revoked_at")
        print_json({"tokens": [{name: getattr(each, name) for name in fields} for each in found]})
        return
    out = console()
    if not found:
        out.print("No tokens.")
        return
    made = table("name", "role", "age", "revoked", right=("age",), fold=("name",))
    for each in found:
        gone = "" if each.revoked_at is None else f"{age(each.revoked_at)} ago"
        made.add_row(plain(each.name), each.role, age(each.created_at), gone)
    out.print(made)


@token.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose token.")],
    store: StoreOption = None,
) -> None:
    """End a token at once, and every browser's session that was opened with it.

    Example: lossforge token revoke ada
    """
    from search_server.cli.output import one_line

    with open_store(store) as opened:
        opened.revoke_token(name)
    print(one_line(f"the token {name} is revoked"))
