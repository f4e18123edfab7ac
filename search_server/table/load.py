"""Where tables are, and how one is read."""

from __future__ import annotations

from pathlib import Path

from search_server.errors import JobError


def tables_dir() -> Path:
    """Folder of the shipped tables: packaged in a wheel, else the checkout's."""
    package = Path(__file__).resolve().parent
    packaged = package / "_tables"
    return packaged if packaged.is_dir() else package.parent.parent / "tables"


def table_folder(given: str) -> Path:
    """The folder of a table, by path or by the name of a shipped one.

    Raises:
        JobError: there is none.
    """
    for path in (Path(given), tables_dir() / given):
        if path.is_dir():
            return path
    shipped = tables_dir()
    names = (
        sorted(path.name for path in shipped.iterdir() if path.is_dir()) if shipped.is_dir() else []
    )
    raise JobError(
        f"{given!r} is no folder of a table; shipped tables: {', '.join(names) or 'none'}"
    )
