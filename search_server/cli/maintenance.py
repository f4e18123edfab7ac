"""`lossforge gc`, `lossforge doctor` and `lossforge db`: looking after an installation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search_server.cli.options import JsonOption, StoreOption, store_url

if TYPE_CHECKING:
    from rich.console import Console

    from search_server.identity_check import Report

db = typer.Typer(no_args_is_help=True, help="The store's schema, and whether its losses differ.")

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def gc(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove what killed processes left behind, and what is cached and was not used for long.

    Work folders whose process is gone, checkpoints that nobody touched for a week, and weights of
    warm starts, captures of calibrations and decoded images that nobody used for 30 days: all of it
    is made again where it is needed.

    Example: lossforge gc --dry-run
    """
    from search_server.cli.output import one_line, print_json
    from workers import collect_garbage

    found = collect_garbage(dry_run)
    if as_json:
        print_json({"folders": found.folders, "bytes": found.bytes, "removed": not dry_run})
        return
    for folder in found.folders:
        print(one_line(str(folder)))
    verb = "would remove" if dry_run else "removed"
    print(f"{verb} {len(found.folders)} folders and files, {found.bytes / 1e6:.1f} MB")


def doctor(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Look whether everything that a search needs is there, and say how to get what is not.

    Exit status 1 when something is missing that a search cannot do without.

    Example: lossforge doctor
    """
    from search_server.cli.output import console, plain, print_json, stdout_kept, table
    from search_server.doctor import examine

    with stdout_kept():
        findings = examine(store_url(store))
    failed = any(finding.verdict == "fail" for finding in findings)
    if as_json:
        print_json({"ok": not failed, "findings": findings})
    else:
        made = table("", "what", "found", fold=("found",))
        for finding in findings:
            text = plain(finding.found)
            if finding.cure:
                text.append(f"\n-> {plain(finding.cure)}", style="italic")
            style = _STYLES[finding.verdict]
            made.add_row(f"[{style}]{finding.verdict}[/]", plain(finding.what), text)
        console().print(made)
    raise typer.Exit(int(failed))


@db.command()
def upgrade(
    store: StoreOption = None,
    no_backup: Annotated[
        bool, typer.Option("--no-backup", help="Make no copy of an SQLite store first.")
    ] = False,
) -> None:
    """Bring a store to the schema of this version, all of it or nothing.

    An SQLite store is copied first, to a file beside it. Back a PostgreSQL store up with pg_dump.

    Example: lossforge db upgrade --store sqlite:////home/me/lossforge.db
    """
    from search_server.cli.output import one_line
    from search_server.store.schema import upgrade as run
    from search_server.store.url import parse_url, shown

    def tell(file: Path) -> None:
        print(f"backed up to {one_line(str(file))}")

    url = parse_url(store_url(store))
    before, after = run(url, None if no_backup else tell)
    change = "was there already" if before == after else f"from {before or 'nothing'}"
    print(f"{shown(url)}: schema {after} ({change})")


@db.command()
def current(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show the schema of a store beside the one that this version reads.

    Example: lossforge db current
    """
    from search_server.cli.output import print_json
    from search_server.store.schema import current as revision
    from search_server.store.schema import head
    from search_server.store.url import parse_url, shown

    url = parse_url(store_url(store))
    found, wanted = revision(url), head()
    if as_json:
        print_json({"store": shown(url), "schema": found, "reads": wanted})
        return
    print(f"{shown(url)}: schema {found or 'none yet'}; this version reads {wanted}")


@db.command("check-identity")
def check_identity(
    store: Annotated[
        list[str] | None,
        typer.Option(
            "--store",
            metavar="URL",
            help="A store; may be given again. Default: as for other commands.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check that no loss was trained twice, and that none was taken for another.

    Every loss is built as in a training and differentiated in float64, at other predictions than
    those that decided which losses are one. Exit status 1 when a pair is found.

    Example: lossforge db check-identity --store sqlite:////home/me/lossforge.db
    """
    from search_server.cli.options import open_store
    from search_server.cli.output import console, note, print_json, stdout_kept

    reports = []
    with stdout_kept():
        from search_server.identity_check import check_store

        for url in store or [store_url(None)]:
            with open_store(url) as opened:
                reports.append(check_store(opened, lambda job: note(f"checking {job}")))
    if as_json:
        print_json({"ok": all(report.ok for report in reports), "stores": reports})
    else:
        for report in reports:
            _print_identities(console(), report)
    raise typer.Exit(int(not all(report.ok for report in reports)))


def _print_identities(out: Console, report: Report) -> None:
    """A store's report: the counts, then every pair."""
    from search_server.cli.output import plain

    out.print(plain(f"{report.store}: {report.candidates} candidates measured"))
    if report.unmeasured:
        out.print(plain(f"  not measured: {', '.join(report.unmeasured)}"))
    out.print(f"  trained separately though one loss: {len(report.trained_twice)} pairs")
    out.print(f"  (alike but for their scale: {report.same_direction} pairs)")
    for pair in report.trained_twice:
        out.print(plain(f"    {pair.one} and {pair.other}, {pair.where}: {pair.distance:.1e}"))
    different = report.merged_but_different
    out.print(f"  taken for one though different: {len(different)} of {report.merges}")
    for pair in different:
        far = "of another form" if pair.distance is None else f"{pair.distance:.1e}"
        out.print(plain(f"    {pair.one} and {pair.other}: {far}"))
