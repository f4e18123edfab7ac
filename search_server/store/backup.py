"""A copy of an SQLite store, made while others read and write it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

from sqlalchemy import URL

from search_server.errors import StoreError
from search_server.store.url import shown


def back_up(url: URL, revision: str) -> Path | None:
    """Copy a store to `FILE.before-REVISION` beside it, as it was last committed; None for a
    PostgreSQL store, which `pg_dump` copies.

    A file of this name is whole: it gets its name when it is complete. It replaces none.

    Raises:
        StoreError: no space, or the folder may not be written.
    """
    if url.get_backend_name() != "sqlite":
        return None
    source = Path(str(url.database))
    target = _free_name(source, revision)
    part = target.with_name(f"{target.name}.part")
    try:
        size = sum(each.stat().st_size for each in (source, _log_of(source)) if each.exists())
        free = shutil.disk_usage(source.parent).free
        if free < size:
            raise _failed(url, f"it takes {size:,} bytes, and {free:,} are free")
        part.unlink(missing_ok=True)
        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(part)) as new:
            old.backup(new)
        _sync(part)
        os.replace(part, target)
    except (OSError, sqlite3.Error) as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise _failed(url, str(error)) from None
    return target


def _free_name(source: Path, revision: str) -> Path:
    first = source.with_name(f"{source.name}.before-{revision}")
    others = (first.with_name(f"{first.name}.{number}") for number in count(2))
    return first if not first.exists() else next(each for each in others if not each.exists())


def _log_of(source: Path) -> Path:
    return source.with_name(f"{source.name}-wal")


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _failed(url: URL, why: str) -> StoreError:
    return StoreError(
        f"{shown(url)}: no copy can be made beside it ({why}); make room or give write permission, "
        "or copy it elsewhere yourself and run: lossforge db upgrade --no-backup. "
        "Nothing was changed"
    )
