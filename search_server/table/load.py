"""Where tables are, and how one is read."""

from __future__ import annotations

from pathlib import Path

from search_server.errors import JobError
from search_server.table.contents import Table, table_of
from search_server.table.files import ABOUT, read_table
from search_server.table.log import LOG_FILE, read_log
from search_server.table.plan import PLAN_FILE, read_plan

DEFAULT = "digits-v1"


def tables_dir() -> Path:
    """Folder of the shipped tables: packaged in a wheel, else the checkout's."""
    package = Path(__file__).resolve().parent
    packaged = package / "_tables"
    return packaged if packaged.is_dir() else package.parent.parent / "tables"


def table_folder(given: str = DEFAULT) -> Path:
    """The folder of a table, by path or by the name of a shipped one.

    Raises:
        JobError: there is none.
    """
    for path in (Path(given), tables_dir() / given):
        if path.is_dir():
            return path
    names = ", ".join(sorted(path.name for path in tables_dir().glob("*/"))) or "none"
    raise JobError(f"{given!r} is no folder of a table; shipped tables: {names}")


def load_table(name: str = DEFAULT) -> Table:
    """A table by the name of a shipped one or by its folder.

    Where the folder has a table that is being trained, it is read as far as it has come; else the
    published files are.

    Example:
        >>> table = load_table("digits-v1")
        >>> best = max(table.trained("atss"), key=lambda loss: loss.mean())

    Raises:
        JobError: there is no such table, or a file is broken.
    """
    folder = table_folder(name)
    log, plan = folder / LOG_FILE, folder / PLAN_FILE
    if plan.is_file() and (log.is_file() or not (folder / ABOUT).is_file()):
        return table_of(read_plan(plan), read_log(log) if log.is_file() else {})
    return read_table(folder)
