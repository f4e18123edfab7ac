"""`lossforge metrics`: a store's figures for Prometheus."""

from __future__ import annotations

from typing import Annotated

import typer

from search_server.cli.options import StoreOption, store_url


def metrics(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free one.")] = 9464,
    jobs: Annotated[
        int,
        typer.Option(
            min=0, help="How many jobs get series of their own: active ones, then the newest."
        ),
    ] = 50,
    once: Annotated[bool, typer.Option("--once", help="Print the metrics and end.")] = False,
    store: StoreOption = None,
) -> None:
    """Serve a store's figures to Prometheus: jobs, trials and their rates, queue, best fitness.

    It only reads, until it is stopped. While the store is away `lossforge_up` is 0; with --once the
    exit status is 1 then.

    Example: lossforge metrics --host 0.0.0.0 --port 9464
    """
    from prometheus_client import CollectorRegistry, generate_latest

    from search_server.metrics import StoreCollector

    collector = StoreCollector(store_url(store), jobs)
    registry = CollectorRegistry()
    registry.register(collector)
    if once:
        print(generate_latest(registry).decode(), end="")
        collector.close()
        raise typer.Exit(int(bool(collector.trouble)))
    _serve(registry, host, port)


def _serve(registry: object, host: str, port: int) -> None:
    """Answer until SIGTERM or Ctrl-C.

    Raises:
        SearchError: nothing can listen there.
    """
    import signal
    import threading

    from prometheus_client import start_http_server

    from search_server.errors import SearchError

    stop = threading.Event()
    # As process 1 of a container it would ignore SIGTERM without a handler.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        server, thread = start_http_server(port, host, registry)  # type: ignore[arg-type]
    except OSError as error:
        raise SearchError(
            f"nothing can listen on {host}:{port} ({error.strerror}); give another --host or --port"
        ) from None
    print(f"metrics at http://{host}:{server.server_port}/metrics", flush=True)
    stop.wait()
    server.shutdown()
    thread.join()
